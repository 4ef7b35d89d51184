"""Self-attention with tiles that do not ship: taken for a while, and how many of its tiles a form skips."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor

from attnmod.kernels import configs, self_attention
from attnmod.kernels.configs import Tiles


@contextlib.contextmanager
def self_attention_in(tiles: Tiles) -> Iterator[None]:
    """Within it every self-attention of backend "triton" takes these tiles."""
    with mock.patch.object(self_attention, "self_attention_tiles", return_value=tiles):
        yield


def shipped_tiles(q: Tensor, *options: str) -> Tiles:
    """The table's tiles for q, with these softmax options in place of their own."""
    tiles = configs.self_attention_tiles(configs.architecture(q.device), q.shape[3], q.shape[2], q.element_size())
    return replace(tiles, options=options)


def skipped_fraction(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | None, tiles: Tiles) -> float:
    """Which part of all tiles of keys the form with "skip" passes over."""
    batch, heads, queries, head_dim = q.shape
    blocks = -(-queries // tiles.block_m)
    skipped = torch.zeros(batch, heads, blocks, dtype=torch.int32, device=q.device)
    with self_attention_in(tiles):
        self_attention.launch_self_attention(
            q=q, k=k, v=v, temperature=temperature, scale=head_dim**-0.5, out=torch.empty_like(q), skipped=skipped
        )
    return skipped.sum().item() / (skipped.numel() * -(-k.shape[2] // tiles.block_n))
