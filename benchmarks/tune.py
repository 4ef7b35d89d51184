"""Tiles for the card at hand: every candidate is checked against float64 and timed, and the winners are written down.

    attnmod bench tune [--more] [--out tiles.json]

Where they are written, attnmod finds them at its next start: attnmod/tiles.json in the user's configuration folder, or
what ATTNMOD_TILES names. No source is changed. --more adds SD 1.5's head dims 80 and 160 to SDXL's 64.

Self-attention is tried with tiles first and then, in the fastest of them, with the softmax options that the table
knows; where SDPA on q over the temperature is faster, the table says so. Candidates that lie closer together than one
of them to itself are a tie, and a tie keeps the present entry. On a CPU the candidates run in Triton's interpreter
(TRITON_INTERPRET=1), whose times mean nothing: that only shows that the search runs.
"""

import argparse
import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks import bench_cross_attention, bench_self_attention
from attnmod.benchmarks.forms import cross_attention_in, self_attention_in
from attnmod.benchmarks.harness import Row, Truth, measure, out_of_time, print_rows, seconds_left, time_limit
from attnmod.benchmarks.launches import SLOTS, Case
from attnmod.benchmarks.shapes import Shape, random_operands, shapes
from attnmod.benchmarks.timer import time_calls
from attnmod.kernels import configs, reference, sdpa, tile_table
from attnmod.kernels.tile_table import Entry, Tiles

_TAU = 0.8
_SDPA = "sdpa"
_REPEATS = 7
_OVERLAP = ("overlap",)
_LIKELY = 4


@dataclass(frozen=True)
class Workload:
    """What is timed: a feature as in `launches.Case`."""

    feature: str
    shape: Shape
    tokens: int

    def case(self, op: str, tiles: Tiles) -> Case:
        shape, name = self.shape, op.removesuffix("_attention")
        sizes = (shape.heads, shape.queries, self.tokens, shape.head_dim, shape.batch)
        return Case(name, self.feature, torch.float16, *sizes, candidate=tiles)


@dataclass(frozen=True)
class Search:
    """One entry of the table, and what decides it: the sum of its workloads' times."""

    op: str
    shape_class: str
    workloads: tuple[Workload, ...]

    @property
    def head_dim(self) -> int:
        return configs.padded_head_dim(self.workloads[0].shape.head_dim)

    @property
    def name(self) -> str:
        return f"{self.op} {self.head_dim} {self.shape_class}"


# -- what is searched


def searches(*, toy: bool, more: bool) -> list[Search]:
    """The hot ones first, should time run out."""
    if toy:
        return [_self(Shape("toy", 1, 1, 20, 64)), _prompt(Shape("toy", 1, 1, 20, 64), 17)]
    large, small = shapes()[:2]
    owner, average = Workload("owner", large, 231), Workload("average", large, 77)
    found = [
        _self(large), _prompt(large), _self(small), _prompt(small),
        Search("cross_attention", "swept", (average, owner)),
    ]  # fmt: skip
    if more:  # head dim 40 has SDXL's entry
        wider = [shape for shape in shapes() if shape.model.startswith("sd15") and shape.head_dim > 64]
        for shape in wider[:2]:
            found += [_self(shape), _prompt(shape)]
    return found


def _self(shape: Shape) -> Search:
    workload = Workload("temperature", shape, shape.queries)
    return Search("self_attention", configs.shape_class(shape.queries), (workload,))


def _prompt(shape: Shape, tokens: int = 77) -> Search:
    return Search(
        "cross_attention", f"prompt {configs.shape_class(shape.queries)}", (Workload("owner", shape, tokens),)
    )


def candidates(search: Search, *, toy: bool) -> list[Tiles]:
    """Tiles, the likeliest first."""
    if search.op == "self_attention":
        if toy:
            return [Tiles(16, 16, 4, 1), Tiles(32, 16, 4, 1, options=("overlap",))]
        wide, narrow = {64: (128, 64), 128: (64, 128), 256: (32, 64)}[search.head_dim]
        forms = [(wide, 3, _OVERLAP), (narrow, 3, _OVERLAP), (wide, 2, _OVERLAP), (narrow, 4, _OVERLAP)]
        forms += [(wide, 3, ()), (narrow, 3, ()), (narrow, 4, ()), (narrow, 2, ()), (wide, 2, ())]
        return [
            Tiles(block_m, block_n, warps, stages, options=options)
            for (block_n, stages, options), (block_m, warps) in itertools.product(forms, ((64, 4), (128, 8), (128, 4)))
        ]
    if toy:
        return [Tiles(16, 0, 4, 1, 1), Tiles(16, 0, 4, 1, 2)]
    blocks = (1, 2, 4) if search.shape_class.startswith("prompt") else (1,)
    rows = ((64, 4), (128, 8), (128, 4), (32, 4), (64, 8))
    found = [Tiles(block_m, 0, warps, 1, count) for count, (block_m, warps) in itertools.product(blocks, rows)]
    if (
        search.shape_class == "prompt long"
    ):  # at 96 registers five programs fit an H100's processor, and all run at once
        found[:0] = [Tiles(64, 0, 4, 1, 2, max_registers=96), Tiles(64, 0, 4, 1, 3)]
    return found


def softmax_options(tiles: Tiles) -> list[Tiles]:
    """The forms of these tiles that `candidates` leaves out, and a limit that may let a third block in."""
    combinations = [("lazy_rescale",), ("overlap", "polynomial"), ("polynomial",), ("skip",), ("lazy_rescale", "skip")]
    return [replace(tiles, options=options) for options in combinations] + [replace(tiles, max_registers=168)]


def cases(*, toy: bool, more: bool) -> list[Case]:
    """The launches of all candidates, for whoever compiles them beforehand; of the softmax options those in the tiles
    that are the likeliest to be the fastest."""
    found = []
    for search in searches(toy=toy, more=more):
        tried = candidates(search, toy=toy)
        if search.op == "self_attention" and not toy:
            tried += [form for tiles in tried[:_LIKELY] for form in softmax_options(tiles)]
        for workload, tiles in itertools.product(search.workloads, dict.fromkeys(tried)):
            found.append(workload.case(search.op, tiles))
    return found


# -- the search


def with_shares(found: Sequence[Search]) -> Iterator[tuple[Search, AbstractContextManager]]:
    """Each search with its share of the time that is left: what one does not use the others have."""
    for index, search in enumerate(found):
        yield search, time_limit(seconds_left() / (len(found) - index))


class Contest:
    """The candidates for one entry, timed; `take` keeps every row that comes of it."""

    def __init__(self, search: Search, device: torch.device, take: Callable[[Row], None], *, toy: bool):
        self.search, self.device, self._take = search, device, take
        self._budget_ms = 1.0 if toy else 15.0
        self._benches = [_Bench(workload, device) for workload in search.workloads]
        self.times: dict[Tiles | str, float] = {}

    def enter(self, choice: Tiles | str) -> None:
        """Time a candidate once, unless time is out; of several workloads the sum."""
        if choice in self.times or out_of_time():
            return
        total = 0.0
        for bench in self._benches:
            row = measure(
                f"tune {self.search.name}", words(choice), bench.name, bench.call(choice), bench.inputs, bench.truth,
                eager=False, budget_ms=self._budget_ms,
            )  # fmt: skip
            self._take(row)
            if row.p50 is None:
                return
            total += row.p50
        self.times[choice] = total

    def fastest(self) -> Tiles | str | None:
        return min(self.times, key=lambda choice: self.times[choice], default=None)

    def again(self, choices: Sequence[Tiles | str]) -> dict[Tiles | str, list[float]]:
        """Each of these in turn, several times over."""
        found: dict[Tiles | str, list[float]] = {choice: [] for choice in choices}
        for _ in range(_REPEATS):
            for choice, times in found.items():
                times.append(sum(bench.time(choice, self._budget_ms) for bench in self._benches))
        return found


def tune(
    search: Search, device: torch.device, take: Callable[[Row], None], *, toy: bool, measured: str
) -> tuple[Entry, str] | None:
    """The entry that the table should have, and in words how it won; None where not even the present one ran.

    Args:
        search: which entry.
        device: where.
        take: is given every row.
        toy: two candidates.
        measured: names the card and the Triton.
    """
    architecture = configs.architecture(device)
    present = tile_table.table().find(search.op, architecture, search.head_dim, search.shape_class)
    contest = Contest(search, device, take, toy=toy)
    contest.enter(present.tiles)
    if search.op == "self_attention":
        contest.enter(_SDPA)
    for tiles in candidates(search, toy=toy):
        contest.enter(tiles)
    best = min((one for one in contest.times if one != _SDPA), key=lambda one: contest.times[one], default=None)
    if search.op == "self_attention" and isinstance(best, Tiles) and best.kernel == "triton":
        for tiles in softmax_options(best):
            contest.enter(tiles)
    best = contest.fastest()
    if best is None:
        return None
    before: Tiles | str = _SDPA if present.backend == _SDPA else present.tiles
    chosen, told = best, f"{words(best)}, where {words(before)} does not run"
    if before in contest.times:
        rivals = contest.again([before] if best == before else [before, best])
        chosen = best if best != before and is_faster(rivals[best], rivals[before]) else before
        told = verdict(rivals, before, chosen)
    tiles = chosen if isinstance(chosen, Tiles) else _fastest_tiles(contest) or present.tiles
    backend = _SDPA if chosen == _SDPA else "triton"
    entry = Entry(search.op, architecture, search.head_dim, search.shape_class, tiles, backend, measured)
    return entry, f"{told}; {len(contest.times)} ran"


def is_faster(challenger: Sequence[float], present: Sequence[float]) -> bool:
    """By more than what either differs by from itself, its fastest and slowest time left out: less is a tie.

    >>> is_faster([9.0, 9.1, 9.0, 9.2, 9.9], [10.0, 10.1, 9.9, 10.0, 10.0])
    True
    >>> is_faster([9.9, 9.5, 9.7, 9.6, 9.9], [10.0, 9.9, 10.1, 9.7, 10.0])
    False
    """
    spread = max(sorted(times)[-2] - sorted(times)[1] for times in (challenger, present))
    return statistics.median(present) - statistics.median(challenger) > spread


def verdict(rivals: dict[Tiles | str, list[float]], before: Tiles | str, chosen: Tiles | str) -> str:
    """How the choice came about, in us."""
    own = f"{words(before)} {statistics.median(rivals[before]) * 1e3:.2f} us"
    others = [choice for choice in rivals if choice != before]
    if not others:
        return f"{own} stays: nothing is faster"
    other = f"{words(others[0])} {statistics.median(rivals[others[0]]) * 1e3:.2f} us"
    return f"{own} stays: a tie with {other}" if chosen == before else f"{other} in place of {own}"


def words(choice: Tiles | str) -> str:
    """A choice in short.

    >>> words(Tiles(64, 128, 4, 3, options=("overlap",))), words(Tiles(64, 0, 4, 1, 2))
    ('64x128 4w 3s overlap', '64x0 4w 1s 2 blocks')
    """
    if isinstance(choice, str):
        return choice
    found = [] if choice.kernel == "triton" else [choice.kernel]
    found += [f"{choice.block_m}x{choice.block_n}", f"{choice.num_warps}w", f"{choice.num_stages}s", *choice.options]
    found += [f"{choice.blocks_per_program} blocks"] * (choice.blocks_per_program > 1)
    found += [f"{choice.max_registers} registers"] * (choice.max_registers > 0)
    return " ".join(found)


def _fastest_tiles(contest: Contest) -> Tiles | None:
    tiles = [choice for choice in contest.times if isinstance(choice, Tiles)]
    return min(tiles, key=lambda choice: contest.times[choice], default=None)


class _Bench:
    """A workload with its inputs and its truth."""

    def __init__(self, workload: Workload, device: torch.device):
        self.workload, self._device = workload, device
        shape = workload.shape
        self.is_self = workload.feature == "temperature"
        self.name = f"{shape.name} T={workload.tokens}"
        operands = random_operands(shape, None if self.is_self else workload.tokens, torch.float16, device)
        self._tau = torch.full((shape.batch,), _TAU, device=device)
        self._options = {} if self.is_self else _cross_options(workload, device)
        self.inputs: list[tuple[Any, ...]] = [(*one, self._tau) for one in operands] if self.is_self else operands

    def call(self, choice: Tiles | str) -> Callable[..., Tensor]:
        if choice == _SDPA:
            return lambda q, k, v, tau: sdpa.self_attention(q, k, v, temperature=tau, scale=q.shape[3] ** -0.5)
        assert isinstance(choice, Tiles)
        if self.is_self:
            return functools.partial(self_attention_in, choice)
        # of a vote the affinities are held against the truth: owners within rounding of each other are all right
        return lambda q, k, v: cross_attention_in(choice, self._options, q, k, v)[-1]

    @functools.cached_property
    def _truth(self) -> Truth | None:
        if self.is_self:
            return bench_self_attention.truth_of(self.inputs[0][:3], self._tau)
        q, k, v = self.inputs[0]
        if self.workload.feature != "average":
            return bench_cross_attention.truth_of(q, k, v, self._options, "")
        exact, low = (
            reference.cross_attention(
                *(x.to(dtype) for x in (q, k, v)),
                **self._options | {"affinity": self._options["affinity"].to(dtype)},
            )[1]
            for dtype in (torch.float64, torch.float16)
        )
        return Truth.of(exact, low)

    def truth(self) -> Truth | None:
        return self._truth

    def time(self, choice: Tiles | str, budget_ms: float) -> float:
        return time_calls(self.call(choice), self.inputs, self._device, eager=False, budget_ms=budget_ms).p50


def _cross_options(workload: Workload, device: torch.device) -> dict[str, Any]:
    shape, tokens = workload.shape, workload.tokens
    if workload.feature == "owner":
        return bench_cross_attention.options_of("owner", shape, tokens, 4, device)
    given = bench_cross_attention.controls(shape, tokens, 4, device)
    affinity = torch.nn.functional.pad(given["affinity"], (0, SLOTS - given["affinity"].shape[2]))
    kept = {"entity_bits": given["entity_bits"], "log_weights": given["log_weights"], "affinity": affinity}
    return kept | {"share_heads": True, "return_affinity": True}


# -- the command


def where_it_runs(device: torch.device) -> str:
    """The card and the Triton, as entries name them."""
    return f"{device_name(device)}, Triton {tile_table.triton_version()}"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def keep(path: Path, entries: Sequence[Entry], device_name: str) -> str:
    """Write a table of these entries, over those that the file has for the same card and Triton; a table of another is
    put aside. Says where everything went."""
    kept: dict[Any, Entry] = {}
    moved = ""
    if path.exists():
        obstacle = tile_table.obstacle_to(path)
        if obstacle:
            aside = next(aside for n in itertools.count(1) if not (aside := path.with_suffix(f".old{n}.json")).exists())
            path.rename(aside)
            moved = f"; the one that was there is {aside}: {obstacle}"
        else:
            kept = {entry.key: entry for entry in tile_table.read(path)}
    tile_table.write(path, (kept | {entry.key: entry for entry in entries}).values(), device_name)
    return f"{path}{moved}"


def run(
    device: torch.device, *, toy: bool, more: bool, take: Callable[[Row], None]
) -> Iterator[tuple[Search, Entry, str]]:
    """Every entry that was decided, installed in this process."""
    for search, share in with_shares(searches(toy=toy, more=more)):
        with share:
            if out_of_time():
                return
            found = tune(search, device, take, toy=toy, measured=where_it_runs(device))
        if found is not None:
            tile_table.table().install([found[0]])
            yield search, *found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="attnmod bench tune", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--toy", action="store_true", help="two candidates on a tiny shape: does everything run?")
    parser.add_argument("--more", action="store_true", help="SD 1.5's head dims, too")
    parser.add_argument("--minutes", type=float, default=15, help="measure nothing new after so many (15)")
    parser.add_argument("--out", type=Path, help=f"the table to write ({tile_table.user_path()})")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    toy = options.toy or device.type != "cuda"
    if device.type != "cuda" and not interpreted():
        print("attnmod bench tune: this needs a GPU that Triton serves; here there is none", file=sys.stderr)
        return 2
    rows: list[Row] = []
    entries = []
    with time_limit(60 * options.minutes):
        if not toy:
            compile_beforehand(device, more=options.more)
        for search, entry, told in run(device, toy=toy, more=options.more, take=rows.append):
            entries.append(entry)
            print(f"{search.name}: {told}", flush=True)
    print_rows(rows)
    if not entries:
        print("attnmod bench tune: nothing ran, nothing is written", file=sys.stderr)
        return 1
    if toy and options.out is None:
        print("nothing is written: those were toy sizes (--out names a file all the same)")
    else:
        print(keep(options.out or tile_table.user_path(), entries, device_name(device)))
    return 0


def compile_beforehand(device: torch.device, *, more: bool) -> None:
    """In many processes; what they have no time for is compiled when it is tried."""
    from attnmod.benchmarks.gpu.compile import warm

    found = list(dict.fromkeys(cases(toy=False, more=more)))
    print(f"compiling {len(found)} candidates", flush=True)
    warm(found, configs.architecture(device), seconds_left() / 2)


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU."""
    from attnmod.kernels.tiles import INTERPRETED

    return INTERPRETED.value


if __name__ == "__main__":
    raise SystemExit(main())
