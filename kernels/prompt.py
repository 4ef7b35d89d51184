"""A row's prompt as one program holds it: its tokens' weights and entities, and scores against all of it.

The prompt is cut into tiles of exact width (77 = 64 + 16, see `configs.token_tiles`), because a power of two would
compute 128 columns; what belongs to the tokens is a tuple with an entry for each tile.
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from attnmod.kernels.reference import MAX_LOG_WEIGHT
from attnmod.kernels.tiles import LOG2_E, dot, dot_channels, load_channels

_MAX_LOG_WEIGHT = tl.constexpr(MAX_LOG_WEIGHT)


@triton.jit
def computed_once(x):
    """x [width], for use beside scores: else every thread would load and compute it again for each of its columns.

    The compiler repeats loads and arithmetic of few elements rather than move them through shared memory, but not
    a reduction.
    """
    return tl.max(x[:, None], 1)


@triton.jit
def load_log_weights(weights_ptr, b, weights_strides, offs_n, num_tokens, HAS_WEIGHTS: tl.constexpr):
    """log2 w of some tokens, -inf where there is none."""
    inside = offs_n < num_tokens
    if HAS_WEIGHTS:
        ptrs = weights_ptr + b * weights_strides[0] + offs_n.to(tl.int64) * weights_strides[1]
        log_weight = tl.load(ptrs, mask=inside, other=float("-inf"))
        # NaN, which nobody may have looked for, compares false and counts as absent
        weight = tl.where(log_weight > float("-inf"), tl.minimum(log_weight, _MAX_LOG_WEIGHT) * LOG2_E, float("-inf"))
    else:
        weight = tl.where(inside, 0.0, float("-inf"))
    return weight


@triton.jit
def load_bits(bits_ptr, b, bits_strides, offs_n, num_tokens):
    """The entity bits of some tokens, uint32; all are set beyond the prompt's end."""
    ptrs = bits_ptr + b * bits_strides[0] + offs_n.to(tl.int64) * bits_strides[1]
    return tl.load(ptrs, mask=offs_n < num_tokens, other=-1).to(tl.uint32, bitcast=True)


@triton.jit
def load_hidden_weight(hidden_ptr, b, hidden_stride, HAS_HIDDEN_WEIGHT: tl.constexpr):
    """What a hidden token still counts, within 0 and 1; and whether that makes a difference."""
    hidden_weight = tl.full([], 0.0, tl.float32)
    hides = True
    if HAS_HIDDEN_WEIGHT:
        given = tl.load(hidden_ptr + b * hidden_stride).to(tl.float32)
        hides = given != 1.0
        # outside 0 to 1, or NaN, only where nobody has looked
        hidden_weight = tl.where(given > 0, tl.minimum(given, 1.0), 0.0)
    return hidden_weight, hides


@triton.jit
def prompt_weights(
    weights_ptr, b, weights_strides, start, num_tokens, TOKEN_TILES: tl.constexpr, HAS_WEIGHTS: tl.constexpr
):
    """log2 w of the tokens from start, a tuple of [width]; their maximum, -inf if none; the first present."""
    weights = ()
    largest = tl.full([], float("-inf"), tl.float32)
    first = num_tokens
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = start + TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        weight = load_log_weights(weights_ptr, b, weights_strides, offs_n, num_tokens, HAS_WEIGHTS)
        weights = weights + (weight,)
        largest = tl.maximum(largest, tl.max(weight, 0))
        first = tl.minimum(first, tl.min(tl.where(weight > float("-inf"), offs_n, num_tokens), 0))
    return weights, largest, first


@triton.jit
def prompt_bits(bits_ptr, b, bits_strides, start, num_tokens, TOKEN_TILES: tl.constexpr):
    """The entity bits of the tokens from start, a tuple of [width] uint32; and whether any token is not global."""
    bits = ()
    any_entity = False
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = start + TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        tile = load_bits(bits_ptr, b, bits_strides, offs_n, num_tokens)
        bits = bits + (tile,)
        any_entity = any_entity | (tl.max((tile.to(tl.int32, bitcast=True) != -1).to(tl.int32), 0) > 0)
    return bits, any_entity


@triton.jit
def prompt_rows(
    base_ptr,
    weight,
    first,
    start,
    stride_n,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
):
    """Keys or values of one tile, over channels of [width, D]; an absent token reads the first present one's.

    So its score is never the largest, and finite where theirs are: no maximum needs a mask, and a factor of zero
    takes it out of every sum.
    """
    offs_n = start + tl.arange(0, weight.shape[0])
    offs_n = tl.where(weight > float("-inf"), offs_n, first)
    return load_channels(base_ptr, offs_n, stride_n, 0, HEAD_DIM, D_TILES, False)


@triton.jit
def prompt_matrix(
    base_ptr,
    weights,
    first,
    start,
    stride_n,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
):
    """The keys or values from start of a head, a tuple of what `prompt_rows` gives."""
    rows = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        tile = prompt_rows(base_ptr, weights[i], first, start + TOKEN_TILES[i][0], stride_n, HEAD_DIM, D_TILES)
        rows = rows + (tile,)
    return rows


@triton.jit
def prompt_scores(q, k, TOKEN_TILES: tl.constexpr, PRECISION: tl.constexpr):
    """q kT against the whole prompt, a tuple of [BLOCK_M, width]."""
    scores = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        scores = scores + (dot_channels(q, k[i], PRECISION),)  # [BLOCK_M, width]
    return scores


@triton.jit
def weighted_values(p, v, acc, rescale, TOKEN_TILES: tl.constexpr, D_TILES: tl.constexpr, PRECISION: tl.constexpr):
    """acc * rescale [BLOCK_M] + sum_n p v[n], a tuple over channels of [BLOCK_M, D]."""
    results = ()
    for c in tl.static_range(len(D_TILES)):
        part = acc[c] * rescale[:, None]
        for i in tl.static_range(len(TOKEN_TILES)):
            part = dot(p[i].to(v[i][c].dtype), v[i][c], part, PRECISION)
        results = results + (part,)
    return results
