"""Mask and weights applied to a block of scores in registers: f e^s of each token, and its sum.

A prompt is a tuple of tiles (see `prompt.py`). log f is added to the scores, and the maximum is taken over what is
summed: so no weight, no mask and no score, however small or large, takes a sum out of float32's range.
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl


@triton.jit
def present_peak(scores, columns, coefficient):
    """The largest score of the tokens whose column is not -inf, in log2, [BLOCK_M]; -inf where there is none."""
    peak = tl.full([scores[0].shape[0]], float("-inf"), tl.float32)
    for i in tl.static_range(len(scores)):
        present = (columns[i] > float("-inf"))[None, :]
        peak = tl.maximum(peak, tl.max(tl.where(present, scores[i], float("-inf")), 1))
    return peak * coefficient


@triton.jit
def present_sum(scores, columns, coefficient, reference):
    """sum_n e^s over the tokens whose column is not -inf, under a reference, [BLOCK_M]."""
    total = tl.zeros([scores[0].shape[0]], tl.float32)
    for i in tl.static_range(len(scores)):
        present = (columns[i] > float("-inf"))[None, :]
        exponents = tl.where(present, scores[i] * coefficient - reference[:, None], float("-inf"))
        total += tl.sum(tl.exp2(exponents), 1)
    return total


@triton.jit
def given_owner(given, log_hidden):
    """The bit of a given owner, uint32 [BLOCK_M], and what hiding costs its patch: nothing where it is nobody's."""
    # masked to 5 bits, since a shift by more is undefined and nobody may have looked
    owner = tl.full([given.shape[0]], 1, tl.uint32) << (given & 31).to(tl.uint32)
    return owner, tl.where(given < 0, 0.0, log_hidden)


@triton.jit
def log_modulate(scores, coefficient, columns, bits, owner, row_hidden, peak, MASKED: tl.constexpr):
    """s + log f in log2, a tuple of [BLOCK_M, width]; and its maximum, at least peak."""
    exponents = ()
    for i in tl.static_range(len(scores)):
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
def exponentials_and_sum(exponents, reference):
    p = ()
    total = tl.zeros([exponents[0].shape[0]], tl.float32)
    for i in tl.static_range(len(exponents)):
        p_tile = tl.exp2(exponents[i] - reference[:, None])
        p = p + (p_tile,)
        total += tl.sum(p_tile, 1)
    return p, total
