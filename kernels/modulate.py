"""Mask and weights applied to a block of scores in registers: f e^s of each token, and its sum.

A prompt is a tuple of tiles (see `prompt.py`). There are two forms. After a vote the exponentials exist already, so f
multiplies them. Where the owners are known beforehand, or there are none, log f is added to the scores, and the maximum
is taken over what is summed.
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from attnmod.kernels.prompt import computed_once


@triton.jit
def linear_columns(weights, largest_weight, TOKEN_TILES: tl.constexpr):
    """w of every token over the largest, a tuple of [width]: 0 for an absent one."""
    factors = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        factors = factors + (computed_once(tl.exp2(weights[i] - largest_weight)),)
    return factors


@triton.jit
def log_columns(weights, TOKEN_TILES: tl.constexpr):
    columns = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        columns = columns + (computed_once(weights[i]),)
    return columns


@triton.jit
def bit_columns(bits, TOKEN_TILES: tl.constexpr):
    columns = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        once = computed_once(bits[i].to(tl.int32, bitcast=True))
        columns = columns + (once.to(tl.uint32, bitcast=True),)
    return columns


@triton.jit
def score_peaks(scores, voting, coefficient, TOKEN_TILES: tl.constexpr):
    """The largest score over all tokens, and over those whose voting is 0 rather than -inf, in log2, [BLOCK_M] each."""
    peak = tl.max(scores[0], 1)
    vote_peak = tl.max(scores[0] + voting[0][None, :], 1)
    for i in tl.static_range(1, len(TOKEN_TILES)):
        peak = tl.maximum(peak, tl.max(scores[i], 1))
        vote_peak = tl.maximum(vote_peak, tl.max(scores[i] + voting[i][None, :], 1))
    return peak * coefficient, vote_peak * coefficient


@triton.jit
def exponentials(scores, coefficient, reference, TOKEN_TILES: tl.constexpr):
    """e^s under a reference, a tuple of [BLOCK_M, width]."""
    p = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        p = p + (tl.exp2(scores[i] * coefficient - reference[:, None]),)
    return p


@triton.jit
def present_sum(p, factors, TOKEN_TILES: tl.constexpr):
    """sum_n p over the tokens whose factor is not 0, [BLOCK_M]."""
    total = tl.zeros([p[0].shape[0]], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        total += tl.sum(tl.where((factors[i] > 0)[None, :], p[i], 0.0), 1)
    return total


@triton.jit
def log_present_sum(p, columns, TOKEN_TILES: tl.constexpr):
    """sum_n p over the tokens whose log weight is not -inf, [BLOCK_M]."""
    total = tl.zeros([p[0].shape[0]], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        total += tl.sum(tl.where((columns[i] > float("-inf"))[None, :], p[i], 0.0), 1)
    return total


@triton.jit
def modulate(p, factors, bits, owner, hidden_weight, TOKEN_TILES: tl.constexpr):
    """f e^s from e^s, a tuple of [BLOCK_M, width]; and its sum."""
    modulated = ()
    total = tl.zeros([p[0].shape[0]], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        weighted = p[i] * factors[i][None, :]
        visible = (bits[i][None, :] & owner[:, None]) != 0
        f_e_s = tl.where(visible, weighted, weighted * hidden_weight)
        modulated = modulated + (f_e_s,)
        total += tl.sum(f_e_s, 1)
    return modulated, total


@triton.jit
def normalize(f_e_s, total, TOKEN_TILES: tl.constexpr):
    """f e^s over its sum: 16-bit operands of the product with v need not fit anything else. Zeros stay zeros."""
    factor = 1.0 / tl.where(total > 0, total, 1.0)
    normalized = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        normalized = normalized + (f_e_s[i] * factor[:, None],)
    return normalized


@triton.jit
def given_owner(given, log_hidden):
    """The bit of a given owner, uint32 [BLOCK_M], and what hiding costs its patch: nothing where it is nobody's."""
    # masked to 5 bits, since a shift by more is undefined and nobody may have looked
    owner = tl.full([given.shape[0]], 1, tl.uint32) << (given & 31).to(tl.uint32)
    return owner, tl.where(given < 0, 0.0, log_hidden)


@triton.jit
def log_modulate(
    scores, coefficient, columns, bits, owner, row_hidden, peak, TOKEN_TILES: tl.constexpr, MASKED: tl.constexpr
):
    """s + log f in log2, a tuple of [BLOCK_M, width]; and its maximum, at least peak."""
    exponents = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        exponent = scores[i] * coefficient + columns[i][None, :]
        if MASKED:
            visible = (bits[i][None, :] & owner[:, None]) != 0
            exponent = tl.where(visible, exponent, exponent + row_hidden[:, None])
        exponents = exponents + (exponent,)  # [BLOCK_M, width]
        peak = tl.maximum(peak, tl.max(exponent, 1))
    return exponents, peak


@triton.jit
def finite(peak):
    """A maximum as a reference of exponentials: -inf, where there is nothing to sum, would make them NaN."""
    return tl.where(peak > float("-inf"), peak, 0.0)


@triton.jit
def exponentials_and_sum(exponents, reference, TOKEN_TILES: tl.constexpr):
    p = ()
    total = tl.zeros([exponents[0].shape[0]], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        p_tile = tl.exp2(exponents[i] - reference[:, None])
        p = p + (p_tile,)
        total += tl.sum(p_tile, 1)
    return p, total
