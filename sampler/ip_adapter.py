"""Cross-attention of a UNet with an IP-Adapter: the text is modulated, the pictures are attended to as ever."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

from attnmod.sampler.processor import CrossAttentionProcessor
from attnmod.sampler.state import ModulationState


class IPAdapterCrossAttentionProcessor(CrossAttentionProcessor, IPAdapterAttnProcessor2_0):
    """Stands in for diffusers' IPAdapterAttnProcessor2_0, and is one.

    It has the original's modules and scales themselves, not copies, and as a module takes its place in the layer. So
    `pipe.to`, offloading, state dicts, `set_ip_adapter_scale` and `unload_ip_adapter` do what they do without us.
    """

    original: Any
    to_k_ip: torch.nn.ModuleList
    to_v_ip: torch.nn.ModuleList

    def __init__(self, state: ModulationState | None = None, original: Any = None, name: str = "", level: int = 0):
        torch.nn.Module.__init__(self)
        CrossAttentionProcessor.__init__(self, state, None, name, level)
        if original is not None:
            self.__dict__["original"] = original  # as an attribute it would be registered as a module of ours
            self.to_k_ip, self.to_v_ip = original.to_k_ip, original.to_v_ip

    @property
    def scale(self) -> list:
        """One number for each adapter, or a list of one for each of its masked pictures."""
        return self.original.scale

    @scale.setter
    def scale(self, scale: list) -> None:
        self.original.scale = scale

    @property
    def num_tokens(self) -> list[int]:
        return self.original.num_tokens

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,  # (text, one tensor [B, pictures, tokens, C] for each adapter)
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        scale: float = 1.0,  # diffusers' signature has it, and ignores it
        ip_adapter_masks: Any = None,
    ) -> torch.Tensor:
        if not self.is_active:
            given = {} if ip_adapter_masks is None else {"ip_adapter_masks": ip_adapter_masks}
            return self.original(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **given)
        query = self.split_heads(attn.to_q(hidden_states), attn.heads)
        out = self.attend_to_text(query)
        _, pictures = encoder_hidden_states
        masks = _one_for_each(ip_adapter_masks, len(pictures))
        for states, to_key, to_value, strength, mask in zip(
            pictures, self.to_k_ip, self.to_v_ip, self.scale, masks, strict=True
        ):
            if mask is None:
                if strength != 0:
                    out = out + strength * self._attend_to_picture(query, to_key(states), to_value(states))
                continue
            strengths = strength if isinstance(strength, list) else [strength] * mask.shape[1]
            if not mask.shape[1] == states.shape[1] == len(strengths):
                raise ValueError(
                    f"an IP-Adapter has {states.shape[1]} pictures, {mask.shape[1]} masks and {len(strengths)} scales;"
                    " there must be as many of each"
                )
            for i, one in enumerate(strengths):
                if one != 0:
                    seen = self._attend_to_picture(query, to_key(states[:, i]), to_value(states[:, i]))
                    out = out + one * (seen * _inside(mask[:, i], seen))
        return self.project_out(attn, out)

    def _attend_to_picture(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """query [B, H, M, D]; key and value [B, pictures, tokens, C] or [B, tokens, C] -> [B, H, M, D]."""
        batch, heads = query.shape[:2]
        key, value = (self.split_heads(part.reshape(batch, -1, part.shape[-1]), heads) for part in (key, value))
        return F.scaled_dot_product_attention(query, key, value)


def _one_for_each(masks: Any, adapters: int) -> list[torch.Tensor | None]:
    """The masks of `cross_attention_kwargs`, one tensor [1, pictures, height, width] or None for each adapter."""
    if masks is None:
        return [None] * adapters
    masks = list(masks) if isinstance(masks, list) else list(masks.unsqueeze(1))
    if len(masks) != adapters:
        raise ValueError(f"ip_adapter_masks has {len(masks)} masks; there are {adapters} IP-Adapters")
    return masks


def _inside(mask: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """A mask [1, height, width] at the patches of a layer, for seen [B, H, M, D]: [B, 1, M, D]."""
    batch, _, patches, head_dim = seen.shape
    return IPAdapterMaskProcessor.downsample(mask, batch, patches, head_dim).to(seen)[:, None]
