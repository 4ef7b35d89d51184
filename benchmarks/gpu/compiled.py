"""Stage `compiled`: a step of SDXL's UNet by torch.compile, stock and modulated in turn.

Its repeated blocks are compiled, as diffusers recommends; with --more the whole UNet, too. Shapes are static: a run at
one size is measured, and automatic dynamic shapes would make both slower.
"""

import time

import torch

from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.gpu.unet import build, compare, report_turns
from attnmod.benchmarks.harness import Row
from attnmod.benchmarks.unet_step import Pair

# All blocks of both UNets share one code object, for which dynamo keeps eight compiled forms at the most.
_RECOMPILE_LIMIT = 64
_LEAST = {"blocks": 15.0, "whole": 60.0}  # seconds without which a compilation is not begun


def run(report: Report) -> None:
    for what in ("blocks", "whole") if report.more else ("blocks",):
        with torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT):
            _one(report, what)


def _one(report: Report, what: str) -> None:
    pair = build(report)
    if pair is None:
        return
    torch._dynamo.reset()
    steps, ready = pair.steps(), []
    for name in steps:
        with report.check(f"{name}, {what} compiled") as note:
            if report.seconds_left() < (0 if report.toy else _LEAST[what]):
                raise LeftOut("no time left")
            start = time.perf_counter()
            note(_compile(pair, name, what))
            for i in range(2):
                steps[name](i)
            if pair.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            row = Row("unet compile", name, pair.shape, cache=what, p50=round(seconds * 1e3, 1))
            row.note = f"{torch._dynamo.utils.counters['stats']['unique_graphs']} graphs so far"
            report.row(row)
            report.say(f"{what} compiled, {name}: {seconds:.1f} s, {row.note}")
            ready.append(name)
    turns = {"rounds": 1, "count": 2, "alone": 1} if report.toy else {}
    if "stock" in ready:
        with report.check(f"{what} compiled, in turns") as note:
            if "modulated" in ready:
                note(compare(steps, pair.device))
            report_turns(report, {name: steps[name] for name in ready}, f"compiled {what}", pair, **turns)
    with report.check(f"{what} compiled, in a CUDA graph, in turns") as note:
        if pair.device.type != "cuda":
            raise LeftOut("needs CUDA")
        if len(ready) < len(steps) or report.seconds_left() < 5:
            raise LeftOut("no time left, or not both are compiled")
        captured = pair.captured()
        note(compare(captured, pair.device))
        report_turns(report, captured, f"compiled {what}, graph", pair)
    pair.handle.remove()


def _compile(pair: Pair, name: str, what: str) -> str:
    """Says by which backend: a CPU, where the flow alone is of interest, has no time for inductor's."""
    backend = "inductor" if pair.device.type == "cuda" else "eager"
    unet = getattr(pair, name)
    compile_it = unet.compile_repeated_blocks if what == "blocks" else unet.compile
    compile_it(backend=backend, fullgraph=True, dynamic=False)
    return f"backend {backend}"
