"""Forms of self-attention that nobody has seen on a GPU, in a process of their own.

A form that waits for itself hangs the device: its process ends after some seconds, and the forms after it get another
one. The softmax options of the Triton kernel are tried beside stage "right"; the forms of the Gluon kernel have a stage
of their own, since they are also timed.

    python -m attnmod.benchmarks.gpu.risky GROUP NAME...
"""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from attnmod.benchmarks.gpu.report import Report
from attnmod.benchmarks.launches import Case
from attnmod.kernels import configs, reference
from attnmod.kernels.testing import assert_within_budget
from attnmod.kernels.tile_table import SOFTMAX_OPTIONS, Tiles

_SECONDS = 30.0  # of a process
_EACH = 10.0  # of a form, from when the process is ready
_SIZES = (4096, 333)
_STEPS = (4.0, -16.0)  # of a channel from one 128 keys to the next: the maximum grows by 4 nats and more, or falls
_TIMED = ((10, 4096), (20, 1024))  # heads and patches


def candidates(group: str, architecture: str) -> dict[str, Tiles]:
    """What is tried, by name: "softmax", the options beside the table's tiles, or "gluon"."""
    if group == "gluon":
        return {"table": _shipped(architecture), **GLUON}
    options = {
        "plain": (),
        **{option: (option,) for option in SOFTMAX_OPTIONS},
        "overlap polynomial": ("overlap", "polynomial"),
    }
    return {name: replace(_shipped(architecture), options=chosen) for name, chosen in options.items()}


def _shipped(architecture: str) -> Tiles:
    return configs.self_attention_tiles(architecture, 64, 4096, 2)


def _gluon(consumers: int, block_n: int, stages: int, registers: int, *options: str) -> Tiles:
    return Tiles(64 * consumers, block_n, 4, stages, max_registers=registers, options=options, kernel="gluon")


# Consumers by keys of a tile; the likeliest first.
GLUON = {
    "3 x 128, 2 stages": _gluon(3, 128, 2, 160),
    "3 x 128, 2 stages, persistent": _gluon(3, 128, 2, 160, "persistent"),
    "3 x 128, 2 stages, persistent, steady": _gluon(3, 128, 2, 160, "persistent", "steady"),
    "2 x 128, 3 stages, persistent, steady": _gluon(2, 128, 3, 240, "persistent", "steady"),
    "1 x 128, 2 stages, persistent": _gluon(1, 128, 2, 232, "persistent"),
    "1 x 128, 2 stages, persistent, steady": _gluon(1, 128, 2, 232, "persistent", "steady"),
    "3 x 64, 4 stages, persistent, steady": _gluon(3, 64, 4, 160, "persistent", "steady"),
    "1 x 128, 3 stages": _gluon(1, 128, 3, 232),
    "Triton 64 x 64, 3 stages, overlap": Tiles(64, 64, 4, 3, options=("overlap",)),
}


def cases(toy: bool, architecture: str, group: str = "softmax") -> list[Case]:
    if toy:
        return []
    return [_case(2, size, tiles) for tiles in candidates(group, architecture).values() for size in _SIZES]


def _case(heads: int, size: int, tiles: Tiles) -> Case:
    return Case("self", "temperature", torch.float16, heads, size, size, 64, candidate=tiles)


def check(tiles: Tiles, timed: bool) -> str:
    """Against float64 at two sizes, and bit for bit the same 50 times; where timed, how long SDXL's two sizes take."""
    for size, step in itertools.product(_SIZES, (0.0, *_STEPS)):
        q, k, v, tau = _inputs(_case(2, size, tiles))
        if step:
            q[..., 0] = 8.0
            k[..., 0] = torch.arange(size, device=k.device) // 128 * step
        first = _launch(q, k, v, tau, tiles)
        exact = reference.self_attention(q.double(), k.double(), v.double(), temperature=tau.double())
        assert_within_budget(first, reference.self_attention(q, k, v, temperature=tau), exact, q.dtype)
        assert all(torch.equal(_launch(q, k, v, tau, tiles), first) for _ in range(50)), "not the same every time"
    return f"ok {' '.join(_time(heads, size, tiles) for heads, size in _TIMED)}" if timed else "ok"


def _time(heads: int, size: int, tiles: Tiles) -> str:
    from attnmod.benchmarks.timer import SETS, time_calls

    sets = [_inputs(_case(heads, size, tiles)) for _ in range(SETS)]

    def call(q, k, v, tau) -> torch.Tensor:
        return _launch(q, k, v, tau, tiles, poison=False)

    times = time_calls(call, sets, sets[0][0].device, eager=False)
    flops = 4 * 2 * heads * size**2 * 64
    return f"{size}: {times.p50 * 1e3:.1f} us {flops / times.p50 / 1e9:.0f} TFLOP/s;"


def _inputs(case: Case) -> tuple[torch.Tensor, ...]:
    from attnmod.benchmarks.gpu.right import inputs

    q, k, v, options = inputs(case, torch.device("cuda"), time.time_ns() % (1 << 30))
    return q, k, v, options["temperature"]


def _launch(q, k, v, tau, tiles: Tiles, poison: bool = True) -> torch.Tensor:
    from attnmod.kernels.ops import empty_output
    from attnmod.kernels.self_attention import launch_self_attention

    out = empty_output(q)
    if poison:
        out.fill_(torch.nan)
    launch_self_attention(q=q, k=k, v=v, temperature=tau, scale=q.shape[3] ** -0.5, out=out, tiles=tiles)
    return out


class Process:
    """Tries a group beside the rest of a stage: started when it is made, told of at the end."""

    def __init__(self, report: Report, group: str):
        self._report, self._group = report, group
        names = candidates(group, configs.architecture(report.device))
        self._left = [name for name in names if not report.already(_label(name))]
        self._process, self._until = self._start(), time.monotonic() + _SECONDS

    def tell(self) -> None:
        """A check for each candidate."""
        while self._left:
            limit = min(self._until - time.monotonic(), self._report.seconds_left() + 3)
            try:
                said, _ = self._process.communicate(timeout=max(0.1, limit))
            except subprocess.TimeoutExpired:
                self._process.kill()
                said, _ = self._process.communicate()
            answers = dict(line.split("\t", 1) for line in said.splitlines() if "\t" in line)
            before = len(self._left)
            for name in list(self._left):
                if name not in answers:
                    break
                self._tell(name, answers[name])
            if self._left:  # the first without an answer is the one that it was at
                code = self._process.returncode
                self._tell(self._left[0], f"hung or died: exit code {code}: {said.strip()[-200:]}")
            if self._left and (self._report.seconds_left() < 5 or before == len(self._left)):
                self._report.say(f"candidates that were not tried: {', '.join(self._left)}")
                return
            if self._left:
                self._process, self._until = self._start(), time.monotonic() + _SECONDS

    def _tell(self, name: str, answer: str) -> None:
        self._left.remove(name)
        with self._report.check(_label(name)) as note:
            if not answer.startswith("ok"):
                raise AssertionError(answer)
            if answer != "ok":
                note(answer)
                self._report.say(f"{name}: {answer.removeprefix('ok ')}")

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "attnmod.benchmarks.gpu.risky", self._group, *self._left],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip


def _label(name: str) -> str:
    return f"candidate {name}"


def main(group: str, names: list[str]) -> int:
    torch.zeros(1, device="cuda")
    found = candidates(group, configs.architecture(torch.device("cuda")))
    for name in names:
        try:
            with _no_longer_than(_EACH):
                answer = check(found[name], timed=group == "gluon")
        except Exception as error:
            answer = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{name}\t{answer}", flush=True)
    return 0


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """What takes longer ends the process: nothing else ends a wait for a device that never answers."""
    timer = threading.Timer(seconds, os._exit, [9])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
