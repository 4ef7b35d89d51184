"""Stage `unet`: a step of SDXL's UNet, eager and in a CUDA graph, and what it launches; stock and modulated in turn."""

import time
from collections.abc import Callable
from functools import partial

import torch

from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.kernel_profile import Kernels, differences, kernels_of, longest, total
from attnmod.benchmarks.launches import Case
from attnmod.benchmarks.shapes import shapes
from attnmod.benchmarks.unet_step import Pair, Step, in_turns, rows_of, words_of

_ABOUT_A_PROFILE = 10.0  # seconds


def run(report: Report) -> None:
    pair = build(report)
    if pair is None:
        return
    steps = pair.steps()
    options = {"rounds": 1, "count": 2, "alone": 1} if report.toy else {}
    checks: dict[str, Callable[[], str]] = {
        "modulation changes the output": lambda: compare(steps, pair.device),
        "the text is projected once a run": lambda: count_projections(pair, steps["modulated"], 6),
        "a step waits for nothing": lambda: step_without_sync(pair, steps["modulated"]),
        "eager, in turns": lambda: report_turns(report, steps, "eager", pair, **options),
        "in a CUDA graph, in turns": lambda: _graphs(report, pair, options),
        "profile": lambda: _profiles(report, pair, steps),
    }
    for name, check in checks.items():
        if not report.already(name):  # by a process that then lost the device
            with report.check(name) as note:
                note(check())
    pair.handle.remove()


def _graphs(report: Report, pair: Pair, options: dict[str, int]) -> str:
    if pair.device.type != "cuda":
        raise LeftOut("needs CUDA")
    if report.seconds_left() < 5:
        raise LeftOut("no time left")
    captured = pair.captured()
    return f"{compare(captured, pair.device)}; {report_turns(report, captured, 'graph', pair, **options)}"


def _profiles(report: Report, pair: Pair, steps: dict[str, Step]) -> str:
    if report.seconds_left() < (0 if report.toy else _ABOUT_A_PROFILE):
        raise LeftOut("no time left")
    kernels = {}
    for name, step in steps.items():
        step(0)  # begins a run: the step after it projects no text
        kernels[name] = kernels_of(partial(step, 1), pair.device)
    return report_kernels(report, kernels)


def build(report: Report) -> Pair | None:
    """The two UNets, or a line that says why not."""
    start = time.perf_counter()
    pair = None
    with report.check("two UNets over the same random weights") as note:
        try:
            import diffusers  # noqa: F401 - whether it is there
        except ImportError as error:
            raise LeftOut(f"needs diffusers: {error}") from error
        pair = Pair(full=not report.toy, device=report.device)
        note(f"{pair.shape}, made in {time.perf_counter() - start:.1f} s")
    return pair


def compare(steps: dict[str, Step], device: torch.device) -> str:
    """Two steps of a run of each: both finite, and not the same."""
    outputs = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step(0)
        outputs[name] = step(1).double()
        if not outputs[name].isfinite().all():
            raise AssertionError(f"{name}: the output is not finite")
        if device.type == "cuda":
            torch.cuda.synchronize()
        outputs[name + " seconds"] = time.perf_counter() - start
    stock, modulated = outputs["stock"], outputs["modulated"]
    difference = ((modulated - stock).norm() / stock.norm()).item()
    if difference == 0:
        raise AssertionError("the modulated UNet computes what the stock one does")
    seconds = ", ".join(f"{name} {outputs[name + ' seconds']:.1f} s" for name in steps)
    return f"differs by {difference:.2g} from stock; first two steps: {seconds}"


def count_projections(pair: Pair, step: Step, steps: int) -> str:
    """A run of so many falling timesteps makes the projections at its first step and saves them at the others."""
    before = pair.handle.stats()
    for i in range(steps):
        step(i)
    after = pair.handle.stats()
    made, saved = (after[name] - before[name] for name in ("projections_made", "projections_saved"))
    if made == 0 or saved != (steps - 1) * made:
        raise AssertionError(f"{made} projections made and {saved} saved in {steps} steps")
    return f"{made} projections made and {saved} saved in {steps} steps"


def step_without_sync(pair: Pair, step: Step) -> str:
    """A step inside a run launches and returns: whatever waits for the device raises, and says where it is."""
    if pair.device.type != "cuda":
        raise LeftOut("needs CUDA")
    step(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def report_turns(report: Report, steps: dict[str, Step], variant: str, pair: Pair, **options: int) -> str:
    rows = rows_of(in_turns(steps, pair.device, **options), variant, pair)
    for row in rows:
        report.row(row)
    report.say(words_of(rows))
    return f"{sum(row.p50 is not None for row in rows)} timed"


def report_kernels(report: Report, kernels: dict[str, Kernels]) -> str:
    for name, found in kernels.items():
        report.save_text(f"unet-{name}-kernels.txt", longest(found))
        launches, us = total(found)
        report.say(f"profile of one step, {name}: {us / 1e3:.2f} ms in {launches} launches")
    report.say("modulated less stock, by kernel (launches):")
    for line in differences(kernels["stock"], kernels["modulated"]):
        report.say("  " + line)
    return f"{len(kernels['modulated'])} kinds of kernels"


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    """What the modulated UNet launches by default; at toy size it does not run on a GPU's account."""
    if toy:
        return []
    large, small = shapes()[:2]
    found = []
    for shape in (large, small):
        sizes = torch.float16, shape.heads, shape.queries
        found.append(Case("self", "temperature", *sizes, shape.queries, shape.head_dim))
        found.append(Case("cross", "owner", *sizes, 77, shape.head_dim))
    # ownership is averaged at the finest of its sizes
    found.append(Case("cross", "average", torch.float16, large.heads, large.queries, 77, large.head_dim))
    return found
