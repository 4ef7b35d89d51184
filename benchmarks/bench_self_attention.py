"""Self-attention with a temperature against plain attention by everybody else.

    python -m benchmarks.bench_self_attention [--toy] [--tau 1 0.5]

Ours takes the temperature per row from the device. SDPA has none, so its rows are the fair alternative: the queries
divided by it in a pass of their own, which is counted.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from attnmod.benchmarks.harness import Row, measure, print_rows, save
from attnmod.benchmarks.peers import flex, installed_peers, sdpa, sdpa_names
from attnmod.benchmarks.shapes import random_operands, shapes
from attnmod.kernels import reference
from attnmod.kernels.ops import self_attention


def run(toy: bool, taus: tuple[float, ...] = (1.0, 0.8, 0.5, 0.3), batches: tuple[int, ...] = (2,)) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16
    rows = []
    for shape in shapes(toy, batches):
        operands = random_operands(shape, None, dtype, device)
        for tau in taus:
            temperature = torch.full((shape.batch,), tau, device=device)
            scale = shape.head_dim**-0.5
            exact, low = _references(operands[0], temperature)
            calls: dict[str, Callable[..., Any]] = {
                "attnmod-auto": lambda q, k, v, t=temperature: self_attention(q, k, v, temperature=t)
            }
            if device.type == "cuda":
                calls["attnmod-triton"] = lambda q, k, v, t=temperature: self_attention(
                    q, k, v, temperature=t, backend="triton"
                )
            for name in sdpa_names():
                calls[name] = lambda q, k, v, name=name, t=temperature: sdpa(name)(
                    (q / t[:, None, None, None]).to(q.dtype), k, v
                )
            calls["flex"] = lambda q, k, v, t=temperature, s=scale: flex(
                (q / t[:, None, None, None]).to(q.dtype), k, v, s
            )
            for name, peer in installed_peers().items():
                calls[name] = lambda q, k, v, peer=peer, t=temperature, s=scale: peer(
                    (q / t[:, None, None, None]).to(q.dtype), k, v, s
                )
            calls["eager"] = lambda q, k, v, t=temperature: self_attention(q, k, v, temperature=t, backend="eager")
            for name, call in calls.items():
                for cold in (False, True) if device.type == "cuda" else (False,):
                    rows.append(
                        measure(
                            f"self tau={tau:g}",
                            name,
                            shape.name,
                            lambda i, call=call, operands=operands: call(*operands[i % len(operands)]),
                            exact,
                            low,
                            cold=cold,
                            budget_ms=5 if toy else 60,
                        )
                    )
    return rows


def _references(operands, temperature) -> tuple[torch.Tensor | None, torch.Tensor | None]:
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_self_attention")
    parser.add_argument("--toy", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument("--tau", type=float, nargs="+", default=(1.0, 0.8, 0.5, 0.3))
    parser.add_argument("--batch", type=int, nargs="+", default=(2,))
    options = parser.parse_args(arguments)
    rows = run(options.toy, tuple(options.tau), tuple(options.batch))
    print_rows(rows)
    print(save("self_attention", rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
