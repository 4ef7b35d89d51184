"""Triton helpers that both kernels use unchanged."""

# Triton's language is not Python's to a type checker.
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

# Known when the kernels are decorated: the same module is either compiled or interpreted, never both.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def load_rows(
    base_ptr,
    offs_row,
    stride_row,
    num_rows,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_ROWS: tl.constexpr,
):
    """Rows of a matrix with contiguous channels, [rows, BLOCK_D]; what lies outside reads as zero."""
    offs_d = tl.arange(0, BLOCK_D)
    ptrs = base_ptr + offs_row.to(tl.int64)[:, None] * stride_row + offs_d[None, :]
    if MASK_ROWS:
        block = tl.load(ptrs, mask=(offs_row < num_rows)[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)
    elif HEAD_DIM == BLOCK_D:
        block = tl.load(ptrs)
    else:
        block = tl.load(ptrs, mask=(offs_d < HEAD_DIM)[None, :], other=0.0)
    return block


@triton.jit
def store_rows(base_ptr, block, offs_row, stride_row, num_rows, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores [rows, BLOCK_D] in the element type of base_ptr; what lies outside is left alone."""
    offs_d = tl.arange(0, BLOCK_D)
    ptrs = base_ptr + offs_row.to(tl.int64)[:, None] * stride_row + offs_d[None, :]
    inside = (offs_row < num_rows)[:, None] & (offs_d < HEAD_DIM)[None, :]
    tl.store(ptrs, block.to(base_ptr.dtype.element_ty), mask=inside)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in float32; an acc of None is zero."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # the interpreter keeps bf16 as integers and would multiply the bit patterns
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)
