"""Stage "sanitizer": compute-sanitizer's memcheck on four small launches of odd sizes.

torch's allocator hands out pieces of large blocks, in which a read beyond a tensor goes unseen: it is turned off, so
that every tensor has an allocation of its own. Calls of the driver that fail are not told of: torch asks it for what
it may not have.
"""

import re
import shutil
import sys

from attnmod.benchmarks.gpu.processes import limited
from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.gpu.target import SMALL
from attnmod.benchmarks.launches import Case

_ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CUDA_MODULE_LOADING": "LAZY"}
_LAUNCHES = "attnmod.benchmarks.gpu.target"


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    return list(SMALL)


def run(report: Report) -> None:
    with report.check("memcheck"):
        if report.device.type != "cuda":
            raise LeftOut("needs CUDA")
        tool = shutil.which("compute-sanitizer")
        if tool is None:
            raise LeftOut("there is no compute-sanitizer")
        command = [
            tool,
            "--tool",
            "memcheck",
            "--report-api-errors",
            "no",
            "--error-exitcode",
            "9",
            sys.executable,
            "-m",
            _LAUNCHES,
            "small",
        ]
        code, text = limited(command, report.seconds_left() - 1, _ENVIRONMENT | report.environment())
        report.save_text("memcheck.txt", text)
        report.say(verdict(code, text))


def verdict(code: int | None, text: str) -> str:
    """One line; raises LeftOut where it could not look and AssertionError where it found something.

    >>> verdict(0, "launched: a\\n========= ERROR SUMMARY: 0 errors")
    'memcheck: 1 launches, 0 errors'
    """
    launched = text.count("launched: ")
    found = re.search(r"ERROR SUMMARY: (\d+) error", text)
    if "Device not supported" in text:
        raise LeftOut("compute-sanitizer does not support this device")
    if code is None:
        raise LeftOut(f"out of time after {launched} launches: {_last_line(text)}")
    if code or found is None or found[1] != "0":
        raise AssertionError(f"exit code {code} after {launched} launches: {_findings(text)}")
    return f"memcheck: {launched} launches, 0 errors"


def _findings(text: str) -> str:
    lines = [line.removeprefix("=========").strip() for line in text.splitlines() if line.startswith("=========")]
    return " / ".join([line for line in lines if line][1:7]) or _last_line(text)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]
