"""The closing summary: about sixty lines that carry everything of importance.

A machine that is lent may hand back no more than the last 12,000 characters of what was printed, so the printed form
stays below that: the longest sections are cut first, and say so. summary.txt is not cut.
"""

import statistics
from typing import Any, Protocol

from attnmod.benchmarks.gpu.stages import StageResult

LIMIT = 11_000
_WIDTH = 170
_NAME, _CELL = 44, 21


class Results(Protocol):
    """What is known so far, see `results.py`."""

    machine: dict[str, Any]
    toy: bool
    remarks: list[str]
    stages: dict[str, StageResult]


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
    return [_head(results), *(_stage(name, stage) for name, stage in results.stages.items())]


def _head(results: Results) -> list[str]:
    machine = results.machine
    versions = " ".join(
        f"{name} {machine[name]}" for name in ("torch", "triton", "cudnn", "driver") if machine.get(name)
    )
    toy = " TOY SIZES: times mean nothing" if results.toy else ""
    found = [
        f"== attnmod on {machine.get('device', 'an unknown device')}: {versions}, commit {machine.get('commit')}{toy}"
    ]
    by_outcome: dict[str, list[str]] = {}
    for name, stage in results.stages.items():
        by_outcome.setdefault(stage.outcome, []).append(name)
    found.append("   " + "; ".join(f"{outcome}: {', '.join(names)}" for outcome, names in by_outcome.items()))
    return found + [f"   ! {remark}" for remark in results.remarks]


def _stage(name: str, stage: StageResult) -> list[str]:
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
    if name == "kernels":
        found += _table([row for row in stage.rows if row["p50"] is not None])
    return found + _untimed([row for row in stage.rows if row["p50"] is None])


def _table(rows: list[dict]) -> list[str]:
    """A line for each thing that is computed: every provider's median in us, its TFLOP/s, and in brackets the us of an
    eager call; the clock meanwhile."""
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    found = ["   us, TFLOP/s (us in eager mode)".ljust(_NAME + 3) + "".join(name.rjust(_CELL) for name in providers)]
    by_point: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        point = (row["op"], row["shape"], row["dtype"], row["cache"])
        by_point.setdefault(point, {})[row["provider"]] = row
    for (op, shape, dtype, cache), cells in by_point.items():
        marks = [mark for mark, usual in ((dtype, "float16"), (cache, "warm")) if mark != usual]
        name = " ".join([op, shape.removeprefix("sdxl-1024x1024 "), *marks])
        clocks = [row["mhz"] for row in cells.values() if row.get("mhz")]
        mhz = f" {statistics.median(clocks):6.0f} MHz" if clocks else ""
        found.append(f"   {name:{_NAME}}{''.join(_cell(cells.get(p)).rjust(_CELL) for p in providers)}{mhz}")
    return found


def _cell(row: dict | None) -> str:
    if row is None:
        return "-"
    rate = f" {row['flops'] / row['p50'] / 1e9:.0f}" if row.get("flops") else ""
    eager = f" ({1e3 * row['eager']:.0f})" if row.get("eager") is not None else ""
    return f"{1e3 * row['p50']:.1f}{rate}{eager}"


def _untimed(rows: list[dict]) -> list[str]:
    """What has no time, and why: one line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reasons.setdefault((row["provider"], row["note"]), []).append(f"{row['op']} {row['shape']}")
    return [
        f"   {provider}, {len(which)} rows, such as {which[0]}: {note}" for (provider, note), which in reasons.items()
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
