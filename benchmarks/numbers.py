"""Writes the section of docs/numbers.md that a GPU run makes: `python -m benchmarks.numbers`.

Every figure comes from benchmarks/results/<device>/summary.json, which `make gpu` wrote; what is said of them stands in
the document, outside the marks between which this writes.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[1] / "docs" / "numbers.md"
BEGIN, END = "<!-- made by python -m benchmarks.numbers -->", "<!-- end of what it made -->"
_PROVIDERS = ("attnmod", "sdpa-cudnn", "sdpa-flash", "sdpa-efficient")


def section(summary: dict[str, Any]) -> str:
    """The run of one device, as Markdown."""
    machine = summary["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "triton", "cudnn", "driver"))
    found = [f"### {machine['device']}", "", f"{versions}; commit {machine['commit']}, {machine['date']}.", ""]
    found += ["| stage | checks that hold | SM clock, MHz | what it said |", "| --- | --- | --- | --- |"]
    for name in ("machine", "right", "gluon", "sanitizer"):
        stage = summary["stages"][name]
        held = sum(check["outcome"] == "ok" for check in stage["checks"])
        said = "; ".join(line for line in stage["said"] if "ceiling" in line or "memcheck" in line)
        found.append(f"| {name} | {held} of {len(stage['checks'])} | {stage['mhz']:.0f} | {said} |")
    found += ["", *_kernels(summary["stages"]["kernels"]["rows"])]
    found += ["", *_steps([*summary["stages"]["unet"]["rows"], *summary["stages"]["compiled"]["rows"]])]
    for name, title in (
        ("tune", "Tiles, as they won"),
        ("gluon", "Forms of self-attention on Hopper, 4,096 and 1,024 patches"),
    ):
        said = [line for line in summary["stages"][name]["said"] if "had to compile" not in line]
        found += ["", f"{title}:", "", "```", *said, "```"]
    return "\n".join(found) + "\n"


def _kernels(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "Microseconds of a call by graph replay, the median, and in brackets from the 20th to the 80th percentile:"
    yield ""
    yield "| computed | " + " | ".join(_PROVIDERS) + " |"
    yield "| --- |" + " ---: |" * len(_PROVIDERS)
    by_point: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_point.setdefault((row["op"], row["shape"]), {})[row["provider"]] = row
    for (op, shape), cells in by_point.items():
        name = f"{op}, {shape.removeprefix('sdxl-1024x1024 ')}"
        yield f"| {name} | " + " | ".join(_cell(cells.get(provider)) for provider in _PROVIDERS) + " |"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["p50"] is None:
        return "-"
    return f"{1e3 * row['p50']:.1f} ({1e3 * row['p20']:.1f}-{1e3 * row['p80']:.1f})"


def _steps(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "Milliseconds of a step of SDXL's UNet, two rows at 1024x1024, fp16; host: the processor's time for it:"
    yield ""
    yield "| how | stock | modulated | of stock | by turns | host, stock | host, modulated |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: |"
    steps: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["op"] == "unet step":
            steps.setdefault(row["cache"], {})[row["provider"]] = row
    for how, both in steps.items():
        stock, modulated = both["stock"], both["modulated"]
        ratio = re.search(r"([\d.]+) of stock, in turns ([\d. ]+)", modulated["note"])
        assert ratio is not None
        yield (
            f"| {how} | {stock['p50']:.2f} | {modulated['p50']:.2f} | {ratio[1]} | {ratio[2]} |"
            f" {stock['host']:.2f} | {modulated['host']:.2f} |"
        )


def document(text: str) -> str:
    """The document with its section made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/summary.json"))]
    made = "\n".join(section(summary) for summary in summaries if not summary["toy"])
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def main() -> int:
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    print(DOCUMENT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
