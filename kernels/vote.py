"""Who owns a patch: each token's entities and votes, and the entity that most of a patch's attention goes to.

    a[m, g] = sum_n p[m, n] A[n, g]         owner[m] = argmax_g a[m, g]

The whole prompt is at hand, as a tuple of tiles of exact width (see `configs.token_tiles`), and p is a block
of probabilities in registers: the sum over tokens is a matrix product of [BLOCK_M, tokens] with [tokens, G].
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import triton
import triton.language as tl

from attnmod.kernels.tiles import dot


@triton.jit
def token_bits(bits_ptr, b, bits_strides, num_tokens, TOKEN_TILES: tl.constexpr):
    """The entity bits of every token as a tuple of [width] uint32; and whether any token is not global."""
    bits = ()
    any_entity = False
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        ptrs = bits_ptr + b * bits_strides[0] + offs_n.to(tl.int64) * bits_strides[1]
        tile = tl.load(ptrs, mask=offs_n < num_tokens, other=-1)
        bits = bits + (tile.to(tl.uint32, bitcast=True),)
        any_entity = any_entity | (tl.max((tile != -1).to(tl.int32), 0) > 0)
    return bits, any_entity


@triton.jit
def token_votes(
    bits,
    weights,
    affinity_ptr,
    b,
    affinity_strides,
    num_tokens,
    num_entities,
    BLOCK_G: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    HAS_AFFINITY: tl.constexpr,
):
    """How each token votes, a tuple of [width, BLOCK_G] within 0 and 1; whether it does, [width]; and their unit."""
    votes = ()
    voting = ()
    largest = 0.0
    offs_g = tl.arange(0, BLOCK_G)
    for i in tl.static_range(len(TOKEN_TILES)):
        if HAS_AFFINITY:
            offs_n = TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
            ptrs = affinity_ptr + b * affinity_strides[0] + offs_n.to(tl.int64)[:, None] * affinity_strides[1]
            ptrs = ptrs + offs_g.to(tl.int64)[None, :] * affinity_strides[2]
            inside = (offs_n < num_tokens)[:, None] & (offs_g < num_entities)[None, :]
            vote = tl.load(ptrs, mask=inside, other=0.0).to(tl.float32)  # [width, BLOCK_G]
            # what a checked call cannot hold (negative, NaN, inf) is made harmless
            vote = tl.where(vote > 0, tl.minimum(vote, 1e30), 0.0)
            largest = tl.maximum(largest, tl.max(tl.max(vote, 1), 0))
        else:
            # The highest set bit is g exactly where a shift by g leaves 1. All bits set is a global token.
            innermost = (bits[i][:, None] >> offs_g.to(tl.uint32)[None, :]) == 1
            vote = tl.where(innermost & (bits[i] != 0xFFFFFFFF)[:, None], 1.0, 0.0)  # [width, BLOCK_G]
        votes = votes + (vote,)
        voting = voting + ((tl.max(vote, 1) > 0) & (weights[i] > float("-inf")),)
    # The product is taken in a 16-bit dtype, whose range a caller's affinities need not fit.
    if HAS_AFFINITY:
        unit = tl.where(largest > 0, largest, 1.0)
        scaled = ()
        for i in tl.static_range(len(TOKEN_TILES)):
            scaled = scaled + (votes[i] / unit,)
        votes = scaled
    else:
        unit = 1.0
    return votes, voting, unit


@triton.jit
def entity_shares(
    scores,
    votes,
    voting,
    BLOCK_G: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    VOTE_DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sum_n e^(s - peak) A[n, g], [BLOCK_M, BLOCK_G], and the peak: the maximum over the voting tokens.

    BOS often leads by 10 nats and more; under its maximum the votes would fall below fp16.
    """
    peak = tl.full([scores[0].shape[0]], float("-inf"), tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        peak = tl.maximum(peak, tl.max(tl.where(voting[i][None, :], scores[i], float("-inf")), 1))
    peak = tl.where(peak > float("-inf"), peak, 0.0)
    shares = tl.zeros([scores[0].shape[0], BLOCK_G], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        p = tl.where(voting[i][None, :], tl.exp2(scores[i] - peak[:, None]), 0.0)  # [BLOCK_M, width]
        shares = dot(p.to(VOTE_DTYPE), votes[i].to(VOTE_DTYPE), shares, PRECISION)  # [BLOCK_M, BLOCK_G]
    return shares, peak


@triton.jit
def first_largest(shares, num_entities, BLOCK_G: tl.constexpr):
    """argmax over the entities, the lowest of equals, int32 [BLOCK_M]."""
    shares = tl.where((tl.arange(0, BLOCK_G) < num_entities)[None, :], shares, -1.0)
    return tl.argmax(shares, 1, tie_break_left=True).to(tl.int32)
