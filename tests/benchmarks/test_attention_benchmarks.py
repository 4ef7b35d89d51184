"""The attention benchmarks and the stage `kernels`, at toy sizes on a CPU."""

import doctest

import pytest
import torch

from attnmod.benchmarks import bench_cross_attention, bench_self_attention
from attnmod.benchmarks.gpu import kernels
from attnmod.benchmarks.gpu.report import Report
from attnmod.benchmarks.harness import OUT_OF_TIME, time_limit
from attnmod.benchmarks.launches import record
from attnmod.benchmarks.peers import pinned
from attnmod.benchmarks.shapes import Shape, random_operands

CPU = torch.device("cpu")
SHAPE = Shape("toy", 2, 2, 33, 64)


def counted(monkeypatch, module, name: str) -> list:
    """The calls of a module's function from here on, by the arguments that follow the operands."""
    calls, before = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: (calls.append(args), before(*args))[1])
    return calls


def events_of(stage, tmp_path, *, more: bool = False) -> list[dict]:
    events: list[dict] = []
    report = Report("kernels", 100.0, events.append, toy=True, more=more, device=CPU, folder=tmp_path)
    with time_limit(100):
        stage.run(report)
    return events


def test_a_self_attention_truth_is_computed_once(monkeypatch):
    calls = counted(monkeypatch, bench_self_attention, "truth_of")
    rows = list(bench_self_attention.measure_point(SHAPE, 0.5, CPU, budget_ms=1))
    timed = [row for row in rows if row.p50 is not None]
    assert len(timed) >= 6  # ours, SDPA's flash and math, each with and without a temperature, and eager
    assert all(row.error <= 1 for row in timed)
    assert len(calls) == 2


def test_a_cross_attention_truth_is_computed_once(monkeypatch):
    calls = counted(monkeypatch, bench_cross_attention, "truth_of")
    rows = list(bench_cross_attention.measure_point(SHAPE, 17, 4, CPU, budget_ms=1))
    timed = [row for row in rows if row.p50 is not None]
    assert len(timed) >= 10
    assert all(row.error <= 1 for row in timed)
    # plain, owner, vote, affinity, shared; and the vote that eager's own owners decide
    assert len(calls) == 6


def test_sdpa_is_timed_on_what_the_shipped_path_computes():
    """A temperature whose quotient leaves fp16: it is clamped there, and without that it would be infinite."""
    q, k, v = random_operands(SHAPE, None, torch.float16, CPU)[0]
    tau = torch.full((2,), 1e-5)
    tempered = next(
        one for one in bench_self_attention.providers(CPU) if (one.name, one.computes) == ("sdpa-math", "tempered")
    )
    with pinned(tempered.pinned):
        assert tempered.call(q, k, v, tau).isfinite().all()
        assert not torch.equal(tempered.call(q, k, v, torch.full((2,), 0.5)), tempered.call(q, k, v, torch.ones(2)))


def test_what_has_no_time_left_is_a_row():
    with time_limit(-1):
        rows = list(bench_self_attention.measure_point(SHAPE, 0.5, CPU))
        rows += bench_cross_attention.measure_point(SHAPE, 17, 4, CPU)
    assert {row.note for row in rows} == {OUT_OF_TIME}


@pytest.mark.parametrize("more", [False, True], ids=["usual", "more"])
def test_the_stage(tmp_path, more):
    events = events_of(kernels, tmp_path, more=more)
    assert {event["outcome"] for event in events if event["event"] == "check"} == {"ok"}
    rows = [event["row"] for event in events if event["event"] == "row"]
    ours = [row for row in rows if row["provider"] == "attnmod"]
    assert {row["op"] for row in ours if row["shape"].startswith("toy 2x2x48x64")} >= {
        "self tau=0.8", "self plain", *(f"cross {computes}" for computes in bench_cross_attention.COMPUTED),
    }  # fmt: skip
    assert all(row["error"] <= 1 and row["p50"] for row in ours)
    assert {row["provider"] for row in rows} >= {"sdpa-flash", "sdpa-cudnn", "sdpa-efficient"}
    assert {row["dtype"] for row in ours} == ({"float16", "float32"} if more else {"float16"})
    said = [event["line"] for event in events if event["event"] == "say"]
    assert any(line.startswith("toy 2x2x48x64, of self tau=0.8 by sdpa-flash: self tau=0.8 ") for line in said)


def test_the_cases_are_launches():
    found = kernels.cases(toy=False, more=False, architecture="sm_90")
    assert len(set(found)) == len(found) == 20
    assert {case.tokens for case in found} == {77, 231, 1024, 4096}
    for case in found:
        assert record(case, "sm_90").grid


def test_the_examples():
    assert doctest.testmod(kernels).failed == 0
