"""Stage "compile": puts what the later stages launch into Triton's cache, in many processes; tells hits and misses.

    python -m benchmarks.gpu.compile --ahead sm_90 --cache .triton     # on any machine, by the same minor Python

Stages say what they will launch by a function `cases(toy, more, architecture)`. A worker describes each case's launch
for meta tensors and hands it to Triton's own JIT, up to the launch: the key under which the kernel is kept is then the
one that the stage will look for. No process here needs a device.

The cache made ahead is carried to the device as it is (TRITON_CACHE_DIR, or the folder .triton): the binaries and what
describes them, about a tenth of what Triton writes otherwise.
"""

import argparse
import base64
import importlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from attnmod.benchmarks import stub_driver
from attnmod.benchmarks.gpu.compilations import Compilations
from attnmod.benchmarks.gpu.report import Report
from attnmod.benchmarks.gpu.stages import STAGES
from attnmod.benchmarks.launches import Case

PROCESSES = 14
HIT, MISS = "hit", "miss"
_DAY = 86_400.0


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "hit", "miss" (compiled now) or what went wrong; and the seconds that it took."""

    case: Case
    what: str
    seconds: float


def needed(toy: bool, more: bool, architecture: str) -> dict[str, list[Case]]:
    """What each stage will launch, as far as it says so; a stage that cannot be asked has none."""
    found: dict[str, list[Case]] = {}
    for stage in STAGES:
        try:
            module = importlib.import_module(stage.module)
            found[stage.name] = module.cases(toy, more, architecture) if hasattr(module, "cases") else []
        except ImportError as error:
            print(f"{stage.name}: what it launches is not compiled beforehand: {error}", flush=True)
    return found


def run(report: Report) -> None:
    from attnmod.kernels.configs import architecture

    with report.check("kernels"):
        on_device = report.device.type == "cuda"  # elsewhere two are compiled for one, to see that the workers work
        target = architecture(report.device) if on_device else "sm_90"
        by_stage = needed(report.toy, report.more, target)
        cases = list(dict.fromkeys(case for cases in by_stage.values() for case in cases))
        cases = cases if on_device else cases[:2]
        outcomes = warm(cases, target, report.seconds_left() - 1)
        told = Counter(outcome.what for outcome in outcomes)
        spent = sum(outcome.seconds for outcome in outcomes if outcome.what == MISS)
        report.say(
            f"{len(cases)} launches: {told[HIT]} found in the cache, {told[MISS]} compiled ({spent:.0f} s of work), "
            f"{len(cases) - len(outcomes)} not reached"
        )
        report.save_text("compile.txt", "".join(f"{o.seconds:7.2f} {o.what} {o.case.name}\n" for o in outcomes))
        wrong = [f"{o.case.name}: {o.what}" for o in outcomes if o.what not in (HIT, MISS)]
        if wrong:
            raise RuntimeError(f"{len(wrong)} do not compile, such as {wrong[0]}")


def warm(cases: list[Case], architecture: str, seconds: float, processes: int = PROCESSES) -> list[Outcome]:
    """Compiles them into the cache in as many processes as are of use; what is not done in time is left out."""
    until = time.monotonic() + seconds
    todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        todo.put(case)
    outcomes: list[Outcome] = []
    workers: list[subprocess.Popen] = []

    def serve() -> None:
        while not todo.empty() and time.monotonic() < until:
            worker = _start_worker(architecture)
            workers.append(worker)
            _feed(worker, todo, outcomes)

    count = max(1, min(processes, len(cases), (os.cpu_count() or 2) - 1))
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    for worker in workers:
        worker.kill()
    return outcomes[:]


def _start_worker(architecture: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "attnmod.benchmarks.gpu.compile", "--worker", architecture],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1", "TRITON_STORE_BINARY_ONLY": "1"},
    )  # fmt: skip


def _feed(worker: subprocess.Popen, todo: queue.SimpleQueue, outcomes: list[Outcome]) -> None:
    """Hands it one case after the other until there is none or until it dies."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    while True:
        try:
            case = todo.get_nowait()
        except queue.Empty:
            worker.stdin.close()
            return
        start = time.monotonic()
        try:
            worker.stdin.write(base64.b64encode(pickle.dumps(case)).decode() + "\n")
            worker.stdin.flush()
            answer = next(line for line in worker.stdout if line.startswith("compiled: "))
        except (OSError, StopIteration):
            outcomes.append(Outcome(case, f"its process ended with {worker.wait()}", time.monotonic() - start))
            return
        _, seconds, what = answer.strip().split(" ", 2)
        outcomes.append(Outcome(case, what, float(seconds)))


def serve_as_worker(architecture: str) -> None:
    from triton.runtime import driver

    driver.set_active(cast(Any, OnlyATarget(architecture)))
    for line in sys.stdin:
        case = pickle.loads(base64.b64decode(line))
        start = time.monotonic()
        try:
            what = compile_case(case, architecture)
        except Exception as error:  # the others may compile
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"compiled: {time.monotonic() - start:.3f} {what}", flush=True)


def compile_case(case: Case, architecture: str) -> str:
    """Into the cache, with what Triton's launcher needs besides; HIT where all of it was there."""
    from attnmod.benchmarks import launches

    launch = launches.record(case, architecture)
    with Compilations() as compiled:
        kernel = launch.kernel.warmup(grid=launch.grid, **launch.arguments)
    if architecture.startswith("sm_"):
        _build_launcher(kernel)
    return MISS if compiled.misses else HIT


def _build_launcher(kernel) -> None:
    """What Triton compiles in C at the first launch: it, too, is kept in the cache. A libcuda to link with will do."""
    from triton.backends.nvidia import driver as nvidia
    from triton.runtime import driver

    try:
        nvidia.libcuda_dirs()
    except (AssertionError, OSError):  # no driver here: the stub has the same names
        if not stub_driver.has_compiler():
            return
        stub_driver.load_library()
    cast(Any, driver.active).utils = nvidia.CudaUtils()
    nvidia.CudaLauncher(kernel.src, kernel.metadata)


class OnlyATarget:
    """Stands in for Triton's driver: it knows for what is compiled, and nothing is launched."""

    utils: object

    def __init__(self, architecture: str):
        from attnmod.benchmarks.launches import _target

        self._target = _target(architecture)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        return self._target


def slim(cache: Path) -> None:
    """Empties what is half of the size and read by nobody. The files must be there, or Triton 3.9 takes no other."""
    for path in cache.rglob("*.source"):
        path.write_text("")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.compile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--ahead", metavar="ARCHITECTURE", help="for which GPU, such as sm_90")
    parser.add_argument("--cache", type=Path, default=Path(".triton"), help="the folder to fill (.triton)")
    parser.add_argument("--toy", action="store_true", help="what the toy sizes need")
    parser.add_argument("--more", action="store_true", help="also what --more needs")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        serve_as_worker(options.worker)
        return 0
    if not options.ahead:
        parser.error("name the GPU: --ahead sm_90")
    os.environ["TRITON_CACHE_DIR"] = str(options.cache.resolve())
    by_stage = needed(options.toy, options.more, options.ahead)
    cases = list(dict.fromkeys(case for cases in by_stage.values() for case in cases))
    outcomes = warm(cases, options.ahead, _DAY, options.processes)
    for outcome in outcomes:
        print(f"{outcome.seconds:7.2f} s {outcome.what} {outcome.case.name}")
    slim(options.cache)
    size = sum(path.stat().st_size for path in options.cache.rglob("*") if path.is_file())
    print(f"{len(outcomes)} kernels, {size / 2**20:.1f} MiB in {options.cache}")
    return 0 if all(outcome.what in (HIT, MISS) for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
