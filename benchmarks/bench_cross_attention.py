"""Masked, reweighted cross-attention against plain attention and against the ways to do the same without a kernel.

    python -m benchmarks.bench_cross_attention [--toy] [--tokens 77] [--entities 4]

`plain-...` rows compute no mask at all: unmodulated attention is what our budget is compared with. `bias-...` rows are
given a mask that was known beforehand (a given owner map's), and build its bias in every call. `eager` materialises
its maps, votes and masks as other alignment methods do.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from attnmod.benchmarks.harness import Row, measure, print_rows, save
from attnmod.benchmarks.peers import eager_with_maps, flex, sdpa, sdpa_names
from attnmod.benchmarks.shapes import Shape, random_operands, shapes
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


def run(toy: bool, tokens: tuple[int, ...], entities: tuple[int, ...], batches: tuple[int, ...] = (2,)) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for shape in shapes(toy, batches):
        for num_tokens in tokens:
            operands = random_operands(shape, num_tokens, torch.float16, device)
            for num_entities in entities:
                rows += _one(shape, num_tokens, num_entities, operands, device, toy)
    return rows


def _one(shape, tokens, entities, operands, device, toy) -> list[Row]:
    given = controls(shape, tokens, entities, device)
    scale = shape.head_dim**-0.5
    known = {name: value for name, value in given.items() if name != "affinity"}
    known["owner"] = torch.zeros(shape.batch, shape.queries, dtype=torch.int8, device=device)

    def bias(q):
        log_factors = reference.log_factors(
            operands[0][1], given["entity_bits"], given["log_weights"], given["hidden_weight"], known["owner"][:, None]
        )
        return log_factors.to(q.dtype).expand(-1, q.shape[1], -1, -1)

    # name -> (call, what it computes)
    calls: dict[str, tuple[Callable[..., Any], str]] = {
        "attnmod-auto": (lambda q, k, v: cross_attention(q, k, v, **known), "known")
    }
    if device.type == "cuda":
        calls["attnmod-known-owner"] = (lambda q, k, v: cross_attention(q, k, v, **known, backend="triton"), "known")
        calls["attnmod-vote"] = (lambda q, k, v: cross_attention(q, k, v, **given, backend="triton"), "voted")
        calls["attnmod-shared"] = (
            lambda q, k, v: cross_attention(q, k, v, **given, share_heads=True, backend="triton"),
            "voted",
        )
    calls["eager-vote"] = (lambda q, k, v: cross_attention(q, k, v, **given, backend="eager"), "voted")
    calls["eager-plain-maps"] = (lambda q, k, v: eager_with_maps(q, k, v, scale)[0], "plain")
    calls["flex-plain"] = (lambda q, k, v: flex(q, k, v, scale), "plain")
    for name in sdpa_names():
        calls[f"plain-{name}"] = (lambda q, k, v, name=name: sdpa(name)(q, k, v), "plain")
        calls[f"bias-{name}"] = (lambda q, k, v, name=name: sdpa(name)(q, k, v, bias(q)), "known")
    q, k, v = operands[0]
    references = {
        "plain": _references(q, k, v, {}),
        "known": _references(q, k, v, known),
        "voted": (None, None),  # an owner within rounding of the best is right: the tests check that
    }
    rows = []
    for name, (call, computes) in calls.items():
        for cold in (False, True) if device.type == "cuda" else (False,):
            row = measure(
                f"cross {computes}",
                name,
                f"{shape.name} T={tokens} G={entities}",
                lambda i, call=call: call(*operands[i % len(operands)]),
                *references[computes],
                cold=cold,
                budget_ms=5 if toy else 30,
            )
            rows.append(row)
    return rows


def _references(q, k, v, options) -> tuple[torch.Tensor, torch.Tensor]:
    exact = reference.cross_attention(
        q.double(),
        k.double(),
        v.double(),
        **{name: x.double() if x.is_floating_point() else x for name, x in options.items()},
    )
    low = reference.cross_attention(q, k, v, **options)
    assert isinstance(exact, torch.Tensor)
    assert isinstance(low, torch.Tensor)
    return exact, low


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_cross_attention")
    parser.add_argument("--toy", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument("--tokens", type=int, nargs="+", default=(16, 77, 154, 231, 512))
    parser.add_argument("--entities", type=int, nargs="+", default=(4,))
    parser.add_argument("--batch", type=int, nargs="+", default=(2,))
    options = parser.parse_args(arguments)
    tokens = (17,) if options.toy else tuple(options.tokens)
    rows = run(options.toy, tokens, tuple(options.entities), tuple(options.batch))
    print_rows(rows)
    print(save("cross_attention", rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
