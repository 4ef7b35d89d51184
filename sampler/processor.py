"""The two attention processors: project, call the modulated op, project back.

A processor stands in for one layer's own processor, which it keeps and calls whenever nothing is modulated: then
the layer computes exactly what it did before. Both can be made without arguments, since diffusers makes
processors anew by class when an IP-Adapter is loaded; such a processor has no state and stays plain.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from attnmod.kernels.ops import trusted_cross_attention, trusted_self_attention
from attnmod.sampler.ownership import AttentionLevel
from attnmod.sampler.state import ModulationState


class ModulatedProcessor:
    """What both have in common: the state, the layer's own processor, and the way in and out of heads."""

    def __init__(self, state: ModulationState | None = None, original=None):
        self.state = state
        self.original = AttnProcessor2_0() if original is None else original

    @staticmethod
    def split_heads(projected: torch.Tensor, heads: int) -> torch.Tensor:
        """[B, N, H*D] -> a view [B, H, N, D]."""
        batch, length, width = projected.shape
        return projected.view(batch, length, heads, width // heads).transpose(1, 2)

    @staticmethod
    def project_out(attn: Any, out: torch.Tensor) -> torch.Tensor:
        """[B, H, M, D] -> [B, M, C], through the layer's output projection and dropout."""
        merged = out.transpose(1, 2).flatten(2)  # a view: the ops lay memory out as [B, M, H, D]
        return attn.to_out[1](attn.to_out[0](merged))


class SelfAttentionProcessor(ModulatedProcessor):
    """Self-attention under the temperature of each row."""

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, whose typed layers may all be None
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        state = self.state
        if state is None or not state.self_attention_active:
            return self.original(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if attn.fused_projections:
            projected = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            projected = (attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states))
        query, key, value = (self.split_heads(part, attn.heads) for part in projected)
        out = trusted_self_attention(
            query, key, value, temperature=state.rows.temperature, backend=state.config.backend
        )
        return self.project_out(attn, out)


class CrossAttentionProcessor(ModulatedProcessor):
    """Cross-attention in which each patch sees the words of its entity, with the weights of this step.

    `text_key` and `text_value`, [R, H, T, D], are this layer's projections of the text. They are set at the start of a
    run and changed in place; while modulation is on, they stand for encoder_hidden_states.
    """

    text_key: torch.Tensor
    text_value: torch.Tensor
    owners: torch.Tensor | None = None  # by this layer's vote in the last call, int8, where maps are wanted

    def __init__(self, state: ModulationState | None = None, original=None, name: str = "", level: int = 0):
        super().__init__(state, original)
        self.name, self.level = name, level
        self.attention = AttentionLevel() if state is None else state.attention[level]

    @property
    def is_active(self) -> bool:
        return self.state is not None and self.state.cross_attention_active

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, whose typed layers may all be None
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not self.is_active:
            return self.original(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        query = self.split_heads(attn.to_q(hidden_states), attn.heads)
        return self.project_out(attn, self.attend_to_text(query))

    def attend_to_text(self, query: torch.Tensor) -> torch.Tensor:
        """Modulated attention of the patches, query [B, H, M, D], to the text; of query's shape."""
        state: Any = self.state
        rows, config = state.rows, state.config
        key, value = self.text_key, self.text_value
        attention = self.attention
        owner = attention.owner
        if owner is not None and owner.shape[1] != query.shape[2]:
            owner = None  # another tool has merged patches: the map does not fit, so the layer votes
        if state.observes:
            attention.query, attention.key = query, key
        affinity = rows.balanced_affinity if state.observes and config.balanced else rows.affinity
        out, *votes = trusted_cross_attention(
            query,
            key,
            value,
            entity_bits=rows.entity_bits,
            affinity=affinity if owner is None else None,
            log_weights=rows.log_weights,
            hidden_weight=rows.hidden_weight,
            owner=owner,
            share_heads=config.share_heads,
            renormalize=config.renormalize,
            return_owner=state.collect_maps and owner is None,
            backend=config.backend,
        )
        if votes:
            self.owners = votes[0]
        return out
