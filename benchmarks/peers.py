"""Who else computes attention here: PyTorch's backends pinned by name, and packages where they are installed."""

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmod.benchmarks.harness import Row, Truth, measure

_SDPA = {
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-math": SDPBackend.MATH,
}


@dataclass(frozen=True)
class Provider:
    """Somebody who computes something.

    computes says what, so that all who compute the same are held against one truth; pinned is the backend of SDPA that
    is the only one allowed meanwhile: it raises where it cannot run, rather than take another.
    """

    name: str
    computes: str
    call: Callable[..., Any]
    pinned: str = ""

    def measure(
        self, op: str, shape: str, inputs: Sequence[tuple[Any, ...]], truth: Callable[[], Truth | None], **options
    ) -> Row:
        """A row of `harness.measure`. Backends are pinned around it all, so that no call pays for that."""
        with pinned(self.pinned):
            return measure(op, self.name, shape, self.call, inputs, truth, **options)


def pinned(name: str) -> contextlib.AbstractContextManager:
    """Within it SDPA has this backend only; "" leaves the choice to PyTorch."""
    return sdpa_kernel(_SDPA[name]) if name else contextlib.nullcontext()


def sdpa_names() -> list[str]:
    return list(_SDPA)


def eager_with_maps(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What prompt-to-prompt style processors do: softmax in memory, whose maps they then read."""
    maps = torch.softmax(q @ k.transpose(-1, -2) * scale, dim=-1)
    return maps @ v, maps


_FLEX_SHAPES = 64


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Compiled for each shape, of which dynamo would keep no more than eight."""
    if not q.is_cuda:
        raise RuntimeError("FlexAttention is measured on CUDA only")
    with torch._dynamo.config.patch(recompile_limit=_FLEX_SHAPES):
        return _compiled_flex()(q, k, v, scale=scale)


def installed_peers() -> dict[str, Callable[..., Tensor]]:
    """Packages for plain self-attention, by name; one that is not installed is not a row."""
    found = {}
    if importlib.util.find_spec("flash_attn"):
        flash_attn = importlib.import_module("flash_attn")

        def flash(q, k, v, scale):
            swapped = (x.transpose(1, 2) for x in (q, k, v))
            return flash_attn.flash_attn_func(*swapped, softmax_scale=scale).transpose(1, 2)

        found["flash-attn"] = flash
    if importlib.util.find_spec("xformers"):
        xformers = importlib.import_module("xformers.ops")

        def memory_efficient(q, k, v, scale):
            swapped = (x.transpose(1, 2) for x in (q, k, v))
            return xformers.memory_efficient_attention(*swapped, scale=scale).transpose(1, 2)

        found["xformers"] = memory_efficient
    if importlib.util.find_spec("sageattention"):
        sage = importlib.import_module("sageattention")
        found["sageattention"] = lambda q, k, v, scale: sage.sageattn(q, k, v, tensor_layout="HND", sm_scale=scale)
    return found
