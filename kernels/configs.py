"""Tile sizes by architecture, head dim and shape class. Nothing here has been measured yet.

The entries are arithmetic: what fits into registers and shared memory on every supported architecture, and
the tile shapes that published kernels use at head dim 64. `MEASURED` names the architectures for which a
tuning run chose the entry; on any other one the `ANY` entry is used.
"""

import functools
from dataclasses import dataclass

import torch

ANY = "any"
MEASURED: frozenset[str] = frozenset()

MAX_HEAD_DIM = 256
MAX_TOKENS = 512  # the prompt is held in registers
_WIDEST_TOKEN_TILE = 128


@dataclass(frozen=True)
class Tiles:
    """block_m queries per program; block_n keys per step (unused where the prompt is one block)."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


# (architecture, padded head dim, shape class) -> tiles of 16-bit inputs. Classes: "long" has at least 2048
# queries; at fewer, 64-row tiles fill the processors more evenly.
_SELF_ATTENTION = {
    (ANY, 16, "long"): Tiles(128, 64, 4, 3),
    (ANY, 16, "short"): Tiles(64, 64, 4, 3),
    (ANY, 32, "long"): Tiles(128, 64, 4, 3),
    (ANY, 32, "short"): Tiles(64, 64, 4, 3),
    (ANY, 64, "long"): Tiles(128, 64, 4, 3),
    (ANY, 64, "short"): Tiles(64, 64, 4, 3),
    (ANY, 128, "long"): Tiles(128, 64, 8, 2),
    (ANY, 128, "short"): Tiles(64, 64, 4, 2),
    (ANY, 256, "long"): Tiles(64, 32, 4, 2),
    (ANY, 256, "short"): Tiles(64, 32, 4, 2),
}
# Classes by the tokens that are computed: "prompt" is one CLIP window (80), "windows" up to 256, "text" up to 512.
_CROSS_ATTENTION = {
    (ANY, 16, "prompt"): Tiles(128, 0, 8, 1),
    (ANY, 16, "windows"): Tiles(64, 0, 8, 1),
    (ANY, 16, "text"): Tiles(16, 0, 8, 1),
    (ANY, 32, "prompt"): Tiles(128, 0, 8, 1),
    (ANY, 32, "windows"): Tiles(64, 0, 8, 1),
    (ANY, 32, "text"): Tiles(16, 0, 8, 1),
    (ANY, 64, "prompt"): Tiles(128, 0, 8, 1),
    (ANY, 64, "windows"): Tiles(64, 0, 8, 1),
    (ANY, 64, "text"): Tiles(16, 0, 8, 1),
    (ANY, 128, "prompt"): Tiles(64, 0, 4, 1),
    (ANY, 128, "windows"): Tiles(64, 0, 8, 1),
    (ANY, 128, "text"): Tiles(16, 0, 8, 1),
    (ANY, 256, "prompt"): Tiles(64, 0, 8, 1),
    (ANY, 256, "windows"): Tiles(32, 0, 8, 1),
    (ANY, 256, "text"): Tiles(16, 0, 8, 1),
}


@functools.cache
def self_attention_tiles(architecture: str, head_dim: int, queries: int, element_size: int) -> Tiles:
    """The tiles of one self-attention; float32 takes half as many rows, its operands are twice as wide."""
    shape_class = "long" if queries >= 2048 else "short"
    return _for_element_size(_find(_SELF_ATTENTION, architecture, head_dim, shape_class), element_size)


@functools.cache
def cross_attention_tiles(architecture: str, head_dim: int, tokens: int, element_size: int) -> Tiles:
    """The tiles of one cross-attention; only block_m, num_warps and num_stages mean something."""
    computed = sum(width for _, width in token_tiles(tokens))
    shape_class = "prompt" if computed <= 128 else "windows" if computed <= 256 else "text"
    return _for_element_size(_find(_CROSS_ATTENTION, architecture, head_dim, shape_class), element_size)


@functools.cache
def token_tiles(tokens: int) -> tuple[tuple[int, int], ...]:
    """Covers a prompt by (first column, width) tiles, widths being powers of two from 16: no column in 16 is wasted.

    >>> token_tiles(77), token_tiles(231)
    (((0, 64), (64, 16)), ((0, 128), (128, 64), (192, 32), (224, 16)))
    """
    tiles, start = [], 0
    while start < tokens:
        left = (tokens - start + 15) // 16 * 16
        width = min(1 << (left.bit_length() - 1), _WIDEST_TOKEN_TILE)
        tiles.append((start, width))
        start += width
    return tuple(tiles)


def padded_head_dim(head_dim: int) -> int:
    """The power of two, at least 16, that a block of this head dim takes.

    >>> [padded_head_dim(d) for d in (8, 40, 64, 80, 160)]
    [16, 64, 64, 128, 256]
    """
    return max(16, 1 << (head_dim - 1).bit_length())


@functools.cache
def precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied: plain tf32 misses float32's error budget, ieee leaves the tensor cores."""
    return "tf32x3" if dtype == torch.float32 and torch.version.hip is None else "ieee"


@functools.cache
def architecture(device: torch.device) -> str:
    """'sm_90', 'gfx942', or 'cpu' where kernels are interpreted."""
    if device.type != "cuda":
        return device.type
    if torch.version.hip is not None:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _find(table: dict[tuple[str, int, str], Tiles], architecture: str, head_dim: int, shape_class: str) -> Tiles:
    padded = padded_head_dim(head_dim)
    return table.get((architecture, padded, shape_class)) or table[ANY, padded, shape_class]


def _for_element_size(tiles: Tiles, element_size: int) -> Tiles:
    if element_size <= 2:
        return tiles
    return Tiles(max(16, tiles.block_m // 2), max(16, tiles.block_n // 2), tiles.num_warps, 1)
