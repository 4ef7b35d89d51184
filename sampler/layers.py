"""The attention layers of a UNet: which there are, which a pattern means, and which can be modulated."""

import fnmatch
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
)

# Processors that ours can stand in for: softmax attention with nothing added, or added by modules that we can call.
MODULABLE_PROCESSORS = (AttnProcessor, AttnProcessor2_0, FusedAttnProcessor2_0, IPAdapterAttnProcessor2_0)


def check_unet(unet: torch.nn.Module) -> None:
    """Raises ValueError where a UNet is of a kind whose attention we do not know."""
    known = "modulate works on UNet2DConditionModel as SDXL, SD 1.5 and SD 2.1 have it"
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(f"the UNet is a {type(unet).__name__}; {known}")
    projected = unet.config["encoder_hid_dim_type"]
    if projected not in (None, "ip_image_proj"):
        raise ValueError(
            f"the UNet has encoder_hid_dim_type {projected!r}: its layers do not read the text"
            f" embeddings themselves; {known}"
        )
    if not find_layers(unet)["cross"]:
        raise ValueError(f"the UNet has no transformer block with cross-attention; {known}")


def find_layers(unet: torch.nn.Module) -> dict[str, dict[str, Attention]]:
    """The attention layers of a UNet's transformer blocks: {"self": {name: layer}, "cross": {name: layer}}."""
    layers: dict[str, dict[str, Attention]] = {"self": {}, "cross": {}}
    for block_name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock):
            for part in ("attn1", "attn2"):
                layer = getattr(block, part)
                if isinstance(layer, Attention):
                    layers["cross" if layer.is_cross_attention else "self"][f"{block_name}.{part}"] = layer
    return layers


def attention_level(unet: torch.nn.Module, name: str) -> int:
    """How often the latents are halved where this layer works."""
    deepest = len(getattr(unet, "down_blocks", ())) - 1
    block, index, *_ = name.split(".")
    return {"down_blocks": int, "up_blocks": lambda i: deepest - int(i)}.get(block, lambda _: deepest)(index)


def attention_levels(unet: torch.nn.Module, patterns: tuple[str, ...] = ("*",)) -> tuple[int, ...]:
    """The levels of the cross-attention layers that match one of the shell patterns, ascending; of all if none does."""
    names = list(find_layers(unet)["cross"])
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    return tuple(sorted({attention_level(unet, name) for name in chosen or names}))


def choose_layers(unet: torch.nn.Module, kind: str, patterns: tuple[str, ...]) -> dict[str, Attention]:
    """Layers of a kind ("self" or "cross") whose whole name matches one of the shell patterns.

    Raises:
        ValueError: there are patterns, and they match nothing.
    """
    layers = find_layers(unet)[kind]
    chosen = {
        name: layer for name, layer in layers.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if patterns and not chosen:
        raise ValueError(
            f"{kind}_attention_layers {list(patterns)} match none of the UNet's {len(layers)} {kind}-attention layers,"
            f" such as {next(iter(layers), 'none')!r}"
        )
    return chosen


def can_be_modulated(processor: Any) -> bool:
    """Whether we know what a layer's processor computes."""
    return type(processor) in MODULABLE_PROCESSORS
