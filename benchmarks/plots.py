"""Draws what was measured: `python -m benchmarks.plots [FOLDER]` reads a device's results and writes PNGs beside them.

Bars per shape with the floors drawn in (on an H100: operations, wholly overlapped and one after the other; bytes);
time against prompt length, temperature, entities, batch and patches, each with the rest fixed. What was not measured
is not drawn.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from attnmod.benchmarks.harness import device_folder

# An H100 SXM at 1.755 GHz: 132 processors, 4096 flop and 16 exponentials a clock each; 3.35 TB/s.
_FLOPS, _EXPONENTIALS, _BYTES = 132 * 4096 * 1.755e9, 132 * 16 * 1.755e9, 3.35e12
_VARIABLES = {
    "tau": "temperature",
    "tokens": "text tokens",
    "entities": "entities",
    "batch": "rows",
    "queries": "patches",
}
_FLOOR_LINES = {"overlapped": "--", "serial": "-.", "bytes": ":"}
_NAME = re.compile(r"(\S+) (\d+)x(\d+)x(\d+)x(\d+)(?: T=(\d+) G=(\d+))?")


def floors_us(batch: int, heads: int, queries: int, keys: int, head_dim: int) -> dict[str, float]:
    """What an H100 needs for 16-bit attention at the least, in us, by what limits it.

    >>> {name: round(value, 1) for name, value in floors_us(2, 10, 4096, 4096, 64).items()}
    {'overlapped': 90.5, 'serial': 181.1, 'bytes': 12.5}
    """
    scores = batch * heads * queries * keys
    products, exponentials = 4 * scores * head_dim / _FLOPS, scores / _EXPONENTIALS
    moved = 2 * 2 * batch * heads * head_dim * (queries + keys)  # q, out and k, v
    return {
        "overlapped": max(products, exponentials) * 1e6,
        "serial": (products + exponentials) * 1e6,
        "bytes": moved / _BYTES * 1e6,
    }


def points(rows: list[dict]) -> list[dict[str, Any]]:
    """Warm medians in us, with the shape in numbers."""
    found = []
    for row in rows:
        name = _NAME.match(row["shape"])
        if row["p50"] is None or row["cache"] != "warm" or name is None:
            continue
        batch, heads, queries, head_dim = (int(name[i]) for i in range(2, 6))
        tau = re.search(r"tau=([\d.]+)", row["op"])
        found.append(
            {
                "provider": row["provider"],
                "us": row["p50"] * 1e3,
                "model": name[1],
                "tau": float(tau[1]) if tau else None,
                "batch": batch,
                "heads": heads,
                "queries": queries,
                "head_dim": head_dim,
                "tokens": int(name[6]) if name[6] else None,
                "entities": int(name[7]) if name[7] else None,
            }
        )
    return found


def lines(found: list[dict], variable: str) -> dict[str, list[tuple[float, float]]]:
    """By provider and the rest of the shape: (value of the variable, us), wherever there are several values."""
    grouped: dict[str, dict[float, float]] = {}
    for point in found:
        if point[variable] is None:
            continue
        ignored = {variable, "us", "provider", "model"}
        rest = " ".join(f"{name}={value}" for name, value in point.items() if name not in ignored and value is not None)
        grouped.setdefault(f"{point['provider']} {rest}", {})[point[variable]] = point["us"]
    return {name: sorted(values.items()) for name, values in grouped.items() if len(values) > 1}


def draw(folder: Path) -> list[Path]:
    import matplotlib  # pyright: ignore[reportMissingImports] - of the extra `bench`

    matplotlib.use("Agg")
    written = []
    for name in ("self_attention", "cross_attention"):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        device = record["machine"]["device"]
        title = f"{device}, torch {record['machine']['torch']}, {record['machine']['date']}"
        if record.get("toy"):
            title += ": toy sizes, which say only that everything runs"
        found = points(record["rows"])
        if found:
            written.append(_bars(found, folder / f"{name}.png", title, with_floors="H100" in device))
        for variable in _VARIABLES:
            chosen = lines(found, variable)
            if chosen:
                written.append(_lines(chosen, variable, folder / f"{name}_{variable}.png", title))
    return written


def _bars(found: list[dict], path: Path, title: str, with_floors: bool) -> Path:
    """A panel for each shape, in the order of measurement; ours are filled, peers are not."""
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    panels: dict[tuple, list[dict]] = {}
    for point in found:
        shape = tuple(value for name, value in point.items() if name not in ("provider", "us"))
        panels.setdefault(shape, []).append(point)
    height = sum(0.9 + 0.2 * len(bars) for bars in panels.values())
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, height), squeeze=False, layout="constrained",
        height_ratios=[0.9 + 0.2 * len(bars) for bars in panels.values()],
    )  # fmt: skip
    for axis, bars in zip(axes[:, 0], panels.values(), strict=True):
        one = bars[0]
        ours = [point["provider"].startswith("attnmod") for point in bars]
        axis.barh(
            [point["provider"] for point in bars],
            [point["us"] for point in bars],
            color=["tab:blue" if own else "lightgrey" for own in ours],
        )
        axis.invert_yaxis()
        axis.tick_params(labelsize=7)
        words = [
            f"{one['model']} batch {one['batch']}, {one['heads']} heads of {one['head_dim']}, {one['queries']} patches"
        ]
        words += [f"{_VARIABLES[name]} {one[name]}" for name in ("tau", "tokens", "entities") if one[name] is not None]
        axis.set_title(", ".join(words), fontsize=8)
        axis.set_xlabel("us (median)", fontsize=7)
        if with_floors:
            keys = one["tokens"] or one["queries"]
            for name, value in floors_us(one["batch"], one["heads"], one["queries"], keys, one["head_dim"]).items():
                axis.axvline(value, linestyle=_FLOOR_LINES[name], color="black", linewidth=0.9, label=f"floor: {name}")
            axis.legend(fontsize=6, loc="lower right")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _lines(chosen: dict[str, list[tuple[float, float]]], variable: str, path: Path, title: str) -> Path:
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    for name, values in chosen.items():
        own = name.startswith("attnmod")
        axis.plot(*zip(*values, strict=True), marker="o", markersize=3, label=name, linewidth=1.6 if own else 0.7)
    axis.set_xlabel(_VARIABLES[variable])
    axis.set_ylabel("us (median)")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=5, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    for file in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else device_folder()):
        print(file)
