"""Who else computes attention here: PyTorch's backends pinned by name, and packages where they are installed."""

import functools
import importlib
import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_SDPA = {
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-math": SDPBackend.MATH,
}


def sdpa(name: str) -> Callable[..., Tensor]:
    """SDPA with its backend pinned: it raises where that backend cannot run, rather than take another."""

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
        with sdpa_kernel(_SDPA[name]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)

    return call


def sdpa_names() -> list[str]:
    return list(_SDPA)


def eager_with_maps(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What prompt-to-prompt style processors do: softmax in memory, whose maps they then read."""
    maps = torch.softmax(q @ k.transpose(-1, -2) * scale, dim=-1)
    return maps @ v, maps


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex(q: Tensor, k: Tensor, v: Tensor, scale: float, score_mod=None) -> Tensor:
    if not q.is_cuda:
        raise RuntimeError("FlexAttention is measured on CUDA only")
    return _compiled_flex()(q, k, v, scale=scale, score_mod=score_mod)


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
