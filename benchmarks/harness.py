"""One timer for everything that is measured, on CUDA and on the CPU, and the row that a measurement becomes.

A provider is checked against float64 before it is timed; one that misses the error budget of the tests is not timed.
Every call counts what its caller pays: outputs are allocated inside, masks are built inside unless a row says that
they were given. Inputs rotate, so that a call does not find its own operands in the cache by chance; "warm" keeps the
L2 cache as the previous call left it, "cold" overwrites it before every call.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

RESULTS = Path(__file__).with_name("results")
OUT_OF_TIME = "not run: out of time"
_L2_BYTES = 256 << 20  # more than any processor's second-level cache
_deadline: float | None = None  # of time.monotonic
_root: Path | None = None


@dataclass
class Row:
    """One measurement. Times in ms of a single call, error against float64 relative to the budget (at most 1)."""

    op: str
    provider: str
    shape: str
    dtype: str
    cache: str
    p20: float | None
    p50: float | None
    p80: float | None
    peak_mb: float | None
    error: float | None
    note: str = ""


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


def time_calls(call: Callable[[int], object], device: torch.device, *, cold: bool, budget_ms: float = 200.0):
    """p20, median and p80 in ms of call(i), where i chooses the inputs."""
    call(0)
    _wait(device)
    scratch = torch.empty(_L2_BYTES, dtype=torch.int8, device=device) if cold and device.type == "cuda" else None
    once = _timed(call, device, 1, scratch)[0]
    repeats = max(5, min(200, int(budget_ms / max(once, 1e-3))))
    times = _timed(call, device, repeats, scratch)
    if len(times) < 5:
        return min(times), statistics.median(times), max(times)
    deciles = statistics.quantiles(times, n=10)
    return deciles[1], statistics.median(times), deciles[7]


def _timed(call, device: torch.device, repeats: int, scratch: Tensor | None) -> list[float]:
    if device.type != "cuda":
        times = []
        for i in range(repeats):
            start = time.perf_counter()
            call(i)
            times.append((time.perf_counter() - start) * 1e3)
        return times
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for i, (start, end) in enumerate(pairs):
        if scratch is not None:
            scratch.zero_()
        start.record()
        call(i)
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairs]


def measure(
    op: str,
    provider: str,
    shape: str,
    call: Callable[[int], Tensor],
    exact: Tensor | None,
    low: Tensor | None,
    *,
    cold: bool = False,
    budget_ms: float = 200.0,
    compare: Callable[[Tensor], Tensor] | None = None,
) -> Row:
    """Gate, then time. exact and low are the reference in float64 and in the inputs' dtype, for inputs 0.

    compare takes the part of the output that they hold. Without them the row has no error and says so in its note.
    """
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    row = Row(op, provider, shape, "", "cold" if cold else "warm", None, None, None, None, None)
    if out_of_time():
        row.note = OUT_OF_TIME
        return row
    try:
        out = call(0)
    except Exception as error:  # a peer that cannot run here is a row, too: which peers fail is a result
        row.note = f"not run: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
        return row
    row.dtype = str(out.dtype).removeprefix("torch.")
    if exact is not None and low is not None:
        row.error = relative_error(compare(out) if compare else out, low, exact)
        if not row.error <= 1:
            row.note = f"not timed: its error is {row.error:.2f} of the budget"
            return row
    else:
        row.note = "error not measured"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(0)
        row.peak_mb = round((torch.cuda.max_memory_allocated() - before) / 1e6, 2)
    row.p20, row.p50, row.p80 = (round(t, 5) for t in time_calls(call, device, cold=cold, budget_ms=budget_ms))
    return row


def relative_error(out: Tensor, low: Tensor, exact: Tensor) -> float:
    """max|out - exact| over the budget that the tests allow: 1 is just within."""
    budget = 2 * (low.double() - exact).abs().max() + torch.finfo(out.dtype).eps * exact.abs().max()
    return round(((out.double() - exact).abs().max() / budget).item(), 3)


def machine() -> dict:
    """Where and with what was measured."""
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "commit": _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
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
        error = "" if row.error is None else f" error {row.error}"
        print(f"{row.op:16} {row.provider:20} {row.shape:34} {row.dtype:9} {row.cache:5} {times}{error} {row.note}")


def _processor_name() -> str:
    """As Linux names it, for `platform` says no more than x86_64 there."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


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
