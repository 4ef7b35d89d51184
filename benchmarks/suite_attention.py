"""Both ops under pytest-benchmark, for comparisons from commit to commit; not part of the tests.

    pytest benchmarks/suite_attention.py --benchmark-autosave
    pytest benchmarks/suite_attention.py --benchmark-compare --benchmark-group-by=group

SDXL's shapes on a GPU, a 16th of their patches on a CPU. An output is compared with float64 before it is timed.
`bench_kernels.py` is the full comparison, with every peer and with a cold cache.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from attnmod.benchmarks.bench_cross_attention import controls
from attnmod.benchmarks.bench_cross_attention import references as cross_references
from attnmod.benchmarks.bench_self_attention import providers
from attnmod.benchmarks.bench_self_attention import references as self_references
from attnmod.benchmarks.harness import relative_error
from attnmod.benchmarks.shapes import Shape, random_operands, shapes
from attnmod.kernels.ops import cross_attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.float16 if DEVICE.type == "cuda" else torch.float32
SHAPES = shapes()[:2]
if DEVICE.type != "cuda":
    SHAPES = [replace(shape, queries=shape.queries // 16) for shape in SHAPES]


def timed(benchmark, call, *references: torch.Tensor | None) -> None:
    """Gate, then time: a provider that cannot run here is skipped, one whose error is above the budget fails."""
    try:
        out = call()
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    exact, low = references
    assert exact is not None
    assert low is not None
    assert relative_error(out, low, exact) <= 1

    def synchronous() -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(synchronous)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.heads}x{shape.queries}")
@pytest.mark.parametrize("provider", providers(DEVICE))
def test_self_attention(benchmark, provider: str, shape: Shape):
    benchmark.group = f"self-attention {shape.name}"
    operands = random_operands(shape, None, DTYPE, DEVICE, copies=1)[0]
    tau = torch.full((shape.batch,), 0.8, device=DEVICE)
    timed(benchmark, lambda: providers(DEVICE)[provider](*operands, tau), *self_references(operands, tau))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.heads}x{shape.queries}")
@pytest.mark.parametrize("tokens", [77, 231])
@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("share", [False, True], ids=["per-head", "shared"])
def test_cross_attention(benchmark, share: bool, backend: str, tokens: int, shape: Shape):
    benchmark.group = f"cross-attention {shape.name} T={tokens}"
    q, k, v = random_operands(shape, tokens, DTYPE, DEVICE, copies=1)[0]
    options: dict[str, Any] = controls(shape, tokens, 4, DEVICE) | ({"share_heads": True} if share else {})
    references = cross_references(q, k, v, options, backend)
    timed(benchmark, lambda: cross_attention(q, k, v, **options, backend=backend), *references)
