"""Our processors in the layers of a UNet: put in, looked after while other tools come and go, taken out."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0

from attnmod.sampler.ip_adapter import IPAdapterCrossAttentionProcessor
from attnmod.sampler.layers import MODULABLE_PROCESSORS, attention_level, can_be_modulated, find_layers
from attnmod.sampler.processor import CrossAttentionProcessor, ModulatedProcessor, SelfAttentionProcessor
from attnmod.sampler.state import ModulationState

MakeProcessor = Callable[[str, Any], ModulatedProcessor]  # (name of the layer, the layer's own processor) -> ours


def own_processor(processor: Any) -> Any:
    """The processor that a layer has without us: what ours stands in for, or else this one."""
    while isinstance(processor, ModulatedProcessor):
        processor = processor.original
    return processor


def make_processor(
    kind: str, state: ModulationState, unet: torch.nn.Module, name: str, original: Any
) -> ModulatedProcessor:
    """Ours for a layer of a kind ("self" or "cross"), standing in for its own.

    Raises:
        ValueError: what its own processor computes we do not know.
    """
    if not can_be_modulated(original):
        raise ValueError(
            f"layer {name} has the processor {type(original).__name__} of another tool; modulate works on"
            f" {', '.join(known.__name__ for known in MODULABLE_PROCESSORS)}. Remove the other tool first."
        )
    if kind == "self":
        return SelfAttentionProcessor(state, original)
    with_pictures = isinstance(original, IPAdapterAttnProcessor2_0)
    make = IPAdapterCrossAttentionProcessor if with_pictures else CrossAttentionProcessor
    return make(state, original, name, attention_level(unet, name))


class InstalledProcessors:
    """The processors of one handle, one for each layer that it modulates.

    Other tools replace processors while we are there. Loading an IP-Adapter makes all of them anew, by class; fusing
    projections puts plain ones in and may put ours back much later. So no processor is taken for granted: `repair`
    looks at what is in the layers now, and `take_out` leaves none of ours anywhere.
    """

    def __init__(self, unet: torch.nn.Module):
        self.unet = unet
        self._layers: list[tuple[str, Any, MakeProcessor]] = []  # (name, diffusers' Attention, how ours is made)
        self._ours: list[ModulatedProcessor] = []  # in the same order

    def add(self, layers: dict[str, Attention], make: MakeProcessor) -> None:
        """Make processors for layers that are to be modulated; nothing is put in yet."""
        for name, layer in layers.items():
            self._layers.append((name, layer, make))
            self._ours.append(make(name, own_processor(layer.processor)))

    def __iter__(self) -> Iterator[tuple[Any, ModulatedProcessor]]:
        """The layers with our processors."""
        return ((layer, processor) for (_, layer, _), processor in zip(self._layers, self._ours, strict=True))

    def __len__(self) -> int:
        return len(self._layers)

    def put_in(self) -> None:
        for layer, processor in self:
            layer.set_processor(processor)  # assigning an attribute fails where a processor with weights is replaced

    def take_out(self) -> None:
        """Give every layer its own processor back. What another tool has put in stays."""
        stash = getattr(self.unet, "original_attn_processors", None) or {}  # what unfusing projections puts back
        for name, processor in stash.items():
            stash[name] = own_processor(processor)
        for kind in find_layers(self.unet).values():
            for layer in kind.values():
                if isinstance(layer.processor, ModulatedProcessor):
                    layer.set_processor(own_processor(layer.processor))

    def seem_in_place(self) -> bool:
        """Whether ours are in the first, the middle and the last layer: tools replace all, or all of a kind."""
        middle = len(self._layers) // 2
        return all(self._layers[i][1].processor is self._ours[i] for i in (0, middle, -1) if self._layers)

    def repair(self) -> tuple[int, list[str]]:
        """Put ours in again wherever another tool has put in a processor that we know how to stand in for.

        Returns:
            how many layers have ours again, and the names of the classes that stay: we do not know what they compute.
        """
        again, foreign = 0, set()
        for i, (name, layer, make) in enumerate(self._layers):
            if layer.processor is self._ours[i]:
                continue
            own = own_processor(layer.processor)
            if can_be_modulated(own):
                again += 1
                self._ours[i] = make(name, own)
                layer.set_processor(self._ours[i])
            else:
                foreign.add(type(own).__name__)
        return again, sorted(foreign)
