"""Stage "candidates": forms of self-attention that do not ship, right or wrong, and how long they take.

Each is held against float64, repeated bit for bit and then timed by graph replay at SDXL's two sizes, in a process of
its own while nothing else is on the device. A form that waits for itself hangs the device: its process is killed after
some seconds, and the forms after it get another one, as they do after an error of the device.

    python -m attnmod.benchmarks.gpu.candidates NAME...
"""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import torch

from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.launches import Case
from attnmod.kernels.tile_table import Tiles

_START_SECONDS = 40.0  # until the first form: torch, a context, and what a killed process leaves behind
_FORM_SECONDS = 12.0
_REPEATS = 50
_READY = "ready"
SIZES = ((10, 4096), (20, 1024))  # heads and patches
_ODD = 1000  # the last tile of keys is ragged, and so is the last block of queries


def _form(consumers: int, keys: int, stages: int, registers: int, *options: str) -> Tiles:
    return Tiles(64 * consumers, keys, 4 * consumers, stages, 1, registers, options, "gluon")


# None is what the table has, Triton's kernel. The likeliest come first, should time run out.
FORMS: dict[str, Tiles | None] = {
    "table": None,
    "2x128 s3 turns": _form(2, 128, 3, 240, "ping_pong"),
    "1x128 s3": _form(1, 128, 3, 232),
    "3x128 s2": _form(3, 128, 2, 160),
    "2x128 s3": _form(2, 128, 3, 240),
    "3x128 s2 turns": _form(3, 128, 2, 160, "ping_pong"),
    "1x64 s3 r136": _form(1, 64, 3, 136),
    "1x128 s2": _form(1, 128, 2, 232),
    "2x64 s4 turns": _form(2, 64, 4, 240, "ping_pong"),
    "2x128 s2 turns": _form(2, 128, 2, 240, "ping_pong"),
    "2x128 s2": _form(2, 128, 2, 240),
    "3x128 s3": _form(3, 128, 3, 160),
    "1x64 s4": _form(1, 64, 4, 232),
    "3x64 s4 turns": _form(3, 64, 4, 160, "ping_pong"),
}
_IN_BF16 = ("2x128 s3 turns", "1x128 s3", "3x128 s2")


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    """What the stage launches, for whoever compiles it beforehand."""
    if toy or architecture != "sm_90":
        return []
    return [case for name in FORMS for case in [*_right_cases(name), *_timed_cases(name)]]


def _right_cases(name: str) -> list[Case]:
    """Few heads, so that float64 costs little."""
    shapes = [(torch.float16, 4096, 4096), (torch.float16, 1024, 1024), (torch.float16, _ODD, _ODD)]
    shapes += [(torch.float16, 333, 77), (torch.float16, 1, 1)]
    if name in _IN_BF16:
        shapes += [(torch.bfloat16, 1024, 1024), (torch.bfloat16, _ODD, _ODD)]
    return [Case("self", "temperature", dtype, 2, m, n, 64, candidate=FORMS[name]) for dtype, m, n in shapes]


def _timed_cases(name: str) -> list[Case]:
    return [
        Case("self", "temperature", torch.float16, heads, size, size, 64, candidate=FORMS[name])
        for heads, size in SIZES
    ]


def run(report: Report) -> None:
    with report.check("forms of self-attention"):
        from attnmod.kernels.configs import architecture

        if report.device.type != "cuda" or architecture(report.device) != "sm_90":
            raise LeftOut("needs a Hopper GPU")
        times: dict[str, dict[str, float]] = {}
        left = [name for name in FORMS if not report.already(f"form {name}")]
        while left and report.seconds_left() > 3:
            for name, answer in _answers(report, left):
                left.remove(name)
                with report.check(f"form {name}") as note:
                    if answer.get("us"):
                        times[name] = answer["us"]
                        note(", ".join(f"{size}: {us:.1f} us" for size, us in answer["us"].items()))
                    if answer["error"]:
                        raise AssertionError(answer["error"])
        for _, size in SIZES:
            fastest = sorted((of[str(size)], name) for name, of in times.items() if str(size) in of)
            report.say(f"{size}, us: " + ", ".join(f"{name} {us:.1f}" for us, name in fastest))
        if left:
            report.say(f"not tried: {', '.join(left)}")


def _answers(report: Report, names: list[str]) -> Iterator[tuple[str, dict]]:
    """What one process says of these, in order, until it is through, is lost, or is out of time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "attnmod.benchmarks.gpu.candidates", *names],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    names, said, wait = list(names), "", _START_SECONDS
    until = time.monotonic() + wait
    try:
        while names:
            now = time.monotonic()
            try:
                line = lines.get(timeout=max(0.1, min(until - now, report.seconds_left())))
            except queue.Empty:
                if report.seconds_left() > 1:
                    yield names[0], {"error": f"no answer within {wait:.0f} s: {said[-300:]}"}
                return
            if line is None:
                yield names[0], {"error": f"its process ended with {process.wait()}: {said[-300:]}"}
                return
            if line.startswith("{"):
                answer = json.loads(line)
                yield names.pop(0), answer
                if answer["lost"]:
                    return
            elif line.strip() != _READY:
                said += line
                continue
            wait = _FORM_SECONDS
            until = time.monotonic() + wait
    finally:
        process.kill()


def check(name: str) -> None:
    """Against float64, in several shapes and layouts, and bit for bit the same every time."""
    from attnmod.benchmarks.gpu.right import inputs
    from attnmod.kernels import reference
    from attnmod.kernels.testing import assert_within_budget

    for case in _right_cases(name):
        q, k, v, options = inputs(case, torch.device("cuda"), time.time_ns() % (1 << 30))
        tau = options["temperature"]
        exact = reference.self_attention(q.double(), k.double(), v.double(), temperature=tau.double())
        low = reference.self_attention(q, k, v, temperature=tau)
        first = _launch(case.candidate, q, k, v, tau)
        try:
            assert_within_budget(first, low, exact, q.dtype)
        except AssertionError as error:
            raise AssertionError(f"{case.name}: {error}; {_where(first, exact)}") from None
        for turn in range(_REPEATS):
            again = _launch(case.candidate, q, k, v, tau)
            assert torch.equal(again, first), f"{case.name}: call {turn} differs from the first"
    # keys of one projection among others' channels, and a temperature for each head
    whole = torch.randn(2, _ODD, 3, 5, 64, device="cuda", dtype=torch.float16)
    q, k, v = whole.permute(2, 0, 3, 1, 4)
    tau = torch.linspace(0.3, 1.2, 10, device="cuda").reshape(2, 5)
    exact = reference.self_attention(q.double(), k.double(), v.double(), temperature=tau.double())
    low = reference.self_attention(q, k, v, temperature=tau)
    assert_within_budget(_launch(FORMS[name], q, k, v, tau), low, exact, q.dtype)


def _launch(tiles: Tiles | None, q, k, v, tau) -> torch.Tensor:
    from attnmod.kernels.self_attention import launch_self_attention

    batch, heads, queries, head_dim = q.shape
    out = torch.full((batch, queries, heads, head_dim), torch.nan, dtype=q.dtype, device=q.device).transpose(1, 2)
    launch_self_attention(q=q, k=k, v=v, temperature=tau, scale=head_dim**-0.5, out=out, tiles=tiles)
    return out


def _where(out: torch.Tensor, exact: torch.Tensor) -> str:
    """Which rows of which heads are wrong: what is wrong in a kernel shows in their pattern."""
    wrong = ((out.double() - exact).abs() > 0.02 * exact.abs().max()) | out.isnan()
    rows = wrong.any(3)
    return (
        f"{rows.sum().item()} of {rows.numel()} rows are far off, {out.isnan().sum().item()} values NaN; by row and "
        f"head {rows.sum(2).tolist()}; queries {rows.any(0).any(0).nonzero()[:, 0].tolist()[:12]}"
    )


def measure(name: str) -> dict[str, float]:
    """us at SDXL's sizes, by graph replay."""
    from attnmod.benchmarks.gpu.right import inputs
    from attnmod.benchmarks.timer import SETS, time_calls
    from attnmod.kernels.self_attention import launch_self_attention

    found = {}
    for case in _timed_cases(name):
        device = torch.device("cuda")
        sets = []
        for seed in range(SETS):
            q, k, v, options = inputs(case, device, seed)
            sets.append((q, k, v, options["temperature"], torch.empty_like(q)))

        def call(q, k, v, tau, out, tiles=case.candidate) -> None:
            launch_self_attention(q=q, k=k, v=v, temperature=tau, scale=0.125, out=out, tiles=tiles)

        found[str(case.queries)] = 1e3 * time_calls(call, sets, device, budget_ms=30.0).p50
    return found


def main(names: list[str]) -> int:
    torch.zeros(1, device="cuda")
    print(_READY, flush=True)
    for name in names:
        answer = {"error": "", "us": {}, "lost": False}
        try:
            check(name)
            answer["us"] = measure(name)
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:700]}"
        try:
            torch.cuda.synchronize()
        except Exception as error:
            answer["error"] = answer["error"] or str(error)[:300]
            answer["lost"] = True
        print(json.dumps(answer), flush=True)
        if answer["lost"]:
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
