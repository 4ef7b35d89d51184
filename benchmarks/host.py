"""Host time: what a call costs the processor that launches it, beside what PyTorch's own costs.

    attnmod bench host [--check] [--rounds 15]

A kernel of 8 microseconds gains nothing where its launch takes 30. So both ops are timed on the host beside one call of
scaled_dot_product_attention, and a modulated BasicTransformerBlock beside the stock one, by the CPU time of this
thread: waiting for a device or for another process is not counted. They take turns, and ratios are taken turn by turn.

On a machine with a GPU the tensors are on it. Elsewhere launches go to a driver that does nothing (stub_driver.py), on
tensors so small that SDPA and the layers compute next to nothing on the CPU.

Goals, which --check turns into the exit code: each op at most one call of SDPA; the block at most 1.05 of stock.
"""

import argparse
import contextlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from attnmod.benchmarks.stub_driver import obstacle, stub_gpu
from attnmod.kernels import ops
from attnmod.kernels.tile_table import triton_version

GOALS = {"self-attention": 1.0, "cross-attention": 1.0, "block": 1.05}
_CALLS = {"op": 200, "block": 20}  # of a turn


@dataclass(frozen=True)
class Figure:
    """CPU microseconds of a call, the median over all turns; and the median ratio to the call it stands beside."""

    name: str
    microseconds: float
    ratio: float
    goal: float | None = None

    @property
    def holds(self) -> bool:
        return self.goal is None or self.ratio <= self.goal


def measure(rounds: int) -> list[Figure]:
    """All figures, on the GPU that is there or on the stub.

    Raises:
        RuntimeError: there is neither.
    """
    on_gpu = torch.cuda.is_available()
    with torch.no_grad(), warnings.catch_warnings(), contextlib.nullcontext() if on_gpu else stub_gpu(), _one_thread():
        warnings.filterwarnings("ignore", "attnmod: nobody has measured")
        device = torch.device("cuda" if on_gpu else "cpu")
        return [*_ops(device, rounds), *_block(device, rounds)]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Within it a CPU computes with one thread: what a pool of threads costs is no part of a launch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ops(device: torch.device, rounds: int) -> list[Figure]:
    patches = 1024 if device.type == "cuda" else 16

    def projected(length: int) -> torch.Tensor:
        return torch.randn(2, length, 2, 64, device=device).half().transpose(1, 2)

    q, k, v, text_k, text_v = (projected(length) for length in (patches, patches, patches, 77, 77))
    tau = torch.full((2,), 0.8, device=device)
    bits = torch.full((2, 77), -1, dtype=torch.int32, device=device)
    bits[1, 3:6], bits[1, 7:9] = 1, 2
    modulation = {
        "entity_bits": bits,
        "log_weights": torch.zeros(2, 77, device=device),
        "hidden_weight": torch.full((2,), 0.1, device=device),
        "owner": torch.zeros(2, patches, dtype=torch.int8, device=device),
    }
    registered = torch.ops.attnmod
    calls: dict[str, Callable[[], Any]] = {
        "SDPA": lambda: F.scaled_dot_product_attention(q, k, v),
        "self-attention": lambda: ops.trusted_self_attention(q, k, v, tau),
        "self-attention, registered op": lambda: registered.self_attention(q, k, v, tau),
        "self-attention, checked": lambda: ops.self_attention(q, k, v, temperature=tau),
        "cross-attention": lambda: ops.trusted_cross_attention(q, text_k, text_v, **modulation),
        "cross-attention, registered op": lambda: registered.cross_attention(q, text_k, text_v, **modulation),
        "cross-attention, checked": lambda: ops.cross_attention(q, text_k, text_v, **modulation),
    }
    return _figures(_in_turn(calls, _CALLS["op"], rounds, device), beside="SDPA")


def _block(device: torch.device, rounds: int) -> list[Figure]:
    """A whole block in the midst of a UNet call, so that the state which the processors read is this call's."""
    from attnmod.benchmarks.unet_step import Pair

    # On a CPU the stock block also computes, but next to nothing: 4 patches, and a text of few channels.
    pair = Pair(full=False, device=device, latents=4, cross_attention_dim=8)
    steps = pair.steps()
    both = (("stock block", pair.stock, steps["stock"]), ("block", pair.modulated, steps["modulated"]))
    times: dict[str, list[float]] = {name: [] for name, _, _ in both}
    for _, _, step in both:
        step(0)  # begins a run: projects the text, and makes the plans
    for turn in range(rounds):
        for name, unet, step in both:
            with _timed_forward(_block_of(unet), times[name], device):
                step(1 + turn % 20)
    return _figures(times, beside="stock block")


def _block_of(unet: torch.nn.Module) -> torch.nn.Module:
    return next(module for module in unet.modules() if type(module).__name__ == "BasicTransformerBlock")


@contextlib.contextmanager
def _timed_forward(block: torch.nn.Module, times: list[float], device: torch.device) -> Iterator[None]:
    """Within it a call of the block is made many times, and their mean host time noted."""
    original = block.forward

    def forward(*arguments, **options):
        times.append(_host_time(lambda: original(*arguments, **options), _CALLS["block"], device))
        return original(*arguments, **options)

    block.forward = forward
    try:
        yield
    finally:
        del block.forward


def _in_turn(
    calls: dict[str, Callable[[], Any]], number: int, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    for call in calls.values():  # compiles, and makes the plans
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_host_time(call, number, device))
    return times


def _host_time(call: Callable[[], Any], number: int, device: torch.device) -> float:
    """CPU microseconds of one of so many calls. On a GPU its queue must have room, or a launch would wait."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.thread_time()
    for _ in range(number):
        call()
    return (time.thread_time() - start) / number * 1e6


def _figures(times: dict[str, list[float]], beside: str) -> list[Figure]:
    figures = []
    for name, values in times.items():
        ratio = statistics.median(value / other for value, other in zip(values, times[beside], strict=True))
        figures.append(Figure(name, round(statistics.median(values), 1), round(ratio, 3), GOALS.get(name)))
    return figures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="attnmod bench host", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--rounds", type=int, default=15, help="turns that are taken (15)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1; it was {options.rounds}")
    if not torch.cuda.is_available() and (reason := obstacle()):
        print(f"host time cannot be measured here: {reason}", file=sys.stderr)
        return 2
    figures = measure(options.rounds)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the stub driver, no GPU"
    print(f"host time of a call, CPU microseconds; {where}, torch {torch.__version__}, triton {triton_version()}")
    for figure in figures:
        goal = "" if figure.goal is None else f"  goal {figure.goal:g}: {'holds' if figure.holds else 'MISSED'}"
        print(f"{figure.name:32} {figure.microseconds:8.1f}   ratio {figure.ratio:6.3f}{goal}")
    return int(options.check and not all(figure.holds for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
