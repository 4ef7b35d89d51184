"""The search for tiles: what wins, what is a tie, and what is written where. Times are pretended, but for the flow."""

import doctest
import itertools
import json

import pytest
import torch

from attnmod.benchmarks import tune
from attnmod.benchmarks.gpu import tune as stage
from attnmod.benchmarks.gpu.report import TABLE, Report
from attnmod.benchmarks.harness import Row, seconds_left, time_limit
from attnmod.benchmarks.launches import record
from attnmod.benchmarks.tune import candidates, cases, searches, words
from attnmod.kernels import configs, tile_table
from attnmod.kernels.tile_table import Entry, Tiles

CPU = torch.device("cpu")
SELF, CROSS = searches(toy=True, more=False)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """A table of this test's own."""
    found = tile_table.TileTable()
    monkeypatch.setattr(tile_table, "table", lambda: found)
    monkeypatch.setattr(configs, "table", lambda: found)
    return found


def pretend(monkeypatch, us: dict[str, float], noise: float = 0.0) -> list[str]:
    """Candidates take what us says, by their words, within that noise; others do not run. Returns who is tried."""
    tried: list[str] = []

    def measure(op, provider, shape, call, inputs, truth, **options):
        tried.append(provider)
        found = us.get(provider)
        return Row(op, provider, shape, p50=None if found is None else found / 1e3)

    signs = itertools.cycle((1.0, -1.0, 0.0))
    monkeypatch.setattr(tune, "measure", measure)
    monkeypatch.setattr(
        tune._Bench, "time", lambda self, choice, budget_ms: (us[words(choice)] + next(signs) * noise) / 1e3
    )
    return tried


def decided(search=SELF) -> tuple[Entry, str]:
    found = tune.tune(search, CPU, lambda row: None, toy=True, measured="a card, Triton 3.6")
    assert found is not None
    return found


PRESENT = words(tile_table.table().find("self_attention", "cpu", 64, "short").tiles)


def test_the_faster_one_wins(monkeypatch):
    pretend(monkeypatch, {PRESENT: 300.0, "16x16 4w 1s": 250.0, "sdpa": 400.0}, noise=5.0)
    entry, told = decided()
    assert entry == Entry(
        "self_attention", "cpu", 64, "short", Tiles(16, 16, 4, 1), "triton", measured="a card, Triton 3.6"
    )
    assert told == f"16x16 4w 1s 250.00 us in place of {PRESENT} 300.00 us; 3 ran"


def test_a_tie_keeps_the_entry(monkeypatch):
    """Faster by 4 us, where a candidate differs by 10 from itself."""
    pretend(monkeypatch, {PRESENT: 300.0, "16x16 4w 1s": 296.0}, noise=5.0)
    entry, told = decided()
    assert words(entry.tiles) == PRESENT
    assert entry.measured
    assert "stays: a tie with 16x16 4w 1s" in told


def test_sdpa_may_win_and_ties_keep_the_kernel(monkeypatch):
    pretend(monkeypatch, {PRESENT: 300.0, "16x16 4w 1s": 250.0, "sdpa": 200.0}, noise=5.0)
    entry, _ = decided()
    assert entry.backend == "sdpa"
    assert entry.tiles == Tiles(16, 16, 4, 1)  # of the kernel, for who asks for it by name
    pretend(monkeypatch, {PRESENT: 201.0, "sdpa": 200.0}, noise=5.0)
    assert decided()[0].backend == "triton"


def test_an_entry_of_sdpa_is_won_back(monkeypatch, table):
    table.install([Entry("self_attention", "cpu", 64, "short", Tiles(16, 16, 4, 1), "sdpa", "a card")])
    pretend(monkeypatch, {"16x16 4w 1s": 100.0, "sdpa": 200.0}, noise=5.0)
    assert decided()[0].backend == "triton"
    pretend(monkeypatch, {"16x16 4w 1s": 198.0, "sdpa": 200.0}, noise=5.0)
    assert decided()[0].backend == "sdpa"


def test_softmax_options_are_tried_in_the_fastest_tiles(monkeypatch):
    times = {PRESENT: 300.0, "16x16 4w 1s": 250.0, "16x16 4w 1s lazy_rescale": 200.0}
    tried = pretend(monkeypatch, times)
    assert decided()[0].tiles.options == ("lazy_rescale",)
    assert tried.index("16x16 4w 1s lazy_rescale") > tried.index("32x16 4w 1s overlap")
    assert f"{PRESENT} lazy_rescale" not in tried


def test_an_entry_that_does_not_run_loses(monkeypatch):
    pretend(monkeypatch, {"16x16 4w 1s": 250.0})
    entry, told = decided()
    assert entry.tiles == Tiles(16, 16, 4, 1)
    assert told == f"16x16 4w 1s, where {PRESENT} does not run; 1 ran"


def test_without_a_candidate_there_is_no_entry(monkeypatch):
    pretend(monkeypatch, {})
    assert tune.tune(SELF, CPU, lambda row: None, toy=True, measured="") is None


def test_no_time_left_tries_nothing(monkeypatch):
    tried = pretend(monkeypatch, {PRESENT: 300.0})
    with time_limit(-1):
        assert tune.tune(SELF, CPU, lambda row: None, toy=True, measured="") is None
    assert tried == []


def test_several_workloads_count_together(monkeypatch):
    swept = next(search for search in searches(toy=False, more=False) if search.shape_class == "swept")
    assert {(workload.feature, workload.tokens) for workload in swept.workloads} == {("average", 77), ("owner", 231)}
    small = tune.Search("cross_attention", "swept", SELF_WORKLOADS)
    pretend(monkeypatch, {"64x0 4w 1s": 10.0, "16x0 4w 1s": 8.0})
    rows: list[Row] = []
    contest = tune.Contest(small, CPU, rows.append, toy=True)
    contest.enter(Tiles(64, 0, 4, 1))
    assert contest.times[Tiles(64, 0, 4, 1)] == pytest.approx(0.02)
    assert len({row.shape for row in rows}) == 2


SELF_WORKLOADS = tuple(
    tune.Workload(feature, CROSS.workloads[0].shape, tokens) for feature, tokens in (("average", 17), ("owner", 33))
)


def test_a_vote_is_held_against_its_affinities():
    """In the interpreter, by the kernel itself: right tiles pass, and a shifted affinity does not."""
    bench = tune._Bench(SELF_WORKLOADS[0], CPU)
    out = bench.call(Tiles(64, 0, 4, 1))(*bench.inputs[0])
    assert bench.truth().error(out) <= 1
    assert bench.truth().error(out.roll(1, 2)) > 1


def test_the_candidates_that_were_asked_for():
    long = next(search for search in searches(toy=False, more=False) if search.name == "self_attention 64 long")
    found = candidates(long, toy=False)
    assert len(set(found)) == len(found)
    assert {(tiles.block_m, tiles.block_n) for tiles in found} == set(itertools.product((64, 128), repeat=2))
    assert {tiles.num_warps for tiles in found} == {4, 8}
    assert {tiles.num_stages for tiles in found} == {2, 3, 4}
    assert {tiles.options for tiles in found} == {(), ("overlap",)}
    assert found[0] == Tiles(64, 128, 4, 3, options=("overlap",))
    names = [search.name for search in searches(toy=False, more=True)]
    assert names == [
        "self_attention 64 long", "cross_attention 64 prompt long", "self_attention 64 short",
        "cross_attention 64 prompt short", "cross_attention 64 swept", "self_attention 128 short",
        "cross_attention 128 prompt short", "self_attention 256 short", "cross_attention 256 prompt short",
    ]  # fmt: skip


def test_the_cases_are_the_candidates():
    found = cases(toy=False, more=False)
    assert len(set(found)) == len(found)
    launch = record(next(case for case in found if case.op == "cross" and case.candidate.block_m == 128), "sm_90")
    assert launch.arguments["BLOCK_M"] == 128
    average = record(next(case for case in found if case.feature == "average"), "sm_90")
    assert average.arguments["RETURN_AFFINITY"]
    assert average.arguments["affinity_ptr"].shape[2] == 16


@pytest.fixture
def cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a card")


def entry(shape: str, block_m: int) -> Entry:
    return Entry("self_attention", "sm_90", 64, shape, Tiles(block_m, 64, 4, 2), "triton", "a card")


def test_a_table_keeps_what_is_not_tuned_anew(tmp_path, cards):
    path = tmp_path / "tiles.json"
    assert tune.keep(path, [entry("long", 64), entry("short", 64)], "a card") == str(path)
    tune.keep(path, [entry("long", 128)], "a card")
    assert {one.shape: one.tiles.block_m for one in tile_table.read(path)} == {"long": 128, "short": 64}


def test_a_table_of_another_card_is_put_aside(tmp_path, cards):
    path = tmp_path / "tiles.json"
    for n, name in enumerate(("another card", "a third card"), 1):
        tile_table.write(path, [entry("short", 64)], name)
        told = tune.keep(path, [entry("long", 128)], "a card")
        assert [one.shape for one in tile_table.read(path)] == ["long"]
        aside = tmp_path / f"tiles.old{n}.json"
        assert json.loads(aside.read_text())["device"] == name
        assert str(aside) in told


def test_the_command_writes_a_table_where_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ATTNMOD_TILES", str(tmp_path / "mine.json"))
    assert tune.main(["--toy"]) == 0
    assert "nothing is written" in capsys.readouterr().out
    assert not (tmp_path / "mine.json").exists()
    assert tune.main(["--toy", "--out", str(tmp_path / "toy.json")]) == 0
    found = tile_table.read(tmp_path / "toy.json")
    assert [(one.op, one.architecture, one.shape) for one in found] == [
        ("self_attention", "cpu", "short"), ("cross_attention", "cpu", "prompt short"),
    ]  # fmt: skip
    assert all(one.measured for one in found)


def test_without_a_gpu_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(tune, "interpreted", lambda: False)
    assert tune.main([]) == 2
    assert "needs a GPU" in capsys.readouterr().err


def test_the_stage_installs_and_leaves_a_table(tmp_path, table, monkeypatch):
    pretend(monkeypatch, {PRESENT: 300.0, "16x16 4w 1s": 250.0, "64x0 4w 1s": 8.0})
    events: list[dict] = []
    report = Report("tune", 100.0, events.append, toy=True, more=False, device=CPU, folder=tmp_path)
    stage.run(report)
    assert {event["outcome"] for event in events if event["event"] == "check"} == {"ok"}
    assert configs.self_attention_tiles("cpu", 64, 20, 2) == Tiles(16, 16, 4, 1)
    assert len(tile_table.read(tmp_path / TABLE)) == 2
    # a new child of the same run makes only the checks that are left, and keeps what is in the table
    again = Report(
        "tune", 100.0, events.append, toy=True, more=False, device=CPU, folder=tmp_path,
        done=frozenset({SELF.name}),
    )  # fmt: skip
    stage.run(again)
    assert len(tile_table.read(tmp_path / TABLE)) == 2
    checks = [event["name"] for event in events if event["event"] == "check"]
    assert checks == [SELF.name, CROSS.name, CROSS.name]


def test_the_examples():
    assert doctest.testmod(tune).failed == 0


def test_what_an_entry_does_not_use_the_others_have():
    found = searches(toy=False, more=False)
    with time_limit(100):
        shares = []
        for _, share in tune.with_shares(found):
            with share:
                shares.append(seconds_left())
    assert shares == pytest.approx([100 / left for left in range(len(found), 0, -1)], abs=1)
