"""Both ops under pytest-benchmark, for comparisons from commit to commit; not part of the tests.

    pytest benchmarks/suite_attention.py --benchmark-autosave
    pytest benchmarks/suite_attention.py --benchmark-compare --benchmark-group-by=group

SDXL's shapes on a GPU, a 16th of their patches on a CPU. An output is compared with float64 before it is timed.
`bench_kernels.py` is the full comparison, with every peer and with a cold cache.
"""

from dataclasses import replace

import pytest
import torch

from attnmod.benchmarks import bench_cross_attention, bench_self_attention
from attnmod.benchmarks.harness import Truth
from attnmod.benchmarks.peers import Provider, pinned
from attnmod.benchmarks.shapes import Shape, random_operands, shapes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.float16 if DEVICE.type == "cuda" else torch.float32
SHAPES = shapes()[:2]
if DEVICE.type != "cuda":
    SHAPES = [replace(shape, queries=shape.queries // 16) for shape in SHAPES]


def timed(benchmark, call, truth: Truth | None) -> None:
    """Gate, then time: a provider that cannot run here is skipped, one whose error is above the budget fails."""
    try:
        out = call()
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    assert truth is not None
    assert truth.error(out) <= 1

    def synchronous() -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(synchronous)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.heads}x{shape.queries}")
@pytest.mark.parametrize(
    "provider", bench_self_attention.providers(DEVICE), ids=lambda one: f"{one.name}-{one.computes}"
)
def test_self_attention(benchmark, provider: Provider, shape: Shape):
    benchmark.group = f"self-attention {provider.computes} {shape.name}"
    operands = random_operands(shape, None, DTYPE, DEVICE, copies=1)[0]
    tau = torch.full((shape.batch,), 0.8, device=DEVICE)
    truth = bench_self_attention.truth_of(operands, tau if provider.computes == bench_self_attention.TEMPERED else None)
    with pinned(provider.pinned):
        timed(benchmark, lambda: provider.call(*operands, tau), truth)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.heads}x{shape.queries}")
@pytest.mark.parametrize("tokens", [77, 231])
@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("computes", ["owner", "affinity", "shared"])
def test_cross_attention(benchmark, computes: str, backend: str, tokens: int, shape: Shape):
    benchmark.group = f"cross-attention {computes} {shape.name} T={tokens}"
    operands = random_operands(shape, tokens, DTYPE, DEVICE, copies=1)[0]
    options = bench_cross_attention.options_of(computes, shape, tokens, 4, DEVICE)
    truth = bench_cross_attention.truth_of(*operands, options, backend)
    timed(benchmark, lambda: bench_cross_attention.attnmod(options, backend)(*operands), truth)
