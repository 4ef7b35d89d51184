"""The attention layers of a UNet: which there are, which a pattern means, and which can be modulated."""

import fnmatch

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
)

# Processors whose computation ours replaces: softmax attention, nothing added.
PLAIN_PROCESSORS = (AttnProcessor, AttnProcessor2_0, FusedAttnProcessor2_0)


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


def attention_levels(unet: torch.nn.Module) -> tuple[int, ...]:
    """How often the latents are halved in the blocks that have cross-attention, ascending."""
    deepest = len(getattr(unet, "down_blocks", ())) - 1
    levels = set()
    for name in find_layers(unet)["cross"]:
        block, index, *_ = name.split(".")
        levels.add({"down_blocks": int, "up_blocks": lambda i: deepest - int(i)}.get(block, lambda _: deepest)(index))
    return tuple(sorted(levels))


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


def check_processors(layers: dict[str, Attention]) -> None:
    """Raises ValueError where another tool's processor is in a layer: what it computes we do not know."""
    for name, layer in layers.items():
        if type(layer.processor) not in PLAIN_PROCESSORS:
            raise ValueError(
                f"layer {name} has the processor {type(layer.processor).__name__} of another tool; modulate works on"
                f" {', '.join(plain.__name__ for plain in PLAIN_PROCESSORS)}. Remove the other tool first."
            )
