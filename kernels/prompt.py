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
from attnmod.kernels.tiles import LOG2_E, dot, dot_channels, load_present_channels, row_base

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
    """log w of some tokens as they were given, -inf where there is none."""
    inside = offs_n < num_tokens
    if HAS_WEIGHTS:
        ptrs = weights_ptr + b * weights_strides[0] + offs_n.to(tl.int64) * weights_strides[1]
        log_weight = tl.load(ptrs, mask=inside, other=float("-inf"))
    else:
        log_weight = tl.where(inside, 0.0, float("-inf"))
    return log_weight


@triton.jit
def is_present(log_weight):
    """NaN, which nobody may have looked for, compares false and counts as absent."""
    return log_weight > float("-inf")


@triton.jit
def in_log2(log_weight, HAS_WEIGHTS: tl.constexpr):
    """log2 w, clamped; -inf for an absent token."""
    weight = log_weight
    if HAS_WEIGHTS:
        clamped = tl.minimum(log_weight, _MAX_LOG_WEIGHT) * LOG2_E
        weight = tl.where(is_present(log_weight), clamped, float("-inf"))
    return weight


@triton.jit
def load_bits(bits_ptr, b, bits_strides, offs_n, num_tokens):
    """The entity bits of some tokens, uint32; all are set beyond the prompt's end."""
    ptrs = bits_ptr + b * bits_strides[0] + offs_n.to(tl.int64) * bits_strides[1]
    return tl.load(ptrs, mask=offs_n < num_tokens, other=-1).to(tl.uint32, bitcast=True)


@triton.jit
def load_log_hidden(hidden_ptr, b, hidden_stride, HAS_HIDDEN_WEIGHT: tl.constexpr):
    """log2 of what a hidden token still counts, within -inf and 0; and whether hiding makes a difference."""
    log_hidden = tl.full([], float("-inf"), tl.float32)
    hides = tl.full([], 1, tl.int1)
    if HAS_HIDDEN_WEIGHT:
        given = tl.load(hidden_ptr + b * hidden_stride).to(tl.float32)
        hides = given != 1.0
        # numbers below float32's smallest normal one are zero to the special-function unit
        small = given < 1e-30
        log_hidden = tl.log2(tl.where(small, given * 1.8446744073709552e19, given)) - tl.where(small, 64.0, 0.0)
        # outside 0 to 1, or NaN, only where nobody has looked
        log_hidden = tl.where(given > 0, tl.minimum(log_hidden, 0.0), float("-inf"))
    return log_hidden, hides


@triton.jit
def first_weight(weights_ptr, b, weights_strides, HAS_WEIGHTS: tl.constexpr):
    """log w of the first token: where that is present, as BOS nearly always is, no other need be waited for."""
    log_weight = tl.full([], 0.0, tl.float32)
    if HAS_WEIGHTS:
        log_weight = tl.load(weights_ptr + b * weights_strides[0])
    return log_weight


@triton.jit
def row_is_present(first, weights_ptr, b, weights_strides, num_tokens, HAS_WEIGHTS: tl.constexpr):
    """Whether a row has any token, given the first one's log w."""
    present = is_present(first)
    if HAS_WEIGHTS:  # noqa: SIM102 - the first is decided at compile time, the second is not
        if not present:
            largest = tl.full([], float("-inf"), tl.float32)
            for start in range(0, num_tokens, 128):
                offs_n = start + tl.arange(0, 128)
                log_weight = load_log_weights(weights_ptr, b, weights_strides, offs_n, num_tokens, HAS_WEIGHTS)
                largest = tl.maximum(largest, tl.max(tl.where(is_present(log_weight), log_weight, float("-inf")), 0))
            present = is_present(largest)
    return present


@triton.jit
def prompt_weights(
    weights_ptr, b, weights_strides, start, num_tokens, TOKEN_TILES: tl.constexpr, HAS_WEIGHTS: tl.constexpr
):
    """log w of the tokens from start, a tuple of [width]; -inf for an absent one."""
    weights = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = start + TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        weights = weights + (load_log_weights(weights_ptr, b, weights_strides, offs_n, num_tokens, HAS_WEIGHTS),)
    return weights


@triton.jit
def prompt_bits(bits_ptr, b, bits_strides, start, num_tokens, TOKEN_TILES: tl.constexpr):
    """The entity bits of the tokens from start, a tuple of [width] uint32."""
    bits = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = start + TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        bits = bits + (load_bits(bits_ptr, b, bits_strides, offs_n, num_tokens),)
    return bits


@triton.jit
def any_entity(bits):
    """Whether any token is not global."""
    found = tl.max((bits[0].to(tl.int32, bitcast=True) != -1).to(tl.int32), 0)
    for i in tl.static_range(1, len(bits)):
        found = tl.maximum(found, tl.max((bits[i].to(tl.int32, bitcast=True) != -1).to(tl.int32), 0))
    return found > 0


@triton.jit
def prompt_columns(weights, bits, HAS_WEIGHTS: tl.constexpr, HAS_ENTITIES: tl.constexpr):
    """log2 w and bits for use beside scores, tuples of [width]."""
    columns = ()
    bit_columns = ()
    for i in tl.static_range(len(weights)):
        column = in_log2(weights[i], HAS_WEIGHTS)
        columns = columns + (computed_once(column) if HAS_WEIGHTS else column,)
        if HAS_ENTITIES:
            once = computed_once(bits[i].to(tl.int32, bitcast=True))
            bit_columns = bit_columns + (once.to(tl.uint32, bitcast=True),)
    return columns, bit_columns


@triton.jit
def prompt_matrix(
    base_ptr,
    weights,
    start,
    stride_n,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
):
    """The keys or values from start of a head: for each tile of tokens, over channels of [width, D].

    An absent token's are zero and not read: whatever they hold, its score is 0 and its value adds nothing.
    """
    rows = ()
    offset = 0
    start_ptr = row_base(base_ptr, start, stride_n)
    for i in tl.static_range(len(weights)):
        offs_n = offset + tl.arange(0, weights[i].shape[0])
        tile = load_present_channels(start_ptr, offs_n, is_present(weights[i]), stride_n, HEAD_DIM, D_TILES)
        rows = rows + (tile,)
        offset += weights[i].shape[0]
    return rows


@triton.jit
def prompt_scores(q, k, PRECISION: tl.constexpr):
    """q kT against the whole prompt, a tuple of [BLOCK_M, width]."""
    scores = ()
    for i in tl.static_range(len(k)):
        scores = scores + (dot_channels(q, k[i], PRECISION),)  # [BLOCK_M, width]
    return scores


@triton.jit
def weighted_values(p, v, acc, rescale, D_TILES: tl.constexpr, PRECISION: tl.constexpr):
    """acc * rescale [BLOCK_M] + sum_n p v[n], a tuple over channels of [BLOCK_M, D]."""
    results = ()
    for c in tl.static_range(len(D_TILES)):
        part = acc[c] * rescale[:, None]
        for i in tl.static_range(len(p)):
            part = dot(p[i].to(v[i][c].dtype), v[i][c], part, PRECISION)
        results = results + (part,)
    return results
