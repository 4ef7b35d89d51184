"""The closing summary: about sixty lines that carry everything of importance.

A machine that is lent may hand back no more than the last 12,000 characters of what was printed, so the printed form
stays below that: the longest sections are cut first, and say so. summary.txt is not cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnmod.benchmarks.gpu.results import Results, StageResult

LIMIT = 11_000
_WIDTH = 170
_WITH_TABLE = ("machine", "kernels")
# What a processor's tensor cores do in a clock in fp16, times the processors.
_FLOPS_A_CLOCK = {"NVIDIA H100 80GB HBM3": 132 * 4096, "NVIDIA H200": 132 * 4096}


def lines(results: Results) -> list[str]:
    """All of it."""
    return [line for section in _sections(results) for line in section]


def printed(results: Results) -> str:
    """At most LIMIT characters: lines are cut at their end, the longest sections from below."""
    sections = [[line[:_WIDTH] for line in section] for section in _sections(results)]
    cut = [0] * len(sections)

    def text() -> str:
        found = []
        for section, gone in zip(sections, cut, strict=True):
            found += section + ([f"   ... and {gone} lines more in summary.txt"] if gone else [])
        return "\n".join(found)

    while len(text()) > LIMIT:
        longest = max(range(len(sections)), key=lambda i: sum(map(len, sections[i])))
        if len(sections[longest]) <= 2:
            break
        sections[longest].pop()
        cut[longest] += 1
    return text()[:LIMIT]


def _sections(results: Results) -> list[list[str]]:
    return [_head(results), *(_stage(name, stage, results) for name, stage in results.stages.items())]


def _head(results: Results) -> list[str]:
    machine = results.machine
    versions = " ".join(
        f"{name} {machine[name]}" for name in ("torch", "triton", "cudnn", "driver") if machine.get(name)
    )
    toy = " TOY SIZES: times mean nothing" if results.toy else ""
    found = [
        f"== attnmod on {machine.get('device', 'an unknown device')}: {versions}, commit {machine.get('commit')}{toy}"
    ]
    return found + [f"   ! {remark}" for remark in results.remarks]


def _stage(name: str, stage: StageResult, results: Results) -> list[str]:
    made = [check for check in stage.checks if check["outcome"] != "left out"]
    checks = f", {len(made) - len(stage.failed)} of {len(made)} checks hold" if made else ""
    clock = f", {stage.mhz:.0f} MHz {_number(stage.watt)} W {_number(stage.celsius)} C" if stage.mhz else ""
    found = [f"-- {name}: {stage.outcome} in {stage.seconds:.1f} s{checks}{clock}"]
    if stage.error:
        found.append(f"   ! {stage.error.strip().splitlines()[-1]}")
    found += [f"   FAILED {check['name']}: {_one_line(check['text'])}" for check in stage.failed]
    found += [
        f"   left out: {check['name']}: {_one_line(check['text'])}"
        for check in stage.checks
        if check["outcome"] == "left out"
    ]
    found += [f"   {line}" for line in stage.said]
    if name in _WITH_TABLE:
        found += _table(stage.rows, results.machine.get("device", ""))
    found += [f"   {row['op']} {row['provider']} {row['shape']}: {row['note']}" for row in _untimed(stage.rows)]
    return found


def _table(rows: list[dict], device: str) -> list[str]:
    """Microseconds; TFLOP/s; the clock meanwhile, and which part of the tensor cores' peak at that clock it is."""
    timed = [row for row in rows if row.get("p50") is not None]
    if not timed:
        return []
    found = [f"   {'':58} {'us':>8} {'p20':>8} {'p80':>8} {'eager':>7} {'TFLOP/s':>8} {'MHz':>5} {'peak':>5}"]
    for row in timed:
        rate = row["flops"] / row["p50"] / 1e9 if row.get("flops") else None
        eager = f"{1e3 * row['eager']:.0f}" if row.get("eager") is not None else ""
        mhz = row.get("mhz")
        peak = rate * 1e12 / (_FLOPS_A_CLOCK[device] * mhz * 1e6) if rate and mhz and device in _FLOPS_A_CLOCK else None
        name = f"{row['op']} {row['provider']} {row['shape']} {row['cache']}"
        part = "" if peak is None else f"{peak:.0%}"
        times = " ".join(f"{1e3 * row[quantile]:8.2f}" for quantile in ("p50", "p20", "p80"))
        found.append(
            f"   {name:58} {times} {eager:>7} {_number(rate):>8} {_number(mhz):>5} {part:>5} {row.get('note', '')}"
        )
    return found


def _untimed(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row.get("p50") is None]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
