"""Triton helpers that both kernels use unchanged."""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

# Known when the kernels are decorated: the same module is either compiled or interpreted, never both.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def row_pointers(base_ptr, offs_row, stride_row, BLOCK_D: tl.constexpr):
    """Pointers to rows with contiguous channels, [rows, BLOCK_D]; offs_row counts from nearby, see `row_stride`."""
    return base_ptr + (offs_row[:, None] * stride_row + tl.arange(0, BLOCK_D)[None, :])


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
    ptrs = row_pointers(base_ptr, offs_row, stride_row, BLOCK_D)
    if MASK_ROWS:
        block = tl.load(ptrs, mask=(offs_row < num_rows)[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)
    elif HEAD_DIM >= BLOCK_D:
        block = tl.load(ptrs)
    else:
        block = tl.load(ptrs, mask=(offs_d < HEAD_DIM)[None, :], other=0.0)
    return block


@triton.jit
def head_base(ptr, b, h, strides, ALIGNED: tl.constexpr):
    """Where a head begins. ALIGNED promises what `configs.aligned` looks for."""
    offset = b * strides[0] + tl.cast(h, tl.int64) * strides[1]
    if ALIGNED:
        offset = tl.multiple_of(offset, 8)
    return ptr + offset


@triton.jit
def row_stride(strides, ALIGNED: tl.constexpr):
    """The stride of rows: int32 where a block of them lies within 2^31 elements, as ALIGNED promises, else int64."""
    if ALIGNED:
        stride = tl.multiple_of(tl.cast(strides[2], tl.int32), 8)
    else:
        stride = tl.cast(strides[2], tl.int64)
    return stride


@triton.jit
def row_base(base_ptr, row, stride_row):
    """Where a row is; in int64, as a tensor may pass 2^31 elements."""
    return base_ptr + tl.cast(row, tl.int64) * stride_row


@triton.jit
def load_channels(
    base_ptr,
    offs_row,
    stride_row,
    num_rows,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    MASK_ROWS: tl.constexpr,
):
    """Rows whose channels are cut into tiles of exact width (80 = 64 + 16): a tuple of [rows, width]."""
    parts = ()
    for c in tl.static_range(len(D_TILES)):
        channels_ptr = base_ptr + D_TILES[c][0]
        part = load_rows(
            channels_ptr, offs_row, stride_row, num_rows, HEAD_DIM - D_TILES[c][0], D_TILES[c][1], MASK_ROWS
        )
        parts = parts + (part,)
    return parts


@triton.jit
def load_present_channels(base_ptr, offs_row, present, stride_row, HEAD_DIM: tl.constexpr, D_TILES: tl.constexpr):
    """As `load_channels`, of the rows that are present; the others read as zero."""
    parts = ()
    for c in tl.static_range(len(D_TILES)):
        offs_d = D_TILES[c][0] + tl.arange(0, D_TILES[c][1])
        ptrs = row_pointers(base_ptr + D_TILES[c][0], offs_row, stride_row, D_TILES[c][1])
        inside = present[:, None] & (offs_d < HEAD_DIM)[None, :]
        parts = parts + (tl.load(ptrs, mask=inside, other=0.0),)
    return parts


@triton.jit
def store_channels(
    base_ptr, parts, factor, offs_row, stride_row, num_rows, HEAD_DIM: tl.constexpr, D_TILES: tl.constexpr
):
    """Stores parts * factor [rows] in the element type of base_ptr; what lies outside is left alone."""
    for c in tl.static_range(len(D_TILES)):
        offs_d = D_TILES[c][0] + tl.arange(0, D_TILES[c][1])
        ptrs = row_pointers(base_ptr + D_TILES[c][0], offs_row, stride_row, D_TILES[c][1])
        inside = (offs_row < num_rows)[:, None] & (offs_d < HEAD_DIM)[None, :]
        tl.store(ptrs, (parts[c] * factor[:, None]).to(base_ptr.dtype.element_ty), mask=inside)


@triton.jit
def zero_channels(BLOCK_M: tl.constexpr, D_TILES: tl.constexpr):
    parts = ()
    for c in tl.static_range(len(D_TILES)):
        parts = parts + (tl.full([BLOCK_M, D_TILES[c][1]], 0.0, tl.float32),)
    return parts


@triton.jit
def dot_channels(q, k, PRECISION: tl.constexpr):
    """q kT over all channels, [BLOCK_M, tokens]."""
    scores = dot(q[0], tl.trans(k[0]), None, PRECISION)
    for c in tl.static_range(1, len(q)):
        scores = dot(q[c], tl.trans(k[c]), scores, PRECISION)
    return scores


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in float32; an acc of None is zero."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # the interpreter keeps bf16 as integers and would multiply the bit patterns
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)
