"""Forms of self-attention that nobody has seen on a GPU, in a process of their own that has 20 seconds.

A form that waits for itself hangs the device: its process is killed, and the forms after it get another one.

    python -m attnmod.benchmarks.gpu.risky NAME...
"""

import random
import subprocess
import sys
import time
from dataclasses import replace

import torch

from attnmod.benchmarks.gpu.report import Report
from attnmod.benchmarks.launches import Case
from attnmod.kernels import configs, reference
from attnmod.kernels.testing import assert_within_budget
from attnmod.kernels.tile_table import SOFTMAX_OPTIONS

# What is tried: name -> the softmax options of Tiles, beside the table's tiles.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "plain": (),
    **{option: (option,) for option in SOFTMAX_OPTIONS},
    "overlap polynomial": ("overlap", "polynomial"),
}
_SECONDS = 20.0
_SIZES = (4096, 333)


def cases(toy: bool, architecture: str) -> list[Case]:
    return [case for name in CANDIDATES for case in _cases(name, architecture)] if not toy else []


def _cases(name: str, architecture: str) -> list[Case]:
    found = []
    for size in _SIZES:
        tiles = configs.self_attention_tiles(architecture, 64, size, 2)
        tiles = replace(tiles, options=CANDIDATES[name])
        found.append(Case("self", "temperature", torch.float16, 2, size, size, 64, candidate=tiles))
    return found


def check(name: str) -> None:
    """Against float64 at both sizes, and bit for bit the same 50 times."""
    from attnmod.benchmarks.gpu.right import inputs
    from attnmod.kernels.self_attention import launch_self_attention

    device = torch.device("cuda")
    seed = random.SystemRandom().randrange(1 << 30)
    for case in _cases(name, configs.architecture(device)):
        q, k, v, options = inputs(case, device, seed)
        tau = options["temperature"]

        def call(q=q, k=k, v=v, tau=tau, tiles=case.candidate) -> torch.Tensor:
            out = torch.full_like(q, torch.nan)  # keeps q's layout
            launch_self_attention(q=q, k=k, v=v, temperature=tau, scale=q.shape[3] ** -0.5, out=out, tiles=tiles)
            return out

        first = call()
        exact = reference.self_attention(q.double(), k.double(), v.double(), temperature=tau.double())
        low = reference.self_attention(q, k, v, temperature=tau)
        try:
            assert_within_budget(first, low, exact, q.dtype)
            assert all(torch.equal(call(), first) for _ in range(50)), "not the same every time"
        except AssertionError as error:
            raise AssertionError(f"{case.queries} patches, seed {seed}: {error}") from error


class Process:
    """Tries them beside the rest of the stage: started when it is made, told of at the end."""

    def __init__(self, report: Report):
        self._report = report
        self._left = [name for name in CANDIDATES if not report.already(_label(name))]
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
        with self._report.check(_label(name)):
            if answer != "ok":
                raise AssertionError(answer)

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "attnmod.benchmarks.gpu.risky", *self._left],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip


def _label(name: str) -> str:
    return f"candidate {name}"


def main(names: list[str]) -> int:
    for name in names:
        try:
            check(name)
            answer = "ok"
        except Exception as error:
            answer = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{name}\t{answer}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
