"""What a measurement becomes: a row, after a gate. How time is taken: `timer.py`.

A provider is checked against float64 before it is timed; one that misses the error budget of the tests is not timed.
What it is checked against is computed once for each shape and each thing that is computed, whoever computes it.
Every call counts what its caller pays: outputs are allocated inside, masks are built inside unless a row says that
they were given.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks.timer import time_calls

RESULTS = Path(__file__).with_name("results")
OUT_OF_TIME = "not run: out of time"
_deadline: float | None = None  # of time.monotonic
_root: Path | None = None


@dataclass
class Row:
    """One measurement. Times in ms of a single call, error against float64 relative to the budget (at most 1).

    p20, p50, p80 are the device's time (`timer.Times`, which also says what eager and host are); flops is of one call,
    tflops of p50.
    """

    op: str
    provider: str
    shape: str
    dtype: str = ""
    cache: str = "-"
    p20: float | None = None
    p50: float | None = None
    p80: float | None = None
    peak_mb: float | None = None
    error: float | None = None
    note: str = ""
    eager: float | None = None
    host: float | None = None
    flops: float | None = None
    tflops: float | None = None


@dataclass(frozen=True)
class Truth:
    """What outputs are held against: exact in float64, and how far from it the tests would let a kernel be."""

    exact: Tensor
    budget: float

    @classmethod
    def of(cls, exact: Tensor, low: Tensor) -> "Truth":
        """low: the reference in the inputs' own dtype."""
        return cls(exact, error_budget(low, exact))

    def error(self, out: Tensor) -> float:
        """1 is just within; NaN where out has one."""
        return round((out.double() - self.exact).abs().max().item() / self.budget, 3)


def error_budget(low: Tensor, exact: Tensor) -> float:
    """Twice what the reference loses in the low dtype, and one unit in the last place of the largest value."""
    lost = (low.double() - exact).abs().max().item()
    return 2 * lost + torch.finfo(low.dtype).eps * exact.abs().max().item()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it nothing new is measured once so many seconds have passed; what is left out becomes a row saying so."""
    global _deadline
    before = _deadline
    _deadline = min(time.monotonic() + seconds, before or float("inf"))
    try:
        yield
    finally:
        _deadline = before


def seconds_left() -> float:
    return float("inf") if _deadline is None else _deadline - time.monotonic()


def out_of_time() -> bool:
    return seconds_left() < 0


def measure(
    op: str,
    provider: str,
    shape: str,
    call: Callable[..., Tensor],
    inputs: Sequence[tuple[Any, ...]],
    truth: Callable[[], Truth | None],
    *,
    cold: bool = False,
    eager: bool = True,
    flops: float | None = None,
    budget_ms: float = 60.0,
) -> Row:
    """Gate, then time call(*inputs[i]).

    Args:
        op, provider, shape: what the row is called.
        call: returns its output; inputs: at least three sets, tensors of one device first.
        truth: of the first inputs; None where there is none, and the row then has no error and says so. Called only
            after the provider has run.
        cold: whether the cache is overwritten before every call.
        eager: whether launches from Python are timed, too.
        flops: of one call.
        budget_ms: see `time_calls`.
    """
    device = inputs[0][0].device
    row = Row(op, provider, shape, cache="cold" if cold else "warm")
    if out_of_time():
        row.note = OUT_OF_TIME
        return row
    try:
        out = call(*inputs[0])
        row.dtype = str(out.dtype).removeprefix("torch.")
        known = truth()
        if known is None:
            row.note = "error not measured"
        else:
            row.error = known.error(out)
            if not row.error <= 1:
                row.note = f"not timed: its error is {row.error:.2f} of the budget"
                return row
        del out
        if device.type == "cuda":
            row.peak_mb = _peak_mb(lambda: call(*inputs[0]))
        times = time_calls(call, inputs, device, cold=cold, eager=eager, budget_ms=budget_ms)
    except Exception as error:  # a peer that cannot run here is a row, too: which peers fail is a result
        row.note = f"not run: {first_line(error)}"
        return row
    row.p20, row.p50, row.p80 = (round(value, 5) for value in (times.p20, times.p50, times.p80))
    row.eager, row.host = (None if value is None else round(value, 5) for value in (times.eager, times.host))
    if flops is not None:
        row.flops, row.tflops = flops, round(flops / times.p50 / 1e9, 1)
    return row


def first_line(error: BaseException) -> str:
    """Type and beginning of an error, for a note."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160] if text else ''}"


def _peak_mb(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return round((torch.cuda.max_memory_allocated() - before) / 1e6, 2)


def machine() -> dict:
    """Where and with what was measured."""
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "triton": _version("triton"),
        # a copy without its history is told what it is of
        "commit": os.environ.get("ATTNMOD_COMMIT")
        or _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        "device": _processor_name(),
        "cudnn": None,
        "driver": None,
        "clocks": None,
    }
    if torch.cuda.is_available():
        facts["device"] = torch.cuda.get_device_name()
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        query = "--query-gpu=clocks.sm,clocks.max.sm,clocks.mem,power.limit"  # at the moment of saving
        facts["clocks"] = _output("nvidia-smi", query, "--format=csv")
    return facts


@contextlib.contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Within it results go there."""
    global _root
    before, _root = _root, folder
    try:
        yield
    finally:
        _root = before


def device_folder() -> Path:
    """benchmarks/results/<device>/, or $OUT/<device>/ where OUT is set."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    root = _root or (Path(os.environ["OUT"]) if os.environ.get("OUT") else RESULTS)
    folder = root / name.lower().replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save(name: str, rows: list[Row], **more) -> Path:
    path = device_folder() / f"{name}.json"
    record = {"machine": machine(), **more, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def print_rows(rows: list[Row]) -> None:
    for row in rows:
        times = "not measured" if row.p50 is None else f"{row.p20:.4f} {row.p50:.4f} {row.p80:.4f} ms"
        times += "" if row.tflops is None else f" {row.tflops} TFLOP/s"
        times += "" if row.eager is None else f" eager {row.eager:.4f}"
        error = "" if row.error is None else f" error {row.error}"
        print(f"{row.op:16} {row.provider:20} {row.shape:34} {row.dtype:9} {row.cache:5} {times}{error} {row.note}")


def _processor_name() -> str:
    """As Linux names it, for `platform` says no more than x86_64 there."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None


def run_command(name: str, run: Callable[[bool], list[Row]], arguments: list[str] | None) -> int:
    """The command line of an attention benchmark: measure, print, save under this name; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.bench_{name}")
    parser.add_argument("--toy", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument("--minutes", type=float, default=60, help="measure nothing new after so many (default: 60)")
    options = parser.parse_args(arguments)
    with time_limit(60 * options.minutes):
        rows = run(options.toy)
    print_rows(rows)
    print(save(name, rows, toy=options.toy))
    return 0
