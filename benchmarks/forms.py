"""Both ops with tiles that do not ship, and how many of its tiles a form of self-attention skips."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnmod.kernels import configs
from attnmod.kernels.configs import Tiles
from attnmod.kernels.cross_attention import launch_cross_attention
from attnmod.kernels.ops import empty_output
from attnmod.kernels.self_attention import launch_self_attention


def self_attention_in(tiles: Tiles, q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | None) -> Tensor:
    """Self-attention by the Triton kernel in these tiles."""
    out = empty_output(q)
    launch_self_attention(q=q, k=k, v=v, temperature=temperature, scale=q.shape[3] ** -0.5, out=out, tiles=tiles)
    return out


def cross_attention_in(tiles: Tiles, options: dict[str, Any], q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """Cross-attention by the Triton kernel in these tiles: the output, and the affinities where options ask for them.

    options are those of `ops.cross_attention` without a vote per head.
    """
    given: dict[str, Any] = dict.fromkeys(("entity_bits", "affinity", "log_weights", "hidden_weight", "owner"))
    given |= {"share_heads": False, "renormalize": True, "scale": q.shape[3] ** -0.5} | options
    returns_affinity = given.pop("return_affinity", False)
    results = [empty_output(q)]
    if returns_affinity:
        results.append(q.new_empty(q.shape[0], q.shape[2], given["affinity"].shape[2], dtype=torch.float32))
    launch_cross_attention(
        q=q,
        k=k,
        v=v,
        **given,
        out=results[0],
        owner_out=None,
        affinity_out=results[1] if returns_affinity else None,
        tiles=tiles,
    )
    return results


def shipped_tiles(q: Tensor, *options: str) -> Tiles:
    """The table's tiles for q, with these softmax options in place of their own."""
    tiles = configs.self_attention_tiles(configs.architecture(q.device), q.shape[3], q.shape[2], q.element_size())
    return replace(tiles, options=options)


def skipped_fraction(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | None, tiles: Tiles) -> float:
    """Which part of all tiles of keys the form with "skip" passes over."""
    batch, heads, queries, head_dim = q.shape
    blocks = -(-queries // tiles.block_m)
    skipped = torch.zeros(batch, heads, blocks, dtype=torch.int32, device=q.device)
    launch_self_attention(
        q=q,
        k=k,
        v=v,
        temperature=temperature,
        scale=head_dim**-0.5,
        out=torch.empty_like(q),
        skipped=skipped,
        tiles=tiles,
    )
    return skipped.sum().item() / (skipped.numel() * -(-k.shape[2] // tiles.block_n))
