"""How long a call takes: by replays of a CUDA graph on a GPU, plainly on a CPU.

A kernel of this project takes 5 to 200 us and its launch from Python 20 to 60: two events around one launch of a kernel
of 8 us read 60. So on a GPU 20 calls are captured into one graph, and events stand around whole replays, which follow
each other without a gap. The small pause between two kernels of a graph is in the figure, as it is in a captured UNet.
What a call costs where Python launches it is told beside that, and never in its place.

Inputs rotate, so that a call does not find its own operands in the cache by chance. "Warm" keeps the L2 cache as the
call before left it. "Cold" has the graph overwrite that cache before every call, and takes off the time of a graph that
does nothing else: so no event and no launch stands between the two, whose own time is that of a small kernel.
"""

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

CALLS = 20  # of one graph
SETS = 3  # of inputs, at the least
_SAMPLES = 20
_SAMPLE_MS = 1.0  # the least between two events, which resolve half a microsecond
_L2_BYTES = 256 << 20  # more than any processor's second-level cache


@dataclass(frozen=True)
class Times:
    """Of one call, in ms.

    p20, p50, p80: on the device. eager: what a call adds to the wall clock where Python launches one after the other;
    host: until its last launch returns, without waiting for the device. Both are None on a CPU, where p50 is all that.
    """

    p20: float
    p50: float
    p80: float
    eager: float | None = None
    host: float | None = None


def time_calls(
    call: Callable[..., object],
    inputs: Sequence[tuple[Any, ...]],
    device: torch.device,
    *,
    cold: bool = False,
    eager: bool = True,
    budget_ms: float = 60.0,
) -> Times:
    """The times of call(*inputs[i]), i going around; budget_ms bounds the replays, not what prepares them.

    Without eager, and then faster, launches from Python are not timed.
    """
    if len(inputs) < SETS:
        raise ValueError(f"inputs rotate: at least {SETS} sets are needed, {len(inputs)} were given")

    def turn(i: int) -> object:
        return call(*inputs[i % len(inputs)])

    if device.type != "cuda":
        return Times(*percentiles(_one_after_the_other(turn, budget_ms)))
    for i in range(len(inputs)):
        turn(i)
    torch.cuda.synchronize()
    _, once = launched(turn, 1, repeats=1)
    calls = max(len(inputs), min(CALLS, int(budget_ms / 5 / max(once, 1e-3))))
    by_python = launched(turn, calls)[::-1] if eager else (None, None)
    if not cold:
        return Times(*percentiles(_replayed(capture(turn, calls), calls, budget_ms)), *by_python)
    overwrite = _l2_overwriter(device)

    def flush(_: int) -> None:
        overwrite()

    def flush_and_turn(i: int) -> None:
        flush(i)
        turn(i)

    of_flush = statistics.median(_replayed(capture(flush, calls), calls, budget_ms))
    both = _replayed(capture(flush_and_turn, calls), calls, budget_ms)
    return Times(*percentiles([sample - of_flush for sample in both]), *by_python)


def launched(turn: Callable[[int], object], calls: int, repeats: int = 5) -> tuple[float, float]:
    """(host, eager) in ms, see `Times`: medians of so many rounds of that many calls, each begun on an idle device."""
    host, eager = [], []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(calls):
            turn(i)
        host.append((time.perf_counter() - start) / calls * 1e3)
        torch.cuda.synchronize()
        eager.append((time.perf_counter() - start) / calls * 1e3)
    return statistics.median(host), statistics.median(eager)


def capture(turn: Callable[[int], object], calls: int) -> torch.cuda.CUDAGraph:
    """A graph of turn(0) to turn(calls - 1), each of which has run before, so that nothing is compiled in it."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    collects = gc.isenabled()
    # A kernel or a graph that is collected meanwhile would unload its code, which ends a capture.
    gc.disable()
    try:
        with torch.cuda.stream(stream):  # a capture that fails does not put the stream back by itself
            turn(0)  # libraries make their workspaces for each stream
            with torch.cuda.graph(graph, stream=stream):
                for i in range(calls):
                    turn(i)
    finally:
        if collects:
            gc.enable()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def percentiles(times: list[float]) -> tuple[float, float, float]:
    """p20, median and p80; of fewer than five the least, the median and the most.

    >>> percentiles([float(n) for n in range(1, 10)]), percentiles([3.0, 1.0])
    ((2.0, 5.0, 8.0), (1.0, 2.0, 3.0))
    """
    if len(times) < 5:
        return min(times), statistics.median(times), max(times)
    deciles = statistics.quantiles(times, n=10)
    return deciles[1], statistics.median(times), deciles[7]


def _l2_overwriter(device: torch.device) -> Callable[[], object]:
    return torch.empty(_L2_BYTES, dtype=torch.int8, device=device).zero_


def _replayed(graph: torch.cuda.CUDAGraph, calls: int, budget_ms: float) -> list[float]:
    """ms of a call, a sample for each stretch of replays between two events."""
    (first,) = _between_events(graph, 1, 1)  # also loads the graph onto the device
    (once,) = _between_events(graph, 1, max(1, math.ceil(_SAMPLE_MS / max(first, 1e-3))))
    replays = max(1, math.ceil(_SAMPLE_MS / max(once, 1e-3)))
    samples = max(5, min(_SAMPLES, int(budget_ms / (once * replays))))
    return [sample / calls for sample in _between_events(graph, samples, replays)]


def _between_events(graph: torch.cuda.CUDAGraph, samples: int, replays: int) -> list[float]:
    """ms of a replay, for each of the samples, which follow each other without a pause."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(samples + 1)]
    marks[0].record()
    for mark in marks[1:]:
        for _ in range(replays):
            graph.replay()
        mark.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / replays for start, end in itertools.pairwise(marks)]


def _one_after_the_other(turn: Callable[[int], object], budget_ms: float) -> list[float]:
    turn(0)
    start = time.perf_counter()
    turn(1)
    once = (time.perf_counter() - start) * 1e3
    times = []
    for i in range(max(5, min(200, int(budget_ms / max(once, 1e-3))))):
        start = time.perf_counter()
        turn(i)
        times.append((time.perf_counter() - start) * 1e3)
    return times
