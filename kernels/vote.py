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

from attnmod.kernels.prompt import computed_once, is_present
from attnmod.kernels.tiles import dot


@triton.jit
def voting_bits(bits, weights):
    """The bits of the tokens that may vote; 0 for a global token, whose bits are all set, and for an absent one."""
    voting = ()
    for i in tl.static_range(len(bits)):
        may_vote = (bits[i].to(tl.int32, bitcast=True) != -1) & is_present(weights[i])
        voting = voting + (tl.where(may_vote, bits[i], 0),)
    return voting


@triton.jit
def innermost_entity(bits):
    """The entity that a token votes for where no affinity is given: its highest set bit, int32; negative if none."""
    # With the bit below the highest cleared, rounding to float32 cannot carry into the next power of two.
    return exponent_of(bits ^ (bits & (bits >> 1)))


@triton.jit
def exponent_of(x):
    """floor(log2 x) of a uint32 above 0 whose rounding to float32 stays below the next power of two."""
    return (x.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def load_votes(weight, affinity_ptr, b, affinity_strides, offs_n, num_entities, BLOCK_G: tl.constexpr):
    """How some tokens vote by a given affinity, [BLOCK_G, tokens]: not negative, and zero for an absent token."""
    offs_g = tl.arange(0, BLOCK_G)
    ptrs = affinity_ptr + b * affinity_strides[0] + offs_n.to(tl.int64)[None, :] * affinity_strides[1]
    ptrs = ptrs + offs_g.to(tl.int64)[:, None] * affinity_strides[2]
    inside = is_present(weight)[None, :] & (offs_g < num_entities)[:, None]
    vote = tl.load(ptrs, mask=inside, other=0.0).to(tl.float32)
    # what a checked call cannot hold (negative, NaN, inf) is made harmless
    return tl.where(vote > 0, tl.minimum(vote, 1e30), 0.0)


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
    HAS_AFFINITY: tl.constexpr,
):
    """The votes of the tokens from start, a tuple of [BLOCK_G, width]; and the largest of them."""
    votes = ()
    largest = tl.full([], 0.0, tl.float32)
    offset = 0
    for i in tl.static_range(len(weights)):
        if HAS_AFFINITY:
            offs_n = start + offset + tl.arange(0, weights[i].shape[0])
            vote = load_votes(weights[i], affinity_ptr, b, affinity_strides, offs_n, num_entities, BLOCK_G)
            largest = tl.maximum(largest, tl.max(vote))
        else:
            vote = tl.where(innermost_entity(bits[i])[None, :] == tl.arange(0, BLOCK_G)[:, None], 1.0, 0.0)
        votes = votes + (vote,)
        offset += weights[i].shape[0]
    return votes, largest


@triton.jit
def voting_columns(votes, columns, bit_columns, HAS_AFFINITY: tl.constexpr):
    """0 where a token votes, else -inf, a tuple of [width] for use beside scores."""
    voting = ()
    may_vote = voting_bits(bit_columns, columns)
    for i in tl.static_range(len(votes)):
        if HAS_AFFINITY:
            voting = voting + (computed_once(tl.where(tl.max(votes[i], 0) > 0, 0.0, float("-inf"))),)
        else:
            voting = voting + (tl.where(may_vote[i] != 0, 0.0, float("-inf")),)
    return voting


@triton.jit
def scale_votes(votes, unit, HAS_AFFINITY: tl.constexpr, VOTE_DTYPE: tl.constexpr):
    """Votes in units of the largest: their product is taken in a 16-bit dtype, whose range they need not fit."""
    scaled = ()
    for i in tl.static_range(len(votes)):
        vote = votes[i] / unit if HAS_AFFINITY else votes[i]
        scaled = scaled + (vote.to(VOTE_DTYPE),)
    return scaled


@triton.jit
def voting_peak(scores, voting, coefficient):
    """The largest score of the tokens that vote, in log2, [BLOCK_M]; -inf where none does.

    Votes are taken under their own maximum: BOS often leads by 10 nats and more, and under its maximum they would fall
    below fp16. How large the exponentials of the others then are does not matter.
    """
    peak = tl.max(scores[0] + voting[0][None, :], 1)
    for i in tl.static_range(1, len(scores)):
        peak = tl.maximum(peak, tl.max(scores[i] + voting[i][None, :], 1))
    return peak * coefficient


@triton.jit
def vote_shares(scores, coefficient, reference, votes, shares, PRECISION: tl.constexpr):
    """shares + sum_n e^s A[n, g], [BLOCK_M, BLOCK_G]; under the reference only those that do not vote are above 1."""
    for i in tl.static_range(len(scores)):
        p = tl.minimum(tl.exp2(scores[i] * coefficient - reference[:, None]), 1.0)
        shares = dot(p.to(votes[i].dtype), tl.trans(votes[i]), shares, PRECISION)
    return shares


@triton.jit
def owner_bit(shares, BLOCK_G: tl.constexpr):
    """The bit of the entity with the largest share, the lowest of equals, uint32 [BLOCK_M]."""
    largest = tl.max(shares, 1)
    entity = (tl.full([BLOCK_G], 1, tl.uint32) << (tl.arange(0, BLOCK_G) & 31).to(tl.uint32))[None, :]
    # each bit occurs once, so their sum holds them all
    leaders = tl.sum(tl.where(shares == largest[:, None], entity, 0).to(tl.int32), 1)
    return (leaders & -leaders).to(tl.uint32, bitcast=True)
