"""What one step of SDXL's full UNet issues, stock and modulated, counted without a GPU.

    python -m benchmarks.ledger

The UNet lives on the meta device: shapes without numbers. Counted are the operator calls of the second step of a
run (the first one projects the text), the matrix products among them with their operations and the bytes that they
read and write in 16 bits, and the attention calls. Views and other calls that launch nothing are left out.
"""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from attnmod import ModulationConfig, Prompt, align_tokens, modulate
from attnmod.benchmarks.bench_unet import ENTITIES, TEXT, Denoiser
from attnmod.sampler.pickup import MatchedRows

RESULTS = Path(__file__).parent / "results"
BYTES = 2  # a half-precision element
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear")
_ATTENTION = "attention"
# Metadata only: no kernel is launched for these.
_VIEWS = (
    "view",
    "_unsafe_view",
    "reshape",
    "t",
    "transpose",
    "permute",
    "expand",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "detach",
    "alias",
    "as_strided",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "unflatten",
    "lift_fresh",
)


class Ledger(TorchDispatchMode):
    """Counts operator calls; does not look inside attnmod's ops."""

    def __init__(self):
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.split("::")[1]
        if name not in _VIEWS:
            self.calls[_ATTENTION if _ATTENTION in name else name] += 1
        if name in _PRODUCTS:
            self._add_product(args, result)
        return result

    def _add_product(self, args: tuple[Any, ...], result: torch.Tensor) -> None:
        tensors = [value for value in args if isinstance(value, torch.Tensor) and value.ndim > 1]
        inner = tensors[0].shape[-1] if len(tensors) == 2 else tensors[1].shape[-1]
        self.operations += 2 * result.numel() * inner
        self.bytes += BYTES * (sum(tensor.numel() for tensor in tensors) + result.numel())

    def row(self) -> dict[str, float]:
        return {
            "calls": sum(self.calls.values()),
            "attention calls": self.calls[_ATTENTION],
            "matrix products": sum(self.calls[name] for name in _PRODUCTS),
            "products GFLOP": round(self.operations / 1e9, 1),
            "products MB": round(self.bytes / 1e6, 1),
        }


class _FusedAttention(TorchFunctionMode):
    """PyTorch's attention is one call on a GPU; on the meta device it would fall apart into products."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is scaled_dot_product_attention:
            self.ledger.calls[_ATTENTION] += 1
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


def second_step(denoiser: Denoiser) -> Ledger:
    """The calls of the second of two steps."""
    embeddings, ledger = denoiser.embeddings.clone(), Ledger()

    def step(t: float) -> None:
        denoiser.unet(denoiser.sample, t, embeddings, added_cond_kwargs=denoiser.conditions, return_dict=False)

    with torch.no_grad():
        step(900.0)
        with _FusedAttention(ledger), ledger:
            step(500.0)
    return ledger


def modulated_step(denoiser: Denoiser, config: ModulationConfig) -> Ledger:
    prompt = align_tokens(Prompt.from_entities(TEXT, ENTITIES), denoiser.tokenizer)
    with modulate(denoiser, config) as handle:
        # There are no numbers on the meta device to tell the rows by.
        handle._match = lambda embeddings: MatchedRows([None, prompt], [True, False], 0)
        return second_step(denoiser)


def ledgers() -> dict[str, Ledger]:
    denoiser, described = Denoiser("sdxl", "meta", torch.float16), ModulationConfig.preset("described")
    return {
        "stock": second_step(denoiser),
        "neutral": modulated_step(denoiser, ModulationConfig.preset("neutral")),
        "temperature": modulated_step(denoiser, ModulationConfig.preset("temperature")),
        "mask, not balanced": modulated_step(denoiser, dataclasses.replace(described, temperature=1, balanced=False)),
        "everything on": modulated_step(denoiser, ModulationConfig()),
        "everything on, as described": modulated_step(denoiser, described),
    }


def main() -> int:
    rows = {name: ledger.row() for name, ledger in ledgers().items()}
    (RESULTS / "ledger.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    columns = list(rows["stock"])
    print(f"{'one step of SDXL':28}", *(f"{column:>16}" for column in columns))
    for name, row in rows.items():
        print(f"{name:28}", *(f"{row[column]:16,}" for column in columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
