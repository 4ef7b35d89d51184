"""Regions given by hand: one mask per entity says which patches it owns, in place of the vote."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from attnmod.parser.prompt import Prompt


def read_masks(masks: Sequence[Any], prompt: Prompt) -> torch.Tensor:
    """Masks of a prompt's entities as one tensor [G, h, w] float32 in 0 to 1, at the largest of their sizes.

    Args:
        masks: one for each entity, in the order of their ids: a PIL image (white is inside), an array or a tensor
            [h, w] (0 to 1, or bool; 0 to 255 where it holds 8-bit integers), or None for an entity without a region.
        prompt: whose entities they are.

    Raises:
        ValueError: not one mask for each entity; a mask that is no picture, has values outside 0 to 1, or none at all.
    """
    if len(masks) != len(prompt.entities):
        names = ", ".join(repr(entity.text) for entity in prompt.entities) or "none"
        raise ValueError(f"there are {len(masks)} masks for {len(prompt.entities)} entities ({names})")
    read = [None if mask is None else _read(mask, f"mask {i}") for i, mask in enumerate(masks)]
    sizes = [mask.shape for mask in read if mask is not None]
    if not sizes:
        raise ValueError("every mask is None: no entity has a region")
    size = (max(height for height, _ in sizes), max(width for _, width in sizes))
    resized = [
        torch.zeros(size) if mask is None else F.interpolate(mask[None, None], size=size, mode="nearest")[0, 0]
        for mask in read
    ]
    return torch.stack(resized)


def _read(mask: Any, name: str) -> torch.Tensor:
    if hasattr(mask, "convert"):  # a PIL image
        mask = np.asarray(mask.convert("L"))
    tensor = torch.as_tensor(np.array(mask) if not isinstance(mask, torch.Tensor) else mask).detach().cpu()
    if tensor.ndim != 2 or tensor.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be [height, width]")
    values = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name} has values from {values.min().item()} to {values.max().item()}; they must be 0 to 1")
    return values


def owners_at(masks: torch.Tensor, slots: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
    """Who owns each patch of a layer of this size: slots, int8 [h*w]; -1 where no mask covers half of the patch.

    Where masks overlap the entity with the higher id owns the patch: a child lies inside its parent.

    Args:
        masks: [G, h, w] of `read_masks`, by entity id.
        slots: the entity id of each slot, as `RowConditioning.slots` has them.
        size: height and width of the layer.
    """
    covered = F.adaptive_avg_pool2d(masks, size).flatten(1) >= 0.5  # [G, h*w]
    owners = torch.full((size[0] * size[1],), -1, dtype=torch.int8)
    for slot, entity in enumerate(slots):  # ascending ids
        if entity >= 0:
            owners[covered[entity]] = slot
    return owners
