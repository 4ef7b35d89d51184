"""Masked, reweighted cross-attention against plain attention and against the ways to do the same without a kernel.

    python -m benchmarks.bench_cross_attention [--toy] [--minutes 5]

"cross plain" rows compute no mask at all: what SDPA needs for them is what our budget is compared with. `bias` rows are
given a mask that was known beforehand (a given owner map's), and build its bias in every call. `eager` materialises its
maps, votes and masks as other alignment methods do.
"""

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks.harness import Row, Truth, run_command
from attnmod.benchmarks.peers import Provider, eager_with_maps, flex, sdpa_names
from attnmod.benchmarks.shapes import Shape, cross_points, random_operands
from attnmod.kernels import reference
from attnmod.kernels.ops import cross_attention

# What a call computes; the features of `launches.Case` are called alike.
COMPUTED = ("plain", "owner", "vote", "affinity", "shared")


def controls(shape: Shape, tokens: int, entities: int, device: torch.device) -> dict[str, Tensor]:
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


def options_of(computes: str, shape: Shape, tokens: int, entities: int, device: torch.device) -> dict[str, Any]:
    """The arguments of `cross_attention` that make it compute that. A vote is told, as whoever asks for one wants."""
    given: dict[str, Any] = controls(shape, tokens, entities, device)
    affinity = given.pop("affinity")
    owner = torch.zeros(shape.batch, shape.queries, dtype=torch.int8, device=device)
    return {
        "plain": {},
        "owner": given | {"owner": owner},
        "vote": given | {"return_owner": True},
        "affinity": given | {"affinity": affinity, "return_owner": True},
        "shared": given
        | {"affinity": affinity, "share_heads": True, "return_owner": True, "return_affinity": True},
    }[computes]  # fmt: skip


def providers(options: dict[str, dict[str, Any]], device: torch.device) -> list[Provider]:
    """Each is called with (q, k, v). options: of `cross_attention`, by what it then computes."""
    backend = "triton" if device.type == "cuda" else "auto"
    found = [Provider("attnmod", computes, attnmod(options[computes], backend)) for computes in COMPUTED]
    found += [Provider(name, "plain", _plain_sdpa, pinned=name) for name in sdpa_names()]
    found += [
        Provider(f"{name} bias", "owner", functools.partial(_biased_sdpa, options["owner"]), pinned=name)
        for name in sdpa_names()
    ]
    found.append(Provider("flex", "plain", lambda q, k, v: flex(q, k, v, q.shape[3] ** -0.5)))
    found.append(Provider("eager maps", "plain", lambda q, k, v: eager_with_maps(q, k, v, q.shape[3] ** -0.5)[0]))
    found.append(Provider("eager", "vote", attnmod(options["vote"], "eager")))
    return found


def attnmod(options: dict[str, Any], backend: str, op: Callable[..., Any] = cross_attention) -> Callable[..., Tensor]:
    """Ours, of which the output is compared and the rest is paid for."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        results = op(q, k, v, **options, backend=backend)
        return results if isinstance(results, Tensor) else results[0]

    return call


def measure_point(
    shape: Shape,
    tokens: int,
    entities: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float16,
    computing: Collection[str] = COMPUTED,
    names: Collection[str] | None = None,
    colds: tuple[bool, ...] = (False,),
    budget_ms: float = 30.0,
) -> Iterator[Row]:
    """A row for each provider of what is to be computed, or for those named, warm or cold or both."""
    operands = random_operands(shape, tokens, dtype, device)
    options = {computes: options_of(computes, shape, tokens, entities, device) for computes in COMPUTED}

    @functools.cache
    def truth(computes: str, backend: str) -> Truth | None:
        return truth_of(*operands[0], options[computes], backend)

    for provider in providers(options, device):
        if provider.computes not in computing or (names is not None and provider.name not in names):
            continue
        backend = "eager" if provider.name == "eager" else "triton" if device.type == "cuda" else "auto"
        for cold in colds:
            yield provider.measure(
                f"cross {provider.computes}",
                f"{shape.name} T={tokens} G={entities}",
                operands,
                functools.partial(truth, provider.computes, backend if votes(options[provider.computes]) else ""),
                cold=cold,
                flops=4.0 * shape.batch * shape.heads * shape.queries * tokens * shape.head_dim,
                budget_ms=budget_ms,
            )


def votes(options: dict[str, Any]) -> bool:
    return "entity_bits" in options and "owner" not in options


def truth_of(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any], backend: str) -> Truth:
    """After a vote under the owners that this backend finds, since any owner within rounding of the best is right. The
    tests check the vote itself. A head at a time."""
    owner = None
    kept = {name: x for name, x in options.items() if not name.startswith("return_")}
    if votes(options):
        owner = cross_attention(q, k, v, **kept, return_owner=True, backend=backend)[1]
        kept = {name: x for name, x in kept.items() if name not in ("affinity", "share_heads")}
    results = []
    for dtype in (torch.float64, q.dtype):
        cast = {name: x.double() if dtype == torch.float64 and x.is_floating_point() else x for name, x in kept.items()}
        heads = []
        for h in range(q.shape[1]):
            if owner is not None:
                cast["owner"] = owner[:, h] if owner.ndim == 3 else owner
            heads.append(reference.cross_attention(*(x[:, h : h + 1].to(dtype) for x in (q, k, v)), **cast))
        results.append(torch.cat(heads, dim=1))
    exact, low = results
    return Truth.of(exact, low)


def run(toy: bool) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    colds = (False, True) if device.type == "cuda" else (False,)
    points = cross_points(toy)
    return [row for point in points for row in measure_point(*point, device, colds=colds, budget_ms=5 if toy else 30)]


def _plain_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def _biased_sdpa(options: dict[str, Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    log_factors = reference.log_factors(
        k, options["entity_bits"], options["log_weights"], options["hidden_weight"], options["owner"][:, None]
    )
    bias = log_factors.to(q.dtype).expand(-1, q.shape[1], -1, -1)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def main(arguments: list[str] | None = None) -> int:
    return run_command("cross_attention", run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
