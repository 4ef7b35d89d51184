"""Self-attention with a temperature against plain attention by everybody else.

    python -m benchmarks.bench_self_attention [--toy] [--minutes 5]

Ours takes the temperature per row from the device. The others have none, so their rows are the fair alternative: the
queries divided by it in a pass of their own, which is counted. `attnmod-...` rows are forms that do not ship, see
`SOFTMAX_OPTIONS` in kernels/configs.py; "skip" says which part of the tiles it passed over, which random inputs
hardly allow: their scores lie within a few nats of each other.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks.forms import self_attention_in, shipped_tiles, skipped_fraction
from attnmod.benchmarks.harness import Row, measure, run_command
from attnmod.benchmarks.peers import flex, installed_peers, sdpa, sdpa_names
from attnmod.benchmarks.shapes import Shape, random_operands, self_points
from attnmod.kernels import reference
from attnmod.kernels.ops import self_attention

_FORMS = {"attnmod-plain": (), "attnmod-lazy": ("lazy_rescale",), "attnmod-polynomial": ("polynomial",)}


def providers(device: torch.device) -> dict[str, Callable[..., Any]]:
    """name -> call(q, k, v, tau), tau a float32 tensor [B] on the device."""

    def on_divided_queries(peer, q, k, v, tau):
        return peer((q / tau[:, None, None, None]).to(q.dtype), k, v)

    calls: dict[str, Callable[..., Any]] = {
        "attnmod-auto": lambda q, k, v, tau: self_attention(q, k, v, temperature=tau)
    }
    if device.type == "cuda":
        calls["attnmod-triton"] = lambda q, k, v, tau: self_attention(q, k, v, temperature=tau, backend="triton")
    for name in sdpa_names():
        calls[name] = functools.partial(on_divided_queries, sdpa(name))
    calls["flex"] = functools.partial(on_divided_queries, lambda q, k, v: flex(q, k, v, q.shape[3] ** -0.5))
    for name, peer in installed_peers().items():
        calls[name] = functools.partial(
            on_divided_queries, lambda q, k, v, peer=peer: peer(q, k, v, q.shape[3] ** -0.5)
        )
    calls["eager"] = lambda q, k, v, tau: self_attention(q, k, v, temperature=tau, backend="eager")
    return calls


def run(toy: bool) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [row for shape, tau in self_points(toy) for row in _one(shape, tau, device, toy)]


def _one(shape: Shape, tau: float, device: torch.device, toy: bool) -> list[Row]:
    operands = random_operands(shape, None, torch.float16, device)
    temperature = torch.full((shape.batch,), tau, device=device)
    exact, low = references(operands[0], temperature)
    calls = providers(device)
    forms = {name: shipped_tiles(operands[0][0], *options) for name, options in _FORMS.items()}
    forms["attnmod-skip"] = shipped_tiles(operands[0][0], "skip")
    rows = []
    for name in [*calls, *(forms if device.type == "cuda" else ())]:
        call = calls.get(name) or calls["attnmod-triton"]
        for cold in (False, True) if device.type == "cuda" else (False,):
            with self_attention_in(forms[name]) if name in forms else contextlib.nullcontext():
                row = measure(
                    f"self tau={tau:g}",
                    name,
                    shape.name,
                    lambda i, call=call: call(*operands[i % len(operands)], temperature),
                    exact,
                    low,
                    cold=cold,
                    budget_ms=5 if toy else 60,
                )
            if name == "attnmod-skip" and row.p50 is not None:
                row.note = f"skipped {skipped_fraction(*operands[0], temperature, forms[name]):.1%} of the tiles"
            rows.append(row)
    return rows


def references(operands: tuple[Tensor, ...], temperature: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """In float64 and in the low dtype, a head of a row at a time: 16,384 patches squared are 2 GB in float64."""
    q, k, v = operands
    if q.shape[2] > 4096:
        return None, None
    exact, low = [], []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            one = (slice(b, b + 1), slice(h, h + 1))
            tau = temperature[b : b + 1]
            exact.append(reference.self_attention(q[one].double(), k[one].double(), v[one].double(), temperature=tau))
            low.append(reference.self_attention(q[one], k[one], v[one], temperature=tau))
    return torch.cat(exact).view(q.shape), torch.cat(low).view(q.shape)


def main(arguments: list[str] | None = None) -> int:
    return run_command("self_attention", run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
