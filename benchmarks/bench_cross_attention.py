"""Masked, reweighted cross-attention against plain attention and against the ways to do the same without a kernel.

    python -m benchmarks.bench_cross_attention [--toy] [--minutes 5]

`plain-...` rows compute no mask at all: unmodulated attention is what our budget is compared with. `bias-...` rows are
given a mask that was known beforehand (a given owner map's), and build its bias in every call. `eager` materialises
its maps, votes and masks as other alignment methods do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks.harness import Row, measure, out_of_time, run_command
from attnmod.benchmarks.peers import eager_with_maps, flex, sdpa, sdpa_names
from attnmod.benchmarks.shapes import Shape, cross_points, random_operands
from attnmod.kernels import reference
from attnmod.kernels.ops import cross_attention


def controls(shape: Shape, tokens: int, entities: int, device: torch.device) -> dict:
    """One token in four is global; the others belong to the entities in turn. The first row is unconditional."""
    bits = torch.full((shape.batch, tokens), -1, dtype=torch.int64)
    for n in range(tokens):
        if n % 4:
            bits[1 if shape.batch > 1 else 0 :, n] = 1 << (n % entities)
    bits = torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32).to(device)
    affinity = reference.default_affinity(bits)[..., :entities].contiguous()
    weights = torch.linspace(-0.5, 0.5, tokens, device=device).expand(shape.batch, -1).contiguous()
    return {
        "entity_bits": bits,
        "affinity": affinity,
        "log_weights": weights,
        "hidden_weight": torch.full((shape.batch,), 0.1, device=device),
    }


def run(toy: bool) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [row for point in cross_points(toy) for row in _one(*point, device, toy)]


def _one(shape: Shape, tokens: int, entities: int, device: torch.device, toy: bool) -> list[Row]:
    operands = random_operands(shape, tokens, torch.float16, device)
    given = controls(shape, tokens, entities, device)
    scale = shape.head_dim**-0.5
    known = {name: value for name, value in given.items() if name != "affinity"}
    known["owner"] = torch.zeros(shape.batch, shape.queries, dtype=torch.int8, device=device)

    def bias(q):
        log_factors = reference.log_factors(
            operands[0][1], given["entity_bits"], given["log_weights"], given["hidden_weight"], known["owner"][:, None]
        )
        return log_factors.to(q.dtype).expand(-1, q.shape[1], -1, -1)

    # name -> (call, what it computes, the arguments of cross_attention that decide it)
    backend = "triton" if device.type == "cuda" else "auto"
    shared: dict[str, Any] = given | {"share_heads": True}
    calls: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
        "attnmod-known-owner": (lambda q, k, v: cross_attention(q, k, v, **known, backend=backend), "known", known),
        "attnmod-vote": (lambda q, k, v: cross_attention(q, k, v, **given, backend=backend), "vote", given),
        "attnmod-shared": (lambda q, k, v: cross_attention(q, k, v, **shared, backend=backend), "shared", shared),
        "eager-vote": (lambda q, k, v: cross_attention(q, k, v, **given, backend="eager"), "vote", given),
        "eager-plain-maps": (lambda q, k, v: eager_with_maps(q, k, v, scale)[0], "plain", {}),
        "flex-plain": (lambda q, k, v: flex(q, k, v, scale), "plain", {}),
    }
    for name in sdpa_names():
        calls[f"plain-{name}"] = (lambda q, k, v, name=name: sdpa(name)(q, k, v), "plain", {})
        calls[f"bias-{name}"] = (lambda q, k, v, name=name: sdpa(name)(q, k, v, bias(q)), "known", known)
    rows = []
    for name, (call, computes, options) in calls.items():
        exact, low = references(*operands[0], options, "eager" if name.startswith("eager") else backend)
        for cold in (False, True) if device.type == "cuda" else (False,):
            row = measure(
                f"cross {computes}",
                name,
                f"{shape.name} T={tokens} G={entities}",
                lambda i, call=call: call(*operands[i % len(operands)]),
                exact,
                low,
                cold=cold,
                budget_ms=5 if toy else 30,
            )
            rows.append(row)
    return rows


def references(q: Tensor, k: Tensor, v: Tensor, options: dict, backend: str) -> tuple[Tensor | None, Tensor | None]:
    """In float64 and in the low dtype; after a vote under the owners that this backend finds, since any owner within
    rounding of the best is right. The tests check the vote itself."""
    if out_of_time():
        return None, None
    votes = "affinity" in options
    owner = None
    if votes:
        owner = cross_attention(q, k, v, **options, return_owner=True, backend=backend)[1]
        options = {name: x for name, x in options.items() if name not in ("affinity", "share_heads")}
    results = []
    for dtype in (torch.float64, q.dtype):
        cast = {
            name: x.double() if dtype == torch.float64 and x.is_floating_point() else x for name, x in options.items()
        }
        heads = []
        for h in range(q.shape[1]):
            if owner is not None:
                cast["owner"] = owner[:, h] if owner.ndim == 3 else owner
            heads.append(reference.cross_attention(*(x[:, h : h + 1].to(dtype) for x in (q, k, v)), **cast))
        results.append(torch.cat(heads, dim=1))
    return results[0], results[1]


def main(arguments: list[str] | None = None) -> int:
    return run_command("cross_attention", run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
