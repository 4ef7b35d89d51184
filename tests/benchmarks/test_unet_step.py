"""The UNet's step as `make gpu` measures it, at a size that a CPU runs."""

import doctest
from pathlib import Path

import pytest
import torch

from attnmod.benchmarks import kernel_profile
from attnmod.benchmarks.gpu import compiled, unet
from attnmod.benchmarks.gpu.report import Report
from attnmod.benchmarks.harness import time_limit
from attnmod.benchmarks.unet_step import Pair, Turn, in_turns, ratios_to_stock, rows_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair():
    pair = Pair(full=False, device=CPU)
    yield pair
    pair.handle.remove()


def events_of(stage, tmp_path: Path, seconds: float = 100.0) -> list[dict]:
    """What a stage tells at toy size."""
    events: list[dict] = []
    report = Report("stage", seconds, events.append, toy=True, more=False, device=CPU, folder=tmp_path)
    with time_limit(seconds):
        stage.run(report)
    return events


def test_falling_timesteps_save_projections(pair):
    layers = sum(name.endswith("attn2") for name, _ in pair.modulated.named_modules())
    told = unet.count_projections(pair, pair.steps()["modulated"], 6)
    assert told == f"{2 * layers} projections made and {10 * layers} saved in 6 steps"


def test_a_constant_timestep_saves_none_and_is_told(pair):
    step = pair.steps()["modulated"]
    with pytest.raises(AssertionError, match="132 projections made and 0 saved in 6 steps"):
        unet.count_projections(pair, lambda i: step(0), 6)


def test_both_unets_read_the_same_memory(pair):
    stock, modulated = (list(one.parameters()) for one in (pair.stock, pair.modulated))
    assert [x.data_ptr() for x in stock] == [x.data_ptr() for x in modulated]
    assert all(x.isfinite().all() and x.device == CPU for x in stock)
    assert max(x.abs().max() for x in stock) <= 1


def test_the_stock_one_is_stock(pair):
    names = {type(processor).__name__ for processor in pair.stock.attn_processors.values()}
    assert names == {"AttnProcessor2_0"}
    assert unet.compare(pair.steps(), CPU).startswith("differs by ")
    with pytest.raises(AssertionError, match="computes what the stock one does"):
        unet.compare({"stock": pair.steps()["stock"], "modulated": pair.steps()["stock"]}, CPU)


def test_turns_alternate(pair):
    order = []
    steps = {name: lambda i, name=name: order.append((name, i)) for name in ("stock", "modulated")}
    turns = in_turns(steps, CPU, rounds=2, count=2, alone=1)
    one = [("stock", i) for i in range(4)] + [("modulated", i) for i in range(4)]
    assert order[4:] == one + one
    assert [len(turn.steps) for turn in turns["stock"]] == [2, 2]
    assert [len(turn.host) for turn in turns["stock"]] == [1, 1]


def test_ratios_are_taken_turn_by_turn(pair):
    """A machine that slows down by a third between two rounds."""
    turns = {
        "stock": [Turn(50, [40.0, 40.0], [30.0]), Turn(50, [60.0, 60.0], [30.0])],
        "modulated": [Turn(50, [38.0, 38.0], [31.0]), Turn(50, [57.0, 57.0], [31.0])],
    }
    assert ratios_to_stock(turns, "modulated") == pytest.approx([0.95, 0.95])
    rows = rows_of(turns, "eager", pair)
    assert rows[1].note == "first step of a run 50.00 ms; 0.950 of stock, in turns 0.950 0.950"
    assert (rows[0].host, rows[1].host) == (30.0, 31.0)


def test_the_stage_says_what_needs_cuda(tmp_path):
    events = events_of(unet, tmp_path)
    checks = {event["name"]: (event["outcome"], event["text"]) for event in events if event["event"] == "check"}
    for name in ("in a CUDA graph, in turns", "a step waits for nothing"):
        assert checks.pop(name) == ("left out", "needs CUDA")
    assert {outcome for outcome, _ in checks.values()} == {"ok"}
    rows = [event["row"] for event in events if event["event"] == "row"]
    assert [(row["provider"], row["cache"]) for row in rows] == [("stock", "eager"), ("modulated", "eager")]
    texts = {event["name"]: event["text"] for event in events if event["event"] == "text"}
    assert "attnmod::cross_attention" in texts["unet-modulated-kernels.txt"]
    assert "attnmod::cross_attention" not in texts["unet-stock-kernels.txt"]
    assert any("attnmod::cross_attention (0 -> " in event["line"] for event in events if event["event"] == "say")


def test_what_was_looked_at_before_the_device_was_lost_is_not_repeated(tmp_path):
    events: list[dict] = []
    done = frozenset({"eager, in turns", "modulation changes the output"})
    unet.run(Report("unet", 100, events.append, toy=True, more=False, device=CPU, folder=tmp_path, done=done))
    names = {event["name"] for event in events if event["event"] == "check"}
    assert not names & done
    assert "profile" in names


def test_the_compiled_stage(tmp_path):
    events = events_of(compiled, tmp_path)
    outcomes = {event["name"]: event["outcome"] for event in events if event["event"] == "check"}
    in_a_graph = "blocks compiled, in a CUDA graph, in turns"
    assert outcomes.pop(in_a_graph) == ("ok" if torch.cuda.is_available() else "left out")
    assert set(outcomes.values()) == {"ok"}
    rows = [event["row"] for event in events if event["event"] == "row"]
    assert [(row["op"], row["provider"]) for row in rows] == [
        ("unet compile", "stock"), ("unet compile", "modulated"), ("unet step", "stock"), ("unet step", "modulated"),
    ]  # fmt: skip


def test_without_diffusers_the_stage_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    for stage in (unet, compiled):
        (check,) = events_of(stage, tmp_path)
        assert check["outcome"] == "left out"
        assert "needs diffusers" in check["text"]


def test_differences():
    assert doctest.testmod(kernel_profile).failed == 0
