"""Stage "right": the kernels on this device against float64, and what they promise besides.

Every output is full of NaN (a map of owners: of 127) before the launch, so that what no program wrote shows. Heads are
few, so that float64 costs little; the shapes, strides and dtypes are those of a UNet, and odd ones. Inputs are drawn
anew in every run, and the seed is told. Forms that nobody has seen on a GPU run in a process of their own, `risky.py`.
"""

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks.gpu import risky
from attnmod.benchmarks.gpu.report import LeftOut, Report
from attnmod.benchmarks.launches import Case
from attnmod.kernels import testing
from attnmod.kernels.tiles import INTERPRETED

_ENTITIES = 8
_FEATURES = ("plain", "owner", "vote", "affinity", "shared")
_REPEATS = 50


def cases(toy: bool, more: bool, architecture: str) -> list[Case]:
    """Everything that this stage launches."""
    return [*_cases(toy, more), *_call_cases(toy), *risky.cases(toy, architecture)]


def _cases(toy: bool, more: bool) -> list[Case]:
    dtypes = (torch.float16, torch.bfloat16, *((torch.float32,) if more else ()))
    if toy:
        by_shape = [("self", "temperature", 33, 33, 40), *(("cross", feature, 20, 17, 40) for feature in _FEATURES)]
        by_shape += [("cross", "owner", 5, 83, 16), ("self", "plain", 1, 64, 16)]
    else:
        by_shape = [
            *(("self", "temperature", size, size, 64) for size in (4096, 1024, 333)),
            ("self", "plain", 1024, 1024, 64),
            ("self", "temperature", 1024, 512, 64),
            *(("self", "temperature", size, size, head_dim) for size, head_dim in ((4096, 40), (1024, 80), (256, 160))),
            *(("cross", feature, 4096, tokens, 64) for tokens in (77, 231) for feature in _FEATURES),
            *(("cross", feature, 1024, 77, 64) for feature in ("owner", "shared")),
            *(("cross", feature, 1000, 78, 64) for feature in ("owner", "vote")),
            *(("cross", "owner", size, 77, head_dim) for size, head_dim in ((4096, 40), (1024, 80), (256, 160))),
            ("cross", "shared", 4096, 77, 40),
        ]
    return [
        Case(op, feature, dtype, 2, queries, tokens, head_dim)
        for op, feature, queries, tokens, head_dim in by_shape
        for dtype in dtypes
    ]


def run(report: Report) -> None:
    on_device = report.device.type == "cuda"
    backend = "triton" if on_device or INTERPRETED.value else "sdpa"
    seed = random.SystemRandom().randrange(1 << 30)
    report.say(f"inputs of seed {seed}, backend {backend}, every output full of NaN before the launch")
    candidates = risky.Process(report, "softmax") if on_device else None
    left = 0
    for case in _cases(report.toy, report.more):
        if report.already(case.name):
            continue
        if report.seconds_left() < 3:
            left += 1
            continue
        with report.check(case.name):
            check(case, backend, report.device, seed)
    if left:
        report.say(f"out of time: {left} shapes were not looked at")
    for name, look in (
        (f"{_REPEATS} repeats, bit for bit", _check_repeats),
        ("a captured graph follows changed values", _check_graph),
        ("no sync, no memory but the outputs", _check_calls),
    ):
        if report.already(name):
            continue
        with report.check(name):
            if look is not _check_repeats and not on_device:
                raise LeftOut("needs CUDA")
            look(_calls(backend, report.device, seed, report.toy), 3 if report.toy else _REPEATS)
    if candidates is not None:
        candidates.tell()


def check(case: Case, backend: str, device: torch.device, seed: int) -> None:
    """Runs the op of this case and compares all that it returns with float64."""
    q, k, v, options = inputs(case, device, seed)
    with poisoned():
        if case.op == "self":
            testing.check_self_attention(q, k, v, backend, **options)
        else:
            votes = case.feature not in ("plain", "owner")
            testing.check_cross_attention(q, k, v, backend, return_owner=votes, **options)


def inputs(case: Case, device: torch.device, seed: int) -> tuple[Tensor, Tensor, Tensor, dict]:
    """q, k, v as views of projections, with scores of a few nats; and the op's options.

    Of the two rows the first is hard-masked and the second softly; in bf16 the first is an unconditional one.
    """
    draw = torch.Generator(device).manual_seed(seed)

    def projected(length: int) -> Tensor:
        size = (case.batch, length, case.heads, case.head_dim)
        return torch.randn(size, generator=draw, device=device).to(case.dtype).transpose(1, 2)

    q, k, v = projected(case.queries) * 1.5, projected(case.tokens), projected(case.tokens)
    if case.op == "self":
        tau = torch.linspace(0.3, 1.0, case.batch, device=device)
        return q, k, v, {"temperature": tau} if case.feature == "temperature" else {}
    if case.feature == "plain":
        return q, k, v, {}
    by_token = (case.batch, case.tokens)
    bits = torch.randint(1, 1 << _ENTITIES, by_token, generator=draw, device=device, dtype=torch.int32)
    bits = bits.masked_fill(torch.rand(by_token, generator=draw, device=device) < 0.3, -1)
    bits[:, 0] = -1
    weights = torch.randn(by_token, generator=draw, device=device)
    weights = weights.masked_fill(torch.rand(by_token, generator=draw, device=device) < 0.2, -torch.inf)
    weights[:, 0] = 0.0
    if case.dtype == torch.bfloat16:
        bits[0] = -1
    options: dict[str, Any] = {"entity_bits": bits, "log_weights": weights}
    options["hidden_weight"] = torch.linspace(0.0, 0.3, case.batch, device=device)
    if case.feature == "owner":
        owner = torch.randint(-1, _ENTITIES, (case.batch, case.queries), generator=draw, device=device)
        options["owner"] = owner.to(torch.int8)
    elif case.feature != "vote":
        options["affinity"] = torch.rand(*by_token, _ENTITIES, generator=draw, device=device)
        options["share_heads"] = case.feature == "shared"
    return q, k, v, options


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Within it memory that is allocated holds NaN, and the largest integer, until somebody writes it."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _call_cases(toy: bool) -> list[Case]:
    queries, tokens = (33, 17) if toy else (1024, 77)
    found = [Case("self", "temperature", torch.float16, 2, queries, queries, 64)]
    return found + [Case("cross", feature, torch.float16, 2, queries, tokens, 64) for feature in _FEATURES[1:]]


def _calls(backend: str, device: torch.device, seed: int, toy: bool) -> list[tuple[Callable[[], list], dict]]:
    """A call of every feature, with the tensors that it is given: what is written into them the next call follows."""
    return [_call(case, backend, device, seed) for case in _call_cases(toy)]


def _call(case: Case, backend: str, device: torch.device, seed: int) -> tuple[Callable[[], list], dict]:
    q, k, v, options = inputs(case, device, seed)
    ops = torch.ops.attnmod
    if case.op == "self":
        return lambda: [ops.self_attention(q, k, v, options["temperature"], None, backend)], options
    asked = {"return_owner": case.feature != "owner", "return_affinity": case.feature == "shared", "backend": backend}
    return lambda: ops.cross_attention(q, k, v, **options, **asked), options


def _check_repeats(calls: list[tuple[Callable[[], list], dict]], repeats: int) -> None:
    for call, _ in calls:
        first = call()
        for turn in range(1, repeats):
            for got, expected in zip(call(), first, strict=True):
                assert torch.equal(got, expected), f"call {turn} differs from the first"


def _check_graph(calls: list[tuple[Callable[[], list], dict]], _: int) -> None:
    """A captured call follows what is written into temperature, hidden weight and log weights."""
    for call, options in calls:
        call()  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        for change in (0.7, 0.4):
            for name in ("temperature", "hidden_weight"):
                if name in options:
                    options[name].fill_(change)
            if "log_weights" in options:
                options["log_weights"].mul_(-1.0).clamp_(max=2.0)  # the absent ones come in with the largest weight
            graph.replay()
            expected = call()
            torch.cuda.synchronize()
            assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True)), f"replay at {change}"


def _check_calls(calls: list[tuple[Callable[[], list], dict]], _: int) -> None:
    """Nothing waits for the device, and the outputs are all that is allocated."""
    for call, _options in calls:
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.cuda.set_sync_debug_mode("error")
        try:
            results = call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        after = torch.cuda.memory_allocated()
        assert torch.cuda.max_memory_allocated() == after, "something else was allocated"
        assert after - before <= sum(x.nbytes for x in results) + 512 * len(results), "more was kept than the outputs"
        del results
