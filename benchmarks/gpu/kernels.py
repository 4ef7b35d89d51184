"""Stage `kernels`: both ops at SDXL's two sizes by graph replay, against SDPA's backends pinned by name.

SDPA has no temperature: its rows of "self tau" pay for the pass that divides the queries, as our own path through SDPA
does; its rows of "self plain" do not. For cross-attention what is to be beaten is its "cross plain", which controls
nothing. With --more: SD 1.5's shapes, float32, FlexAttention and installed packages, other temperatures, other batches,
and a cold cache.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from attnmod.benchmarks import bench_cross_attention, bench_self_attention
from attnmod.benchmarks.gpu.report import Report
from attnmod.benchmarks.harness import Row
from attnmod.benchmarks.launches import Case
from attnmod.benchmarks.shapes import Shape, shapes

TAU = 0.8
_FAST_SDPA = ("sdpa-flash", "sdpa-cudnn", "sdpa-efficient")
_TOY = [Shape("toy", 2, 2, 48, 64), Shape("toy", 1, 2, 33, 64)]
_LONG_PROMPT = 231
_SWEPT = ("plain", "owner", "vote")  # of a long prompt


def run(report: Report) -> None:
    large, small = _TOY if report.toy else shapes()[:2]
    tokens, long = (17, 33) if report.toy else (77, _LONG_PROMPT)
    for shape in (large, small):
        _take(report, f"self {shape.name}", _self(report, shape))
        _take(report, f"cross {shape.name}", _cross(report, shape, tokens))
    for shape in (large, small):
        _take(report, f"cross {shape.name}, a long prompt", _cross(report, shape, long, computing=_SWEPT))
    if report.more:
        for n, rows in enumerate(_more(report, large, small, tokens)):
            _take(report, f"more, {n}", rows, verdict=False)


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    """What the stage launches, for whoever compiles it beforehand. With --more it compiles the rest itself."""
    found = []
    for shape in _TOY if toy else shapes()[:2]:
        for feature in ("temperature", "plain"):
            found.append(_case("self", feature, shape, shape.queries))
        for tokens, computing in ((17 if toy else 77, bench_cross_attention.COMPUTED), (33 if toy else 231, _SWEPT)):
            found += [_case("cross", feature, shape, tokens) for feature in computing]
    return found


def _case(op: str, feature: str, shape: Shape, tokens: int) -> Case:
    return Case(op, feature, torch.float16, shape.heads, shape.queries, tokens, shape.head_dim, shape.batch)


def _self(report: Report, shape: Shape, **options) -> Iterator[Row]:
    options = {"tau": TAU, "names": ("attnmod", *_FAST_SDPA), "budget_ms": 1 if report.toy else 60} | options
    return bench_self_attention.measure_point(shape, device=report.device, **options)


def _cross(report: Report, shape: Shape, tokens: int, **options) -> Iterator[Row]:
    options = {"names": ("attnmod", *_FAST_SDPA), "budget_ms": 1 if report.toy else 30} | options
    return bench_cross_attention.measure_point(shape, tokens, 4, report.device, **options)


def _more(report: Report, large: Shape, small: Shape, tokens: int) -> Iterator[Iterator[Row]]:
    """The likeliest to be asked for come first, should time run out."""
    both = (large, small)
    for shape in both:
        yield _self(report, shape, colds=(True,))
        yield _cross(report, shape, tokens, colds=(True,))
    for shape in both:
        yield _self(report, shape, names=("flex", *(name for name in bench_self_attention.installed_peers())))
        yield _cross(report, shape, tokens, names=("flex", "sdpa-math", "eager", "eager maps"))
        yield _cross(report, shape, tokens, names=[f"{name} bias" for name in _FAST_SDPA])
    for shape in _TOY[:1] if report.toy else [shape for shape in shapes() if shape.model.startswith("sd15")]:
        yield _self(report, shape)
        yield _cross(report, shape, tokens)
    for shape in both:
        yield _self(report, shape, dtype=torch.float32, names=("attnmod", "sdpa-efficient"))
        yield _cross(report, shape, tokens, dtype=torch.float32, names=("attnmod", "sdpa-efficient"))
    for shape in both:
        for tau in (1.0, 0.5, 0.3):
            yield _self(report, shape, tau=tau, computing=(bench_self_attention.TEMPERED,))
    for shape in both:
        for batch in (1, 8):
            yield _self(report, replace(shape, batch=batch))
            yield _cross(report, replace(shape, batch=batch), tokens)


def _take(report: Report, name: str, rows: Iterator[Row], verdict: bool = True) -> None:
    """Report rows as they come, unless a process that then lost the device has done so."""
    if report.already(name):
        return
    taken = []
    with report.check(name) as note:
        for row in rows:
            report.row(row, flops=row.flops)
            taken.append(row)
            if row.note.startswith("not run: ") and report.device.type == "cuda":
                torch.cuda.synchronize()  # a device that was lost ends this here, not at every provider after
        note(f"{sum(row.p50 is not None for row in taken)} of {len(taken)} timed")
    if verdict:
        for line in verdicts(taken):
            report.say(line)


def verdicts(rows: list[Row]) -> list[str]:
    """Ours over the fastest SDPA: where one does the same work over that, else over plain attention.

    >>> ours = [Row("cross plain", "attnmod", "4096", p50=9.0), Row("cross vote", "attnmod", "4096", p50=8.0)]
    >>> theirs = [Row("cross plain", "flash", "4096", p50=10.0), Row("cross plain", "cudnn", "4096", p50=12.5)]
    >>> verdicts([*ours, *theirs])
    ['4096, of cross plain by flash: cross plain 0.90, cross vote 0.80']
    """
    times = {(row.shape, row.op, row.provider): row.p50 for row in rows if row.p50 is not None}
    found: dict[str, list[str]] = {}
    for (shape, op, provider), own in times.items():
        if provider != "attnmod":
            continue
        others = {key: time for key, time in times.items() if key[0] == shape and key[2] != "attnmod"}
        same = {key: time for key, time in others.items() if key[1] == op} or others
        if same:
            best = min(same, key=lambda key: same[key])
            found.setdefault(f"{shape}, of {best[1]} by {best[2]}", []).append(f"{op} {own / same[best]:.2f}")
    return [f"{beginning}: {', '.join(ratios)}" for beginning, ratios in found.items()]
