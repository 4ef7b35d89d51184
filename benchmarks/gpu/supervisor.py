"""Starts a child that runs the stages, kills it where one overruns, and goes on with the next.

One child serves all stages in the usual case, so that imports and the CUDA context are paid for once. What it finds
arrives through a pipe as it is found.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnmod.benchmarks.gpu import summary
from attnmod.benchmarks.gpu.child import LOST
from attnmod.benchmarks.gpu.clocks import Clocks
from attnmod.benchmarks.gpu.processes import kill_session
from attnmod.benchmarks.gpu.results import Results
from attnmod.benchmarks.gpu.stages import MINUTES, STAGES, Stage, StageResult

CARRIED_CACHE = Path(".triton")  # what `python -m benchmarks.gpu.compile --ahead` made elsewhere
_START = 90.0  # imports, the CUDA context; more than that is a machine that hangs
_CLOSING = 12.0  # what a kill, the last save and the summary may take
_LEAST = 5.0  # no stage begins with less


class _Stopped(BaseException):
    """Somebody ends the run from outside."""


@dataclass(frozen=True)
class Options:
    toy: bool = False
    more: bool = False
    minutes: float = MINUTES


def supervise(stages: Sequence[Stage], options: Options, results: Results) -> None:
    """Runs them all, as far as the time goes. What came back is in results, whatever happens."""
    end = time.monotonic() + 60 * options.minutes - _CLOSING
    for stage in stages:
        results.stages[stage.name] = StageResult(toy=options.toy)
    left, done = list(stages), frozenset()
    while left:
        if end - time.monotonic() < _LEAST:
            for stage in left:
                results.stages[stage.name].error = "out of time"
            return
        left, done = _run_child(left, done, end, options, results)
        results.save()


def _run_child(
    stages: list[Stage], done: frozenset[str], end: float, options: Options, results: Results
) -> tuple[list[Stage], frozenset[str]]:
    """The stages that are left after it, and which checks of the first of them were made."""
    child = _Child(stages, done, options, results.folder)
    left = list(stages)
    current: StageResult | None = None
    deadline = min(time.monotonic() + _START, end)
    begun = time.monotonic()
    before = 0.0 if not done else results.stages[stages[0].name].seconds
    try:
        while (event := child.next_event(deadline - time.monotonic())) is not None:
            kind = event["event"]
            if kind == "started":
                results.machine = event["machine"]
                results.toy = event["toy"]
                deadline = min(time.monotonic() + _START, end)
            elif kind == "begin":
                current, begun = results.stages[event["stage"]], time.monotonic()
                current.outcome, current.toy = "died", results.toy
                current.since = current.since or event["time"]
                deadline = min(begun + left[0].deadline - before, end)
            elif kind == "end":
                assert current is not None
                current.seconds, current.error = before + time.monotonic() - begun, event["error"] or ""
                current.outcome = "failed" if event["error"] or current.failed else "ok"
                _close_stage(left[0].name, results)
                before, made = 0.0, frozenset(check["name"] for check in current.checks)
                if event["lost"] and made - done and current.seconds < left[0].seconds:
                    return left, made  # the same stage again, without what it has already looked at
                left.pop(0)
                current, done, deadline = None, frozenset(), min(time.monotonic() + _START, end)
            else:
                results.take(event)
    except TimeoutError:
        child.where()
        if current is not None:
            current.outcome, current.error = "overran", f"killed after {time.monotonic() - begun:.0f} s"
    except BaseException:
        if current is not None:
            current.outcome = "stopped"
        raise
    finally:
        code = child.end()
        if current is not None:
            current.seconds = before + time.monotonic() - begun
            if current.outcome == "died":
                current.error = _ending(code, child)
            _close_stage(left[0].name, results)
        results.texts["log.txt"] = results.texts.get("log.txt", "") + "".join(child.log)
    if current is not None:
        return left[1:], frozenset()
    if left and code != LOST:
        for stage in left:  # it did not come as far as a stage, and another one would not either
            results.stages[stage.name].error = f"there is no process for it: {_ending(code, child)}"
        return [], frozenset()
    return left, frozenset()


def _ending(code: int, child: "_Child") -> str:
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with {code}: {child.last_words()}"


def _close_stage(name: str, results: Results) -> None:
    stage = results.stages[name]
    stage.until = time.time()
    error = (stage.error.strip().splitlines() or [""])[-1]
    print(f"-- {name}: {stage.outcome} in {stage.seconds:.1f} s {error[:300]}", flush=True)
    results.save()


class _Child:
    """A process in a session of its own, so that it dies with everything that it started."""

    def __init__(self, stages: list[Stage], done: frozenset[str], options: Options, folder: Path):
        reading, writing = os.pipe()
        order = {
            "stages": [(stage.name, stage.seconds, stage.module) for stage in stages],
            "done": sorted(done), "toy": options.toy, "more": options.more, "folder": str(folder), "pipe": writing,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "attnmod.benchmarks.gpu.child", json.dumps(order)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(writing,), start_new_session=True, text=True, errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        os.close(writing)
        self.log: deque[str] = deque(maxlen=20_000)
        self._events: queue.Queue[dict | None] = queue.Queue()
        self._ended = threading.Event()
        self._readers = [
            threading.Thread(target=self._read_events, args=(reading,), daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def next_event(self, seconds: float) -> dict | None:
        """None when it has ended; TimeoutError when none came."""
        try:
            return self._events.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            raise TimeoutError from None

    def where(self) -> None:
        """Asks every thread of it where it is; the answer is in the log."""
        try:
            os.kill(self._process.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return
        time.sleep(0.5)

    def end(self) -> int:
        """Ends it and all that it started, and waits. A process that waits for a device may take its time."""
        if self._ended.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        kill_session(self._process.pid)
        try:
            code = self._process.wait(15)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        for reader in self._readers:
            reader.join(1)
        return code

    def last_words(self) -> str:
        said = [line.strip() for line in self.log if line.strip()]
        return said[-1][:300] if said else "it said nothing"

    def _read_events(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                try:
                    self._events.put(json.loads(line))
                except ValueError:  # cut off in the middle
                    continue
        self._ended.set()
        self._events.put(None)

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            print(line, end="", flush=True)


def run(stages: Sequence[Stage], options: Options) -> int:
    """All of it; prints the summary and returns the exit code: 1 where anything failed."""
    clocks = Clocks()
    results = Results(toy=options.toy, clocks=clocks)
    results.remark(clocks.start())

    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Stopped(signal.Signals(number).name)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        supervise(stages, options, results)
    except (KeyboardInterrupt, _Stopped) as stopped:
        results.remark(f"the run was ended from outside, by {stopped.args[0] if stopped.args else 'SIGINT'}")
    finally:
        clocks.stop()
        samples = [f"{s.time:.3f} {s.mhz:.0f} {s.watt:.1f} {s.celsius:.0f}\n" for s in clocks.samples]
        if samples:
            results.texts["clocks.txt"] = "".join(["time MHz W C\n", *samples])
        results.save()
        print(summary.printed(results), flush=True)
        results.close()
        signal.signal(signal.SIGTERM, before)
    ended = [results.stages[stage.name].outcome for stage in stages]
    return 0 if all(outcome == "ok" for outcome in ended) else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Everything that only a GPU can tell."
    )
    parser.add_argument("--part", choices=("all", *(stage.name for stage in STAGES)), default="all")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, also without a GPU: does everything run?")
    parser.add_argument("--more", action="store_true", help="also what has no place in eight minutes")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all stages together ({MINUTES:g})")
    options = parser.parse_args(arguments)
    if "TRITON_CACHE_DIR" not in os.environ and CARRIED_CACHE.is_dir():
        os.environ["TRITON_CACHE_DIR"] = str(CARRIED_CACHE.resolve())
    return run(chosen(options.part, options.minutes), Options(options.toy, options.more, options.minutes))


def chosen(part: str, minutes: float) -> list[Stage]:
    """The stages of a run: all with their share of the time, or one that has all of it."""
    if part != "all":
        (stage,) = (stage for stage in STAGES if stage.name == part)
        return [Stage(stage.name, 60 * minutes - 2 * _CLOSING, stage.module)]
    return [Stage(stage.name, stage.seconds * minutes / MINUTES, stage.module) for stage in STAGES]
