"""Which tiles a launch takes, by architecture, head dim and class of shape, and how prompts and channels are cut.

The tiles themselves are data: `tile_table.json`, read by `tile_table.py`. What no measurement chose was chosen by the
datasheet (`python -m benchmarks.datasheet`): no spills at head dims 40, 64 and 80, loads that are on their way before
they are waited for, and then the fewest instructions per score.
"""

import functools
from dataclasses import replace

import torch

from attnmod.kernels.tile_table import SOFTMAX_OPTIONS, Entry, Tiles, table, triton_version

__all__ = ["SOFTMAX_OPTIONS", "Entry", "Tiles"]

ACCELERATOR = "cuda"  # the type of a device whose tensors the Triton kernels take uninterpreted, AMD's too
MAX_HEAD_DIM = 256
_WIDEST_TOKEN_TILE = 128
# On datacentre Blackwell a thread holds a whole row of scores, and with it what belongs to every token: the vote and
# the attention of one piece spill there, in two sweeps they do not. For gfx942 Triton 3.6 cannot translate all of them.
_SWEPT_VOTE = frozenset({"sm_100", "sm_103", "gfx942"})


def generation() -> int:
    """Grows with every change of the table: whoever keeps what was made from tiles keeps this beside it."""
    return table().generation


def self_attention_entry(architecture: str, head_dim: int, queries: int) -> Entry:
    """The table's entry for self-attention of this shape in 16 bits."""
    return table().find("self_attention", architecture, padded_head_dim(head_dim), shape_class(queries))


def self_attention_tiles(architecture: str, head_dim: int, queries: int, element_size: int) -> Tiles:
    """The tiles of one self-attention; float32 takes half as many rows, its operands are twice as wide."""
    return _for_element_size(self_attention_entry(architecture, head_dim, queries).tiles, element_size)


def gluon_tiles(architecture: str, head_dim: int, queries: int) -> Tiles | None:
    """What Hopper's own kernel takes where the table prefers it to Triton's.

    Its barriers rely on what the compiler makes of them, so it is taken with a Triton that it was measured with alone.
    """
    entry = table().entries.get(("self_attention", architecture, head_dim, f"gluon {shape_class(queries)}"))
    return entry.tiles if entry is not None and entry.was_measured_with(triton_version()) else None


def cross_attention_tiles(architecture: str, head_dim: int, form: str, queries: int, element_size: int) -> Tiles:
    """The tiles of one cross-attention."""
    shape = f"{form} {shape_class(queries)}" if form == "prompt" else form
    entry = table().find("cross_attention", architecture, padded_head_dim(head_dim), shape)
    return _for_element_size(entry.tiles, element_size)


def shape_class(queries: int) -> str:
    """ "long" has at least 2048 queries: SDXL's larger attention, and SD 1.5's."""
    return "long" if queries >= 2048 else "short"


@functools.cache
def cross_attention_form(
    architecture: str, head_dim: int, element_size: int, tokens: int, votes: bool, heads_vote_together: bool
) -> str:
    """How a prompt passes: "prompt" in one piece, "swept" in groups, see `swept_attention.py`."""
    computed = sum(width for _, width in token_tiles(tokens))
    if element_size > 2 and head_dim > 64:  # keys and values of one piece do not fit beside each other
        return "swept"
    if heads_vote_together or computed > 80 or (votes and architecture in _SWEPT_VOTE):
        return "swept"
    return "prompt"


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


def sweep_tiles(tokens: int, group: int = 0) -> tuple[tuple[int, int], ...]:
    """The tiles of one group of tokens where a prompt passes in groups: 80 columns or 64, whichever wastes fewer.

    >>> sweep_tiles(77), sweep_tiles(231), sweep_tiles(512), sweep_tiles(231, group=48)
    (((0, 64), (64, 16)), ((0, 64), (64, 16)), ((0, 64),), ((0, 32), (32, 16)))
    """
    if group:
        return token_tiles(min(tokens, group))
    if tokens <= 80:
        return token_tiles(tokens)
    return ((0, 64), (64, 16)) if -(-tokens // 80) * 80 < -(-tokens // 64) * 64 else ((0, 64),)


@functools.cache
def heads_ahead(architecture: str, head_dim: int, element_size: int, tokens: int, width: int) -> bool:
    """Whether a sweep over heads may take the prompt as one group, and copy what belongs to the next heads meanwhile.

    Where two programs on a processor have room for the keys and values of three heads.

    >>> heads_ahead("sm_90", 64, 2, 77, 80), heads_ahead("sm_90", 64, 2, 231, 80), heads_ahead("sm_89", 64, 2, 77, 80)
    (True, False, False)
    """
    fits = tokens <= width and 2 * width * head_dim * element_size <= 20 << 10
    return fits and architecture in ("sm_90", "cpu")


@functools.cache
def channel_tiles(head_dim: int) -> tuple[tuple[int, int], ...]:
    """Covers the channels by (first, width) tiles like `token_tiles`: 80 = 64 + 16 rather than padded to 128.

    >>> channel_tiles(40), channel_tiles(64), channel_tiles(160)
    (((0, 32), (32, 16)), ((0, 64),), ((0, 128), (128, 32)))
    """
    tiles, start = [], 0
    while start < head_dim:
        left = (head_dim - start + 15) // 16 * 16
        width = 1 << (left.bit_length() - 1)
        tiles.append((start, width))
        start += width
    return tuple(tiles)


def temperature_strides(temperature: torch.Tensor | None) -> tuple[int, int]:
    """The strides of a temperature over rows and heads: [B] is [B, H] whose heads share a value."""
    if temperature is None:
        return 0, 0
    return temperature.stride(0), temperature.stride(1) if temperature.ndim == 2 else 0


def aligned(*tensors: torch.Tensor) -> bool:
    """Whether every row of every head begins at a multiple of 8 elements: 16 bytes, in a 16-bit dtype.

    And whether 1024 rows lie within 2^31 elements, so that those of a program are addressed in int32.
    """
    return all(stride % 8 == 0 for tensor in tensors for stride in tensor.stride()[:3]) and all(
        tensor.stride(2) < 1 << 21 for tensor in tensors
    )


@functools.cache
def padded_head_dim(head_dim: int) -> int:
    """The power of two, at least 16, that a block of this head dim takes.

    >>> [padded_head_dim(d) for d in (8, 40, 64, 80, 160)]
    [16, 64, 64, 128, 256]
    """
    return max(16, 1 << (head_dim - 1).bit_length())


@functools.cache
def precision(dtype: torch.dtype, architecture: str) -> str:
    """How float32 operands are multiplied: plain tf32 misses float32's error budget, ieee leaves the tensor cores."""
    return "tf32x3" if dtype == torch.float32 and not architecture.startswith("gfx") else "ieee"


@functools.cache
def architecture(device: torch.device) -> str:
    """'sm_90', 'gfx942', or 'cpu' where kernels are interpreted."""
    if device.type != ACCELERATOR:
        return device.type
    if torch.version.hip is not None:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _for_element_size(tiles: Tiles, element_size: int) -> Tiles:
    if element_size <= 2:
        return tiles
    return replace(
        tiles,
        block_m=max(16, tiles.block_m // 2),
        block_n=tiles.block_n and max(16, tiles.block_n // 2),
        num_stages=1,
        max_registers=0,
        options=(),
    )
