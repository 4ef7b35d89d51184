"""The error rule of every kernel test and of the GPU script, and the inputs they share.

Truth is the reference in float64. What a backend may miss it by is measured in the test itself: twice what the
reference misses it by when it computes in the low dtype, plus one rounding of the largest value.
"""

from typing import Any

import torch
from torch import Tensor

from attnmod.kernels import reference
from attnmod.kernels.ops import cross_attention, self_attention

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
BACKENDS = ("triton", "sdpa", "eager")


def assert_within_budget(actual: Tensor, low: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    """max|actual - exact| <= 2 max|low - exact| + eps(dtype) max|exact|, where low was computed in dtype."""
    assert actual.shape == exact.shape == low.shape
    budget = 2 * (low.double() - exact).abs().max() + torch.finfo(dtype).eps * exact.abs().max()
    error = (actual.double() - exact).abs().max()
    assert error <= budget, f"error {error:.3g} is above its budget {budget:.3g}"  # NaN fails too


def random_inputs(
    batch: int, heads: int, queries: int, tokens: int, head_dim: int, dtype: torch.dtype, device: torch.device, seed=0
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, with scores of a few nats."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, length, head_dim) for length in (queries, tokens, tokens)]
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    return q * 1.5, k, v


def in_float64(options: dict) -> dict:
    return {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in options.items()
    }


def check_self_attention(q: Tensor, k: Tensor, v: Tensor, backend: str, **options) -> Tensor:
    """Runs the op, compares it with float64 and returns its output."""
    out = self_attention(q, k, v, **options, backend=backend)
    exact = reference.self_attention(q.double(), k.double(), v.double(), **in_float64(options))
    assert out.dtype == q.dtype
    assert out.transpose(1, 2).is_contiguous()
    assert_within_budget(out, reference.self_attention(q, k, v, **options), exact, q.dtype)
    return out


def check_cross_attention(
    q: Tensor, k: Tensor, v: Tensor, backend: str, *, return_owner: bool = True, **options
) -> tuple[Tensor, Tensor]:
    """Runs the op, compares everything it returns with float64, and returns its output and owner map.

    The argmax is discontinuous: an owner is right if its affinity is within rounding of the best one's, and
    the outputs are then compared under the op's own owner map. Without return_owner, which a vote must have, the op is
    asked for its output alone: on a GPU that is another kernel.
    """
    share_heads = options.get("share_heads", False)
    votes = options.get("entity_bits") is not None and options.get("owner") is None
    return_affinity = share_heads and votes
    expected = reference.cross_attention(q, k, v, **options, return_owner=True)[1]
    results = cross_attention(
        q, k, v, **options, return_owner=return_owner, return_affinity=return_affinity, backend=backend
    )
    out, owner, *affinity = results if isinstance(results, tuple) else (results, expected)
    assert out.dtype == q.dtype
    assert out.transpose(1, 2).is_contiguous()
    assert owner.dtype == torch.int8
    assert owner.shape == ((q.shape[0], q.shape[2]) if share_heads else q.shape[:3])
    silent = (expected == -1) if votes else torch.ones_like(owner, dtype=torch.bool)
    assert torch.equal(owner[silent], expected[silent])
    if votes:
        _check_owners(q, k, options, owner, silent)
    low, exact = _under_owner_map(q, k, v, options, owner)
    assert_within_budget(out, low, exact, q.dtype)
    if return_affinity:
        low, exact = (
            reference.cross_attention(a, b, b, **o, return_affinity=True)[1]
            for a, b, o in ((q, k, options), (q.double(), k.double(), in_float64(options)))
        )
        assert affinity[0].dtype == torch.float32
        assert_within_budget(affinity[0], low, exact, q.dtype)
    return out, owner


def _check_owners(q: Tensor, k: Tensor, options: dict, owner: Tensor, silent: Tensor) -> None:
    given = options.get("affinity")
    affinity = reference.default_affinity(options["entity_bits"]) if given is None else given
    inputs: dict[str, Any] = {name: options.get(name) for name in ("log_weights", "scale")}
    inputs["share_heads"] = options.get("share_heads", False)
    exact, _ = reference.entity_votes(q.double(), k.double(), affinity.double(), **in_float64(inputs))
    low, _ = reference.entity_votes(q, k, affinity, **inputs)
    best = exact.amax(-1, keepdim=True)
    exact, low = exact / best, low.double() / low.double().amax(-1, keepdim=True)
    rounding = 2 * (low - exact).nan_to_num().abs().max() + torch.finfo(q.dtype).eps
    chosen = exact.gather(-1, owner.reshape(*exact.shape[:-1], 1).clamp(min=0).long())[..., 0]  # [B, 1 or H, M]
    chosen = chosen.reshape(owner.shape)[~silent].nan_to_num(1.0)  # 0 / 0 where nothing votes
    assert (owner[~silent] >= 0).all()
    assert (owner[~silent] < exact.shape[-1]).all()
    assert (chosen >= 1 - rounding).all(), f"an owner's affinity is {chosen.min():.4f} of the best one's"


def _under_owner_map(q: Tensor, k: Tensor, v: Tensor, options: dict, owner: Tensor) -> list[Tensor]:
    """The reference's output in q's dtype and in float64, with the owners that were chosen."""
    options = {name: value for name, value in options.items() if name not in ("affinity", "owner", "share_heads")}
    results = []
    for cast, given in ((lambda x: x, options), (Tensor.double, in_float64(options))):
        if owner.ndim == 2:
            results.append(reference.cross_attention(cast(q), cast(k), cast(v), **given, owner=owner))
            continue
        heads = []
        for h in range(q.shape[1]):
            one = slice(h, h + 1)
            heads.append(
                reference.cross_attention(cast(q[:, one]), cast(k[:, one]), cast(v[:, one]), **given, owner=owner[:, h])
            )
        results.append(torch.cat(heads, dim=1))
    return results
