"""Searches tiles on the device at hand and writes the winners as a patch to kernels/configs.py.

    python -m benchmarks.tune [--toy]

Every candidate is checked against float64 before it is timed. Self-attention is tried with tiles first and then, in
the fastest of them, with the softmax options that the table knows; it is compared with SDPA on q over the temperature,
too: where that is faster, the table is told to use it. On the CPU the candidates run in Triton's
interpreter (TRITON_INTERPRET=1), whose times mean nothing: that only shows that the search runs.
"""

import argparse
import contextlib
import difflib
import itertools
import pprint
from dataclasses import astuple, replace
from pathlib import Path
from unittest import mock

import torch

from attnmod.benchmarks.bench_cross_attention import controls, references
from attnmod.benchmarks.forms import self_attention_in, skipped_fraction
from attnmod.benchmarks.harness import Row, device_folder, measure, print_rows, save, time_limit
from attnmod.benchmarks.peers import sdpa, sdpa_names
from attnmod.benchmarks.shapes import Shape, random_operands
from attnmod.kernels import configs, cross_attention, reference
from attnmod.kernels.configs import Tiles
from attnmod.kernels.ops import cross_attention as cross_op
from attnmod.kernels.ops import self_attention as self_op

_CONFIGS = Path(configs.__file__)


def self_candidates(head_dim: int, toy: bool) -> list[Tiles]:
    """Tiles, each without softmax options and with the overlap; the likeliest first, should time run out."""
    if toy:
        return [Tiles(16, 16, 4, 1), Tiles(32, 16, 4, 1, options=("overlap",))]
    wide = (64, 32) if head_dim > 80 else (128, 64)
    return [
        Tiles(rows, columns, warps, stages, options=options)
        for stages, columns, (rows, warps), options in itertools.product(
            (2, 3), wide, ((64, 4), (128, 8), (128, 4)), ((), ("overlap",))
        )
        if rows * columns // warps >= 512
    ]


def with_softmax_options(tiles: Tiles) -> list[Tiles]:
    """The forms of these tiles that `self_candidates` leaves out, and a limit that may let a third block in."""
    combinations = [("lazy_rescale",), ("skip",), ("polynomial",), ("lazy_rescale", "skip"), ("overlap", "polynomial")]
    return [replace(tiles, options=options) for options in combinations] + [replace(tiles, max_registers=168)]


def cross_candidates(form: str, toy: bool) -> list[Tiles]:
    if toy:
        return [Tiles(16, 0, 4, 1, 1), Tiles(16, 0, 4, 1, 2)]
    blocks = (1, 2, 3, 4) if form == "prompt" else (1,)
    return [
        Tiles(rows, 0, warps, 1, count, limit)
        for (rows, warps), count, limit in itertools.product(((64, 4), (128, 8), (64, 8)), blocks, (0, 168))
        if not (limit and warps == 8)
    ]


def run(toy: bool) -> tuple[list[Row], dict]:
    """All rows, and the winners: {(table, padded head dim, class): Tiles or "sdpa"}."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[Row] = []
    winners: dict[tuple[str, int, str], Tiles | str] = {}
    for shape in _shapes(toy):
        _tune_self_attention(shape, toy, device, rows, winners)
        for form in ("prompt", "swept"):
            _tune_cross_attention(shape, form, toy, device, rows, winners)
    return rows, winners


def patched_configs(winners: dict, architecture: str) -> str:
    """The text of configs.py with this architecture's entries replaced by the winners, and marked as measured."""
    lines = _CONFIGS.read_text().splitlines(keepends=True)
    tables = {"self": "_SELF_ATTENTION = {\n", "cross": "_CROSS_ATTENTION = {\n"}
    for table, opening in tables.items():
        start = lines.index(opening) + 1
        end = next(i for i in range(start, len(lines)) if lines[i] == "}\n")
        entries = {key: tiles for key, tiles in winners.items() if key[0] == table and isinstance(tiles, Tiles)}
        names = [f'    ("{architecture}", {head_dim}, "{kind}"):' for _, head_dim, kind in entries]
        kept = [line for line in lines[start:end] if not line.startswith(tuple(names))] if names else lines[start:end]
        new = [f"{name} Tiles{astuple(tiles)},\n" for name, tiles in zip(names, entries.values(), strict=True)]
        lines[start:end] = kept + new
    text = "".join(lines)
    measured = sorted(configs.MEASURED | {architecture})
    text = _replace_line(text, "MEASURED: ", f"MEASURED: frozenset[str] = frozenset({pprint.pformat(measured)})")
    slower = sorted(
        configs._SDPA_IS_FASTER - {key for key in configs._SDPA_IS_FASTER if key[0] == architecture}
        | {(architecture, key[1], key[2]) for key, value in winners.items() if value == "sdpa"}
    )
    value = f"frozenset({slower})" if slower else "frozenset()"
    return _replace_line(text, "_SDPA_IS_FASTER: ", f"_SDPA_IS_FASTER: frozenset[tuple[str, int, str]] = {value}")


def write_patch(winners: dict, architecture: str) -> Path:
    before = _CONFIGS.read_text().splitlines(keepends=True)
    after = patched_configs(winners, architecture).splitlines(keepends=True)
    path = device_folder() / "configs.patch"
    path.write_text("".join(difflib.unified_diff(before, after, "a/kernels/configs.py", "b/kernels/configs.py")))
    return path


def _shapes(toy: bool) -> list[Shape]:
    if toy:
        return [Shape("toy", 1, 1, 20, 64)]
    return [
        Shape("sdxl", 2, 10, 4096, 64),
        Shape("sdxl", 2, 20, 1024, 64),
        Shape("sd15", 2, 8, 4096, 40),
        Shape("sd15", 2, 8, 1024, 80),
        Shape("sd15", 2, 8, 256, 160),
    ]


def _tune_self_attention(shape, toy, device, rows, winners) -> None:
    operands = random_operands(shape, None, torch.float16, device)
    tau = torch.full((shape.batch,), 0.7, device=device)
    q, k, v = (x[:1, :1] for x in operands[0])  # the gate looks at one head
    exact = reference.self_attention(q.double(), k.double(), v.double(), temperature=tau[:1])
    low = reference.self_attention(q, k, v, temperature=tau[:1])
    key = ("self", configs.padded_head_dim(shape.head_dim), configs._shape_class(shape.queries))
    best: dict[str, tuple[float, Tiles | str]] = {}

    def try_out(candidates: list[Tiles]) -> None:
        for tiles in candidates:
            with self_attention_in(tiles):
                row = _time(
                    rows, best, f"tune self {_words(tiles)}", shape, tiles, exact, low, toy,
                    lambda i: self_op(*operands[i % 3], temperature=tau, backend="triton"),
                )  # fmt: skip
            if "skip" in tiles.options and row.p50 is not None:
                row.note = f"skipped {skipped_fraction(*operands[0], tau, tiles):.1%} of the tiles"

    try_out(self_candidates(shape.head_dim, toy))
    if best:
        fastest = min(best.values(), key=lambda entry: entry[0])[1]
        assert isinstance(fastest, Tiles)
        try_out(with_softmax_options(fastest))
    for name in sdpa_names() if device.type == "cuda" else ():
        _time(
            rows, best, f"tune self {name}", shape, "sdpa", exact, low, toy,
            lambda i, name=name: sdpa(name)(operands[i % 3][0] / tau[0].to(torch.float16), *operands[i % 3][1:]),
        )  # fmt: skip
    if best:
        winner = min(best.values(), key=lambda entry: entry[0])[1]
        winners.setdefault(key, winner)  # SDXL's shapes come first and decide where SD 1.5's share their entry


def _tune_cross_attention(shape, form, toy, device, rows, winners) -> None:
    tokens = 17 if toy else 77 if form == "prompt" else 231
    operands = random_operands(shape, tokens, torch.float16, device)
    given = controls(shape, tokens, 4, device)
    q, k, v = (x[:1, :1] for x in operands[0])
    best: dict[str, tuple[float, Tiles | str]] = {}
    for tiles in cross_candidates(form, toy):
        with (
            mock.patch.object(cross_attention, "cross_attention_tiles", return_value=tiles),
            mock.patch.object(cross_attention, "cross_attention_form", return_value=form),
        ):
            name, exact, low = f"tune cross {form} {_words(tiles)}", None, None
            with contextlib.suppress(Exception):  # what does not run becomes a row that says so
                exact, low = references(q, k, v, _first_row(given), "triton")
            _time(
                rows, best, name, shape, tiles, exact, low, toy,
                lambda i: cross_op(*operands[i % 3], **given, backend="triton"),
            )  # fmt: skip
    if best:
        key = ("cross", configs.padded_head_dim(shape.head_dim), form)
        winner = min(best.values(), key=lambda entry: entry[0])[1]
        winners.setdefault(key, winner)  # as above


def _first_row(options: dict) -> dict:
    return {name: x[:1] for name, x in options.items()}


def _words(tiles: Tiles) -> str:
    return " ".join(str(value) for value in [*astuple(tiles)[:6], *tiles.options])


def _time(rows, best, name, shape, choice, exact, low, toy, call) -> Row:
    gate = None if exact is None else (lambda out: out[:1, :1])
    row = measure(name, "attnmod", shape.name, call, exact, low, budget_ms=1 if toy else 20, compare=gate)
    rows.append(row)
    if row.p50 is not None:
        best[name] = (row.p50, choice)
    return row


def _replace_line(text: str, beginning: str, line: str) -> str:
    lines = [line if old.startswith(beginning) else old for old in text.split("\n")]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune")
    parser.add_argument("--toy", action="store_true", help="two candidates on a tiny shape: does everything run?")
    parser.add_argument("--minutes", type=float, default=60, help="measure nothing new after so many (default: 60)")
    options = parser.parse_args(arguments)
    with time_limit(60 * options.minutes):
        rows, winners = run(options.toy)
    print_rows(rows)
    architecture = configs.architecture(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(save("tune", rows))
    print(write_patch(winners, architecture))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
