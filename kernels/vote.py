"""Who owns a patch: each token's votes, and the entity that most of a patch's attention goes to.

    a[m, g] = sum_n p[m, n] A[n, g]         owner[m] = argmax_g a[m, g]

The sum over tokens is a matrix product of [BLOCK_M, tokens] with [tokens, G]. An owner is kept as its bit, which is
what visibility is tested with: a token is visible where its entity bits and the owner's bit meet.
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from attnmod.kernels.prompt import computed_once
from attnmod.kernels.tiles import dot

# How far, in log2, the leading token may stand above 1 where the votes' own maximum is 1: float32 ends at 127, and
# so many tokens (2 ** 27) may be summed.
_LARGEST_LEAD = tl.constexpr(100.0)


@triton.jit
def innermost_entity(bits, weight):
    """The entity that a token votes for where no affinity is given: its highest set bit, int32; 32 and more if none.

    All bits set is a global token, which does not vote; nor does an absent one.
    """
    # With the bit below the highest cleared, rounding to float32 cannot carry into the next power of two.
    highest = exponent_of(bits ^ (bits & (bits >> 1)))
    return tl.where((bits != 0) & (bits.to(tl.int32, bitcast=True) != -1) & (weight > float("-inf")), highest, 64)


@triton.jit
def exponent_of(x):
    """floor(log2 x) of a uint32 above 0 whose rounding to float32 stays below the next power of two."""
    return (x.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def load_votes(
    bits,
    weight,
    affinity_ptr,
    b,
    affinity_strides,
    offs_n,
    num_entities,
    BLOCK_G: tl.constexpr,
    HAS_AFFINITY: tl.constexpr,
):
    """How some tokens vote, [BLOCK_G, tokens]: not negative, and zero for an absent token."""
    offs_g = tl.arange(0, BLOCK_G)
    if HAS_AFFINITY:
        ptrs = affinity_ptr + b * affinity_strides[0] + offs_n.to(tl.int64)[None, :] * affinity_strides[1]
        ptrs = ptrs + offs_g.to(tl.int64)[:, None] * affinity_strides[2]
        inside = (weight > float("-inf"))[None, :] & (offs_g < num_entities)[:, None]
        vote = tl.load(ptrs, mask=inside, other=0.0).to(tl.float32)
        # what a checked call cannot hold (negative, NaN, inf) is made harmless
        vote = tl.where(vote > 0, tl.minimum(vote, 1e30), 0.0)
    else:
        vote = tl.where(innermost_entity(bits, weight)[None, :] == offs_g[:, None], 1.0, 0.0)
    return vote


@triton.jit
def prompt_votes(
    bits,
    weights,
    affinity_ptr,
    b,
    affinity_strides,
    start,
    num_entities,
    BLOCK_G: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    HAS_AFFINITY: tl.constexpr,
):
    """The votes of the tokens from start, [BLOCK_G, width]; 0 where one votes, else -inf; and the largest."""
    votes = ()
    voting = ()
    largest = tl.full([], 0.0, tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = start + TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        vote = load_votes(
            bits[i], weights[i], affinity_ptr, b, affinity_strides, offs_n, num_entities, BLOCK_G, HAS_AFFINITY
        )
        votes = votes + (vote,)
        if HAS_AFFINITY:
            strongest = tl.max(vote, 0)
            largest = tl.maximum(largest, tl.max(strongest, 0))
            votes_at_all = strongest > 0
        else:
            votes_at_all = innermost_entity(bits[i], weights[i]) < 32
        voting = voting + (computed_once(tl.where(votes_at_all, 0.0, float("-inf"))),)
    return votes, voting, largest


@triton.jit
def scale_votes(votes, unit, TOKEN_TILES: tl.constexpr, HAS_AFFINITY: tl.constexpr, VOTE_DTYPE: tl.constexpr):
    """Votes in units of the largest: their product is taken in a 16-bit dtype, whose range they need not fit."""
    scaled = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        vote = votes[i] / unit if HAS_AFFINITY else votes[i]
        scaled = scaled + (vote.to(VOTE_DTYPE),)
    return scaled


@triton.jit
def vote_reference(peak, vote_peak):
    """What exponentials are taken under, given the maxima over all tokens and over the voting ones, in log2.

    It is the votes' own maximum: BOS often leads by 10 nats and more, and under its maximum the votes would fall
    below fp16. One exponential then serves the vote and the attention. Of a lead beyond float32's range the
    excess is taken off, so that votes are lost at about 79 nats under the leading token, and nothing overflows.
    Where nothing votes it is the maximum of all: an exponent of 100 has seven bits fewer after its point than one of 0,
    which float32 outputs show.
    """
    return tl.where(vote_peak > float("-inf"), tl.maximum(vote_peak, peak - _LARGEST_LEAD), peak)


@triton.jit
def vote_shares(p, votes, shares, TOKEN_TILES: tl.constexpr, PRECISION: tl.constexpr):
    """shares + sum_n p A[n, g], [BLOCK_M, BLOCK_G]; only of tokens that do not vote may p be above 1."""
    for i in tl.static_range(len(TOKEN_TILES)):
        shares = dot(tl.minimum(p[i], 1.0).to(votes[i].dtype), tl.trans(votes[i]), shares, PRECISION)
    return shares


@triton.jit
def owner_bit(shares, BLOCK_G: tl.constexpr):
    """The bit of the entity with the largest share, the lowest of equals, uint32 [BLOCK_M]."""
    largest = tl.max(shares, 1)
    entity = (tl.full([BLOCK_G], 1, tl.uint32) << (tl.arange(0, BLOCK_G) & 31).to(tl.uint32))[None, :]
    # each bit occurs once, so their sum holds them all
    leaders = tl.sum(tl.where(shares == largest[:, None], entity, 0).to(tl.int32), 1)
    return (leaders & -leaders).to(tl.uint32, bitcast=True)
