"""Tile sizes by architecture, head dim and shape class. Nothing here has been measured yet.

The entries are chosen by the datasheet (`python -m benchmarks.datasheet`): no spills at head dims 40, 64 and 80, and
then the fewest instructions per score. `MEASURED` names the architectures for which a
tuning run chose the entry; on any other one the `ANY` entry is used.
"""

import functools
from dataclasses import dataclass

import torch

ANY = "any"
MEASURED: frozenset[str] = frozenset()

MAX_HEAD_DIM = 256
_WIDEST_TOKEN_TILE = 128
# See `_self_attention_kernel`. `benchmarks/tune.py` tries them. On sm_90 "overlap" ships, chosen by the datasheet; none
# of the others does before a GPU has shown that it wins.
SOFTMAX_OPTIONS = ("overlap", "lazy_rescale", "polynomial", "skip")


@dataclass(frozen=True)
class Tiles:
    """What one program takes, and how.

    block_m queries; block_n keys of a step (self-attention) or columns of a group (cross-attention in sweeps, 0 for
    any number); blocks_per_program blocks of queries in turn (cross-attention in one piece); the registers of a thread
    beyond which the compiler must not go, 0 for any number; and how self-attention goes about its softmax, any of
    `SOFTMAX_OPTIONS`.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    blocks_per_program: int = 1
    max_registers: int = 0
    options: tuple[str, ...] = ()


# (architecture, padded head dim, shape class) -> tiles of 16-bit inputs. Classes: "long" has at least 2048 queries.
# A tile of 64 rows leaves room for two or three blocks on a processor, whose products and exponentials overlap.
_SELF_ATTENTION = {
    (ANY, 16, "long"): Tiles(64, 128, 4, 2),
    (ANY, 16, "short"): Tiles(64, 64, 4, 2),
    (ANY, 32, "long"): Tiles(64, 128, 4, 2),
    (ANY, 32, "short"): Tiles(64, 64, 4, 2),
    (ANY, 64, "long"): Tiles(64, 128, 4, 2),
    (ANY, 64, "short"): Tiles(64, 128, 4, 2),
    (ANY, 128, "long"): Tiles(64, 64, 4, 2),
    (ANY, 128, "short"): Tiles(64, 64, 4, 2),
    (ANY, 256, "long"): Tiles(64, 32, 4, 2),
    (ANY, 256, "short"): Tiles(64, 32, 4, 2),
    # With asynchronous products: fewer instructions for a score, and at head dim 64 two thirds of the exponentials are
    # issued while products are under way, rather than none.
    ("sm_90", 64, "long"): Tiles(64, 128, 4, 2, options=("overlap",)),
    ("sm_90", 64, "short"): Tiles(64, 128, 4, 2, options=("overlap",)),
    ("sm_90", 128, "long"): Tiles(64, 64, 4, 2, options=("overlap",)),
    ("sm_90", 128, "short"): Tiles(64, 64, 4, 2, options=("overlap",)),
    ("sm_90", 256, "long"): Tiles(64, 32, 4, 2, options=("overlap",)),
    ("sm_90", 256, "short"): Tiles(64, 32, 4, 2, options=("overlap",)),
    ("gfx942", 64, "long"): Tiles(128, 64, 4, 1),
    ("gfx942", 64, "short"): Tiles(64, 64, 4, 1),
    ("gfx942", 128, "long"): Tiles(64, 64, 4, 1),
    ("gfx942", 128, "short"): Tiles(64, 64, 4, 1),
    ("gfx942", 256, "long"): Tiles(64, 32, 4, 1),
    ("gfx942", 256, "short"): Tiles(64, 32, 4, 1),
}
# Forms: "prompt" is up to 80 columns, one CLIP window, in registers; "swept" passes groups of up to 80, for longer
# prompts and for heads that vote together.
_CROSS_ATTENTION = {
    (ANY, 16, "prompt"): Tiles(64, 0, 4, 1, 2),
    (ANY, 16, "swept"): Tiles(64, 0, 4, 1),
    (ANY, 32, "prompt"): Tiles(64, 0, 4, 1, 2),
    (ANY, 32, "swept"): Tiles(64, 0, 4, 1),
    (ANY, 64, "prompt"): Tiles(64, 0, 4, 1, 2),
    (ANY, 64, "swept"): Tiles(64, 0, 4, 1),
    (ANY, 128, "prompt"): Tiles(64, 0, 4, 1, 2),
    (ANY, 128, "swept"): Tiles(64, 0, 4, 1),
    (ANY, 256, "prompt"): Tiles(64, 0, 8, 1, 2),
    (ANY, 256, "swept"): Tiles(64, 0, 8, 1),
    # without wgmma operands of products stay in registers, too: groups of 48 columns, not 80
    ("sm_80", 128, "swept"): Tiles(64, 48, 4, 1),
    ("sm_86", 128, "swept"): Tiles(64, 48, 4, 1),
    ("sm_89", 128, "swept"): Tiles(64, 48, 4, 1),
    ("sm_120", 64, "swept"): Tiles(64, 80, 4, 1),
    ("sm_120", 128, "prompt"): Tiles(64, 0, 4, 1, 1),
    ("sm_120", 128, "swept"): Tiles(64, 48, 4, 1),
    ("sm_100", 64, "swept"): Tiles(64, 0, 8, 1),
    ("sm_100", 128, "swept"): Tiles(64, 0, 8, 1),
    ("sm_103", 64, "swept"): Tiles(64, 0, 8, 1),
    ("sm_103", 128, "swept"): Tiles(64, 0, 8, 1),
}
# On datacentre Blackwell a thread holds a whole row of scores, and with it what belongs to every token: the vote and
# the attention of one piece spill there, in two sweeps they do not. For gfx942 Triton 3.6 cannot translate all of them.
_SWEPT_VOTE = frozenset({"sm_100", "sm_103", "gfx942"})

# Where a tuning run found SDPA (on q over the temperature) faster: (architecture, padded head dim, shape class).
_SDPA_IS_FASTER: frozenset[tuple[str, int, str]] = frozenset()


@functools.cache
def sdpa_is_faster(architecture: str, head_dim: int, queries: int) -> bool:
    """Whether self-attention of this shape was measured to run faster on SDPA there."""
    return (architecture, padded_head_dim(head_dim), _shape_class(queries)) in _SDPA_IS_FASTER


def _shape_class(queries: int) -> str:
    return "long" if queries >= 2048 else "short"


@functools.cache
def self_attention_tiles(architecture: str, head_dim: int, queries: int, element_size: int) -> Tiles:
    """The tiles of one self-attention; float32 takes half as many rows, its operands are twice as wide."""
    return _for_element_size(_find(_SELF_ATTENTION, architecture, head_dim, _shape_class(queries)), element_size)


@functools.cache
def cross_attention_tiles(architecture: str, head_dim: int, form: str, element_size: int) -> Tiles:
    """The tiles of one cross-attention."""
    return _for_element_size(_find(_CROSS_ATTENTION, architecture, head_dim, form), element_size)


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


def aligned(*tensors: torch.Tensor) -> bool:
    """Whether every row of every head begins at a multiple of 8 elements: 16 bytes, in a 16-bit dtype."""
    return all(stride % 8 == 0 for tensor in tensors for stride in tensor.stride()[:3])


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
    return Tiles(
        max(16, tiles.block_m // 2),
        tiles.block_n and max(16, tiles.block_n // 2),
        tiles.num_warps,
        1,
        tiles.blocks_per_program,
    )
