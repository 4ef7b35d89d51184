"""Self-attention with a temperature against plain attention by everybody else.

    python -m benchmarks.bench_self_attention [--toy] [--minutes 5]

Ours takes the temperature per row from the device. The others have none, so what they are fairly compared by is
attention to queries divided by it in a pass of their own, which is counted: what our own path through SDPA does.
"self plain" rows are attention without a temperature. `attnmod-...` rows are forms that do not ship, see
`SOFTMAX_OPTIONS` in kernels/tile_table.py; "skip" says which part of the tiles it passed over, which random inputs
hardly allow: their scores lie within a few nats of each other.
"""

import functools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from attnmod.benchmarks.forms import self_attention_in, shipped_tiles, skipped_fraction
from attnmod.benchmarks.harness import Row, Truth, run_command
from attnmod.benchmarks.peers import Provider, flex, installed_peers, sdpa_names
from attnmod.benchmarks.shapes import Shape, random_operands, self_points
from attnmod.kernels import reference, sdpa
from attnmod.kernels.ops import self_attention

TEMPERED, PLAIN = "tempered", "plain"
_FORMS = {
    "attnmod-plain": (),
    "attnmod-lazy": ("lazy_rescale",),
    "attnmod-polynomial": ("polynomial",),
    "attnmod-skip": ("skip",),
}
_LONGEST_WITH_TRUTH = 4096  # 16,384 patches squared are 2 GB a head in float64


def providers(device: torch.device) -> list[Provider]:
    """Each is called with (q, k, v, tau), tau a float32 tensor [B] on the device."""
    backend = "triton" if device.type == "cuda" else "auto"
    found = [
        Provider("attnmod", TEMPERED, lambda q, k, v, tau: self_attention(q, k, v, temperature=tau, backend=backend)),
        Provider("attnmod", PLAIN, lambda q, k, v, tau: self_attention(q, k, v, backend=backend)),
    ]
    for name in sdpa_names():
        found += [
            Provider(name, TEMPERED, lambda q, k, v, tau: _by_sdpa(q, k, v, tau), pinned=name),
            Provider(name, PLAIN, lambda q, k, v, tau: _by_sdpa(q, k, v, None), pinned=name),
        ]
    found.append(Provider("flex", PLAIN, lambda q, k, v, tau: flex(q, k, v, q.shape[3] ** -0.5)))
    for name, peer in installed_peers().items():
        call = functools.partial(lambda peer, q, k, v, tau: peer(q, k, v, q.shape[3] ** -0.5), peer)
        found.append(Provider(name, PLAIN, call))
    found.append(
        Provider("eager", TEMPERED, lambda q, k, v, tau: self_attention(q, k, v, temperature=tau, backend="eager"))
    )
    return found


def forms(q: Tensor) -> list[Provider]:
    """Our kernel by softmaxes that do not ship, with the table's tiles for q; on CUDA only."""
    found = []
    for name, options in _FORMS.items() if q.is_cuda else ():
        tiles = shipped_tiles(q, *options)
        found.append(Provider(name, TEMPERED, functools.partial(self_attention_in, tiles)))
    return found


def measure_point(
    shape: Shape,
    tau: float,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float16,
    computing: Collection[str] = (TEMPERED, PLAIN),
    names: Collection[str] | None = None,
    colds: tuple[bool, ...] = (False,),
    budget_ms: float = 60.0,
) -> Iterator[Row]:
    """A row for each provider of what is to be computed, or for those named, warm or cold or both."""
    operands = random_operands(shape, None, dtype, device)
    temperature = torch.full((shape.batch,), tau, device=device)
    inputs = [(*one, temperature) for one in operands]

    @functools.cache
    def truth(computes: str) -> Truth | None:
        return truth_of(operands[0], temperature if computes == TEMPERED else None)

    for provider in [*providers(device), *forms(operands[0][0])]:
        if provider.computes not in computing or (names is not None and provider.name not in names):
            continue
        for cold in colds:
            op = f"self tau={tau:g}" if provider.computes == TEMPERED else "self plain"
            row = provider.measure(
                op, shape.name, inputs, functools.partial(truth, provider.computes),
                cold=cold, flops=flops(shape), budget_ms=budget_ms,
            )  # fmt: skip
            if provider.name == "attnmod-skip" and row.p50 is not None:
                tiles = shipped_tiles(operands[0][0], "skip")
                row.note = f"skipped {skipped_fraction(*operands[0], temperature, tiles):.1%} of the tiles"
            yield row


def flops(shape: Shape) -> float:
    """Of the two products."""
    return 4.0 * shape.batch * shape.heads * shape.queries**2 * shape.head_dim


def truth_of(operands: tuple[Tensor, ...], temperature: Tensor | None) -> Truth | None:
    """A head of a row at a time, as all heads at once would not fit."""
    q, k, v = operands
    if q.shape[2] > _LONGEST_WITH_TRUTH:
        return None
    exact, low = [], []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            one = (slice(b, b + 1), slice(h, h + 1))
            tau = None if temperature is None else temperature[b : b + 1]
            exact.append(reference.self_attention(q[one].double(), k[one].double(), v[one].double(), temperature=tau))
            low.append(reference.self_attention(q[one], k[one], v[one], temperature=tau))
    return Truth.of(torch.cat(exact).view(q.shape), torch.cat(low).view(q.shape))


def run(toy: bool) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    colds = (False, True) if device.type == "cuda" else (False,)
    rows: list[Row] = []
    met: set[Shape] = set()
    for shape, tau in self_points(toy):
        computing = (TEMPERED,) if shape in met else (TEMPERED, PLAIN)
        rows += measure_point(shape, tau, device, computing=computing, colds=colds, budget_ms=5 if toy else 60)
        met.add(shape)
    return rows


def _by_sdpa(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | None) -> Tensor:
    """Our own path through SDPA, whose backend is pinned around it."""
    return sdpa.self_attention(q, k, v, temperature=temperature, scale=q.shape[3] ** -0.5)


def main(arguments: list[str] | None = None) -> int:
    return run_command("self_attention", run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
