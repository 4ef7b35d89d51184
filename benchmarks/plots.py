"""Draws what was measured: `python -m benchmarks.plots [FOLDER]` reads a device's results and writes PNGs beside them.

Bars per shape with both floors drawn in, time against prompt length, and time against the temperature. What was not
measured is not drawn.
"""

import json
import re
import sys
from pathlib import Path

from attnmod.benchmarks.harness import device_folder

# An H100 SXM at 1.755 GHz: 132 processors, 4096 flop and 16 exponentials a clock each. Elsewhere none is drawn.
_H100_FLOPS, _H100_EXPONENTIALS = 132 * 4096 * 1.755e9, 132 * 16 * 1.755e9


def floors_ms(batch: int, heads: int, queries: int, keys: int, head_dim: int) -> tuple[float, float]:
    """The time of products and exponentials on an H100 if they overlap wholly, and if not at all."""
    scores = batch * heads * queries * keys
    products, exponentials = 4 * scores * head_dim / _H100_FLOPS, scores / _H100_EXPONENTIALS
    return max(products, exponentials) * 1e3, (products + exponentials) * 1e3


def draw(folder: Path) -> list[Path]:
    import matplotlib  # pyright: ignore[reportMissingImports] - of the extra `bench`

    matplotlib.use("Agg")
    written = []
    for name in ("self_attention", "cross_attention"):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        rows = [row for row in record["rows"] if row["p50"] is not None and row["cache"] == "warm"]
        title = f"{record['machine']['device']}, torch {record['machine']['torch']}, {record['machine']['date']}"
        written.append(_bars(rows, folder / f"{name}.png", title, "H100" in record["machine"]["device"]))
        written += _against(rows, folder, name, title)
    return written


def _bars(rows: list[dict], path: Path, title: str, with_floors: bool) -> Path:
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    shapes = list(dict.fromkeys(f"{row['op']} {row['shape']}" for row in rows))
    figure, axes = plt.subplots(max(len(shapes), 1), 1, figsize=(9, 2.6 * max(len(shapes), 1)), squeeze=False)
    for axis, shape in zip(axes[:, 0], shapes, strict=False):
        chosen = [row for row in rows if f"{row['op']} {row['shape']}" == shape]
        axis.barh([row["provider"] for row in chosen], [row["p50"] for row in chosen])
        axis.set_title(shape, fontsize=8)
        axis.set_xlabel("ms (median)")
        size = re.search(r"(\d+)x(\d+)x(\d+)x(\d+)(?: T=(\d+))?", shape)
        if size and with_floors:
            batch, heads, queries, head_dim = (int(size[i]) for i in range(1, 5))
            for floor in floors_ms(batch, heads, queries, int(size[5] or queries), head_dim):
                axis.axvline(floor, linestyle="--", color="black", linewidth=0.8)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _against(rows: list[dict], folder: Path, name: str, title: str) -> list[Path]:
    """Time against the number in the op's tau=, or in the shape's T= and G=, wherever there are several."""
    import matplotlib.pyplot as plt  # pyright: ignore[reportMissingImports]

    written = []
    for label, pattern in (("tau", r"tau=([\d.]+)"), ("tokens", r"T=(\d+)"), ("entities", r"G=(\d+)")):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            match = re.search(pattern, f"{row['op']} {row['shape']}")
            if match:
                rest = re.sub(pattern, "", row["shape"]).strip()
                lines.setdefault(f"{row['provider']} {rest}", []).append((float(match[1]), row["p50"]))
        lines = {key: sorted(points) for key, points in lines.items() if len({x for x, _ in points}) > 1}
        if not lines:
            continue
        figure, axis = plt.subplots(figsize=(9, 5))
        for key, points in lines.items():
            axis.plot(*zip(*points, strict=True), marker="o", label=key)
        axis.set_xlabel(label)
        axis.set_ylabel("ms (median)")
        axis.legend(fontsize=5)
        axis.set_title(title, fontsize=9)
        written.append(folder / f"{name}_{label}.png")
        figure.savefig(written[-1], dpi=110)
        plt.close(figure)
    return written


if __name__ == "__main__":
    for file in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else device_folder()):
        print(file)
