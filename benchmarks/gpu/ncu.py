"""Stage "ncu": the counters of one launch each of self-attention and of cross-attention with a known owner map.

The clock is left as it is. The whole text and the report come back as files; the decisive figures are told.
"""

import csv
import io
import re
import shutil
import sys

from attnmod.benchmarks.gpu.processes import limited
from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.gpu.target import LARGE
from attnmod.benchmarks.launches import Case

# The last one names the pipes: tensor cores, special functions (xu), multiply-adds.
_SECTIONS = (
    "SpeedOfLight",
    "SchedulerStats",
    "WarpStateStats",
    "MemoryWorkloadAnalysis",
    "Occupancy",
    "LaunchStats",
    "ComputeWorkloadAnalysis",
)
_FIGURES = {
    "us": ("gpu__time_duration.sum", 1e-3),
    "SM %": ("sm__throughput.avg.pct_of_peak_sustained_elapsed", 1),
    "memory %": ("gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed", 1),
    "DRAM %": ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed", 1),
    "issue slots %": ("sm__inst_issued.avg.pct_of_peak_sustained_active", 1),
    "occupancy %": ("sm__warps_active.avg.pct_of_peak_sustained_active", 1),
    "eligible warps": ("smsp__warps_eligible.avg.per_cycle_active", 1),
    "registers": ("launch__registers_per_thread", 1),
}
_PIPE = re.compile(r"sm__(?:inst_executed_)?pipe_(\w+?)(?:_cycles_active)?\.avg\.pct_of_peak_sustained_active$")
_STALL = re.compile(r"smsp__average_warps?_(?:latency_)?issue_stalled_(\w+?)(?:_per_issue_active)?\.ratio$")


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    return list(LARGE)


def run(report: Report) -> None:
    with report.check("counters"):
        if report.device.type != "cuda":
            raise LeftOut("needs CUDA")
        tool = shutil.which("ncu")
        if tool is None:
            raise LeftOut("there is no ncu")
        path = report.folder / "attention.ncu-rep"
        sections = [word for name in _SECTIONS for word in ("--section", name)]
        which = ["--kernel-name", "regex:.*attention_kernel.*", "--launch-skip", str(len(LARGE))]
        which += ["--launch-count", str(len(LARGE))]
        launches = [sys.executable, "-m", "attnmod.benchmarks.gpu.target", "large"]
        command = [
            tool,
            "--clock-control",
            "none",
            "--target-processes",
            "all",
            "--force-overwrite",
            "-o",
            str(path),
            *sections,
            *which,
            *launches,
        ]
        code, text = limited(command, report.seconds_left() - 8, report.environment())
        report.save_text("ncu.log", text)
        if "ERR_NVGPUCTRPERM" in text or "Failed to initialize the profiler" in text:
            raise LeftOut(f"ncu may not read counters here: {_error(text)}")
        if code is None and not path.exists():
            raise LeftOut("out of time before anything was read")
        if not path.exists():
            raise RuntimeError(f"ncu ended with {code}: {_error(text)}")
        importing = [tool, "--import", str(path), "--page"]
        report.save_text("ncu.txt", limited([*importing, "details"], report.seconds_left() - 3)[1])
        _, raw = limited([*importing, "raw", "--csv", "--print-units", "base"], report.seconds_left())
        report.save_text("ncu.csv", raw)
        for line in figures(raw):
            report.say(line)


def figures(raw: str) -> list[str]:
    """The decisive figures of every kernel in ncu's raw page, as far as this ncu has them."""
    table = list(csv.reader(io.StringIO(raw[max(0, raw.find('"ID"')) :])))
    if len(table) < 3:
        raise RuntimeError(f"ncu's raw page holds no kernel: {raw[-200:]}")
    names, rows = table[0], table[2:]  # the second line has the units
    found = []
    for row in rows:
        values = {name: number for name, text in zip(names, row, strict=False) if (number := _number(text)) is not None}
        kernel = dict(zip(names, row, strict=False)).get("Kernel Name", "?")
        told = [f"{values[m] * factor:.1f} {word}" for word, (m, factor) in _FIGURES.items() if m in values]
        found.append(f"{kernel}: {', '.join(told)}")
        for title, pattern, count, unit in (("pipes", _PIPE, 8, "%"), ("warps stalled an issue", _STALL, 6, "")):
            named = {match[1]: value for name, value in values.items() if (match := pattern.match(name))}
            largest = sorted(named.items(), key=lambda item: -item[1])[:count]
            found.append(f"  {title}: " + ", ".join(f"{name} {value:.1f}{unit}" for name, value in largest))
    return found


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _error(text: str) -> str:
    lines = [line for line in text.splitlines() if "==ERROR==" in line or "Error" in line]
    return " / ".join(lines[:3])[:300] or (text.strip().splitlines() or [""])[-1][:300]
