"""Self-attention on Hopper, head dim 64: products that are in flight while the exponentials are taken.

    out = softmax(q kT * scale / tau) v

The same online softmax as in `kernels/self_attention.py`, in Gluon, where the program itself says which warps do what
and when a product is waited for (FlashAttention-3, arXiv 2407.08608). One warp loads tiles of keys and values by TMA
into a ring in shared memory. Each consumer, a warpgroup of 64 queries, issues the product of its queries with the next
keys and that of its last exponentials with their values, waits for the first alone, and takes this tile's exponentials
while the second is computed. With turns ("ping_pong") two consumers issue one after the other, so that one computes
products while the other takes exponentials.

The tile that may have keys beyond the last is the first one taken, before the loop: no mask is in it, and a tile
always has a key. What lies beyond an end reads as zero and is not written: the descriptors have the rows of one head
for an axis of their own, so that none reaches into the next.

A barrier's `full` says that a tile has come, its `empty` that every consumer has read it. Waits are for the parity of
a barrier's phase: the ring's turn for `full`, the turn before for `empty`, whose first wait so passes at once.

Two things that ptxas does and that this order avoids (seen with Triton 3.6 and 3.9): it moves a wait for all products
before the exponentials, unless a branch (here a barrier's wait) is between them and the exponentials, in float32, go
through the wait themselves; and it waits after every product where an accumulator stays in flight around the loop.

Shapes: q, out [B, H, M, 64]; k, v [B, H, T, 64]; temperature [B] or [B, H].
"""

# Gluon's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from attnmod.kernels.plan import Launch
from attnmod.kernels.reference import MIN_TEMPERATURE
from attnmod.kernels.tile_table import Tiles

# Triton 3.9's names, 3.6's
_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global

HEAD_DIM = 64
ROWS = 64  # queries of a consumer: the rows of one warpgroup's product
PRODUCER_REGISTERS = 24

_ROWS = gl.constexpr(ROWS)
_D = gl.constexpr(HEAD_DIM)
_PRODUCER_REGISTERS = gl.constexpr(PRODUCER_REGISTERS)
_LOG2_E = gl.constexpr(1.4426950408889634)
_MIN_TEMPERATURE = gl.constexpr(MIN_TEMPERATURE)
# In log2: how far a steady reference is above the first tile's maximum; and the sum that shows that nothing overflowed.
_MARGIN = gl.constexpr(6.0)
_LARGEST_SUM = gl.constexpr(32768.0)


@gluon.jit
def _fetch(descriptor, b, h, first_row, barrier, buffer):
    """Begins a copy of rows of a head into a buffer [rows, D]; the barrier has been told how many bytes come."""
    block = buffer.reshape(descriptor.block_shape)  # [1, rows, 1, D]
    _load(descriptor, [b, first_row, h, 0], barrier, block)


@gluon.jit
def _produce(
    loads,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    STEADY: gl.constexpr,
):
    """The warp that loads: the queries of all consumers, then what these pass over."""
    q_desc, _, _, buffers, barriers, place = loads
    q_buffers, q_full, b, h, first_row = buffers[0], barriers[0], place[0], place[1], place[2]
    mbarrier.expect(q_full, CONSUMERS * _ROWS * _D * 2)
    for c in gl.static_range(CONSUMERS):
        _fetch(q_desc, b, h, first_row + c * _ROWS, q_full, q_buffers.index(c))
    _produce_pass(loads, 0, STAGES, BLOCK_N)
    if STEADY:  # noqa: SIM102 - compiled without it, the branch must not be there
        if _is_decided(barriers, 1):
            _produce_pass(loads, place[3], STAGES, BLOCK_N)


@gluon.jit
def _produce_pass(loads, begun, STAGES: gl.constexpr, BLOCK_N: gl.constexpr):
    """Keys and values, a tile after another from the first, around the end. begun: how many were loaded before."""
    _, k_desc, v_desc, buffers, barriers, place = loads
    _, k_buffers, v_buffers = buffers
    k_full, k_empty, v_full, v_empty = barriers[1], barriers[2], barriers[3], barriers[4]
    b, h, _, steps, first_tile = place
    for i in range(steps):
        stage = (begun + i) % STAGES
        before = (((begun + i) // STAGES) & 1) ^ 1
        tile = first_tile + i
        first_key = (tile - gl.where(tile >= steps, steps, 0)) * BLOCK_N
        mbarrier.wait(k_empty.index(stage), before)
        mbarrier.expect(k_full.index(stage), BLOCK_N * _D * 2)
        _fetch(k_desc, b, h, first_key, k_full.index(stage), k_buffers.index(stage))
        mbarrier.wait(v_empty.index(stage), before)
        mbarrier.expect(v_full.index(stage), BLOCK_N * _D * 2)
        _fetch(v_desc, b, h, first_key, v_full.index(stage), v_buffers.index(stage))


@gluon.jit
def _is_decided(barriers, WARPS: gl.constexpr):
    """Whether any consumer found its steady reference too low, once all have said so."""
    decided, verdicts = barriers[5], barriers[6]
    mbarrier.wait(decided, 0)
    return gl.max(verdicts.load(gl.BlockedLayout([1], [32], [WARPS], [0])), 0) == 1


@gluon.jit
def _consume(
    given,
    ME: gl.constexpr,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    PING_PONG: gl.constexpr,
    STEADY: gl.constexpr,
):
    """64 queries against all keys. ME: this consumer's number."""
    out_desc, buffers, barriers, _, place, _, _ = given
    q_buffer = buffers[0].index(ME)
    dtype: gl.constexpr = q_buffer.dtype
    mbarrier.wait(barriers[0], 0)
    acc, total = _consume_pass(given, 0, 0, ME, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)
    if STEADY:
        decided, verdicts = barriers[5], barriers[6]
        LINE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
        too_low = gl.max(gl.where(total < _LARGEST_SUM, 0, 1), 0)
        verdicts.slice(ME, 1).store(gl.full([1], too_low, gl.int32, LINE))
        mbarrier.arrive(decided, count=1)
        if _is_decided(barriers, 4):
            steps = place[3]
            acc, total = _consume_pass(
                given, steps, steps - 1, ME, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, False
            )
    q_buffer.store((acc * (1.0 / total)[:, None]).to(dtype))  # every product with these queries is done
    fence_async_shared()
    block = q_buffer.reshape(out_desc.block_shape)
    _store(out_desc, [place[0], place[2] + ME * _ROWS, place[1], 0], block)
    tma.store_wait(0)


@gluon.jit
def _sums_by_column(p):
    """What a thread has of each row, in 8 columns: no lane has to ask another."""
    return gl.sum(p.reshape([p.shape[0], p.shape[1] // 8, 8]), 1)


@gluon.jit
def _consume_pass(
    given,
    begun,
    turns_before,
    ME: gl.constexpr,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    PING_PONG: gl.constexpr,
    STEADY: gl.constexpr,
):
    """All keys once. begun: how many tiles were loaded before. The unnormalised output and the sums of its rows."""
    _, buffers, barriers, turns, place, keys_left, coefficient = given
    q_buffers, k_buffers, v_buffers = buffers
    k_full, k_empty, v_full, v_empty = barriers[1], barriers[2], barriers[3], barriers[4]
    steps = place[3]
    q_buffer = q_buffers.index(ME)
    my_turn, next_turn = turns.index(ME), turns.index((ME + 1) % CONSUMERS)
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    OUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, _D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    dtype: gl.constexpr = q_buffer.dtype
    zero = gl.zeros([_ROWS, BLOCK_N], gl.float32, SCORES)
    acc = gl.zeros([_ROWS, _D], gl.float32, OUT)

    stage = begun % STAGES
    mbarrier.wait(k_full.index(stage), (begun // STAGES) & 1)
    product = warpgroup_mma(q_buffer, k_buffers.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=(product,))
    mbarrier.arrive(k_empty.index(stage), count=1)
    if not EVEN_KEYS:
        offs_n = gl.arange(0, BLOCK_N, gl.SliceLayout(0, SCORES))
        scores = gl.where((offs_n < keys_left)[None, :], scores, float("-inf"))
    reference = gl.max(scores, 1) * coefficient
    if STEADY:
        reference = reference + _MARGIN
    p = gl.exp2(scores * coefficient - reference[:, None])
    sums = _sums_by_column(p)
    weights = gl.convert_layout(p.to(dtype), WEIGHTS)
    for i in range(1, steps):
        stage = (begun + i) % STAGES
        last = (begun + i - 1) % STAGES  # of the values that are to be added
        mbarrier.wait(v_full.index(last), ((begun + i - 1) // STAGES) & 1)
        if i == 1:
            mbarrier.wait(k_full.index(stage), ((begun + 1) // STAGES) & 1)
        if PING_PONG:
            mbarrier.wait(my_turn, (turns_before + i - 1 + (1 if ME == 0 else 0)) & 1)
        product = warpgroup_mma(q_buffer, k_buffers.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
        added = warpgroup_mma(weights, v_buffers.index(last), acc, is_async=True)
        if PING_PONG:
            mbarrier.arrive(next_turn, count=1)
        scores = warpgroup_mma_wait(1, deps=(product,))  # [64, BLOCK_N]
        if STEADY:
            p = gl.exp2(scores * coefficient - reference[:, None])
            sums = sums + _sums_by_column(p)
        else:
            mbarrier.arrive(k_empty.index(stage), count=1)
            tile_max = gl.maximum(reference, gl.max(scores, 1) * coefficient)
            p = gl.exp2(scores * coefficient - tile_max[:, None])
            rescale = gl.exp2(reference - tile_max)
            by_row = gl.convert_layout(rescale, gl.SliceLayout(1, sums.type.layout))
            sums = sums * by_row[:, None] + _sums_by_column(p)
            reference = tile_max
        # The branch that keeps the wait for the second product behind the exponentials, see above.
        upcoming = begun + i + 1
        mbarrier.wait(k_full.index(upcoming % STAGES), (upcoming // STAGES) & 1, pred=i + 1 < steps)
        acc, p = warpgroup_mma_wait(0, deps=(added, p))
        if STEADY:
            mbarrier.arrive(k_empty.index(stage), count=1)
        mbarrier.arrive(v_empty.index(last), count=1)
        if not STEADY:
            acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, OUT))[:, None]
        weights = gl.convert_layout(p.to(dtype), WEIGHTS)
    final = begun + steps - 1
    mbarrier.wait(v_full.index(final % STAGES), (final // STAGES) & 1)
    added = warpgroup_mma(weights, v_buffers.index(final % STAGES), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(added,))
    mbarrier.arrive(v_empty.index(final % STAGES), count=1)
    return acc, gl.convert_layout(gl.sum(sums, 1), gl.SliceLayout(1, OUT))


# a kernel for every number of keys, and for every layout of temperatures, is none the faster
@gluon.jit(do_not_specialize=["num_keys", "temperature_strides"])
def _self_attention_kernel(
    q_desc,
    k_desc,
    v_desc,
    temperature_ptr,
    out_desc,
    temperature_strides,
    scale,
    num_keys,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    REGISTERS: gl.constexpr,
    HAS_TEMPERATURE: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    PING_PONG: gl.constexpr,
    STEADY: gl.constexpr,
):
    """One program: 64 * CONSUMERS queries of one row and head against all of its keys.

    Descriptors are of [B, length, H, D]. REGISTERS: of a thread of the consumers but the first, which has what is left.
    """
    coefficient = gl.cast(scale, gl.float32) * _LOG2_E  # under torch.compile a Python float arrives as float64
    h = gl.program_id(1)
    b = gl.program_id(2)
    if HAS_TEMPERATURE:
        tau = gl.load(temperature_ptr + b.to(gl.int64) * temperature_strides[0] + h * temperature_strides[1])
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / gl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = gl.maximum(coefficient, 1e-30)
    first_row = gl.program_id(0) * (_ROWS * CONSUMERS)
    steps = (num_keys + BLOCK_N - 1) // BLOCK_N
    keys_left = num_keys - (steps - 1) * BLOCK_N
    first_tile = steps - 1  # the ragged one: it alone is masked
    if EVEN_KEYS:
        first_tile = gl.minimum((first_row + _ROWS * CONSUMERS // 2) // BLOCK_N, steps - 1)

    dtype: gl.constexpr = q_desc.dtype
    QUERIES: gl.constexpr = gl.NVMMASharedLayout.get_default_for([_ROWS, _D], dtype)
    KEYS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_N, _D], dtype)
    q_buffers = gl.allocate_shared_memory(dtype, [CONSUMERS, _ROWS, _D], QUERIES)
    k_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    v_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    decided = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    verdicts = gl.allocate_shared_memory(gl.int32, [4], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    if STEADY:
        verdicts.store(gl.full([4], 0, gl.int32, gl.BlockedLayout([1], [32], [4], [0])))
        mbarrier.init(decided, count=CONSUMERS)
    mbarrier.init(q_full, count=1)
    for c in gl.static_range(CONSUMERS):
        mbarrier.init(turns.index(c), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=CONSUMERS)
        mbarrier.init(v_empty.index(i), count=CONSUMERS)
    fence_async_shared()

    buffers = (q_buffers, k_buffers, v_buffers)
    barriers = (q_full, k_full, k_empty, v_full, v_empty, decided, verdicts)
    place = (b, h, first_row, steps, first_tile)
    given = (out_desc, buffers, barriers, turns, place, keys_left, coefficient)
    loads = (q_desc, k_desc, v_desc, buffers, barriers, place)
    if CONSUMERS == 1:
        gl.warp_specialize(
            [
                (_consume, (given, 0, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N, STEADY)),
            ],
            [1],
            [_PRODUCER_REGISTERS],
        )
    elif CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (given, 0, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)),
                (_consume, (given, 1, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N, STEADY)),
            ],
            [4, 1],
            [REGISTERS, _PRODUCER_REGISTERS],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (given, 0, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)),
                (_consume, (given, 1, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)),
                (_consume, (given, 2, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, PING_PONG, STEADY)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N, STEADY)),
            ],
            [4, 4, 1],
            [REGISTERS, REGISTERS, _PRODUCER_REGISTERS],
        )


def obstacle(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, device: str) -> str:
    """Why this kernel cannot take these, in a line; "" where it can. device: the architecture's name."""
    if device != "sm_90":
        return f"it is for sm_90, not {device}"
    if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[3] != HEAD_DIM:
        return f"it takes 16-bit floats of head dim {HEAD_DIM}, not {q.dtype} of {q.shape[3]}"
    for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out)):
        if tensor.data_ptr() % 16:
            return f"{name} does not begin at a multiple of 16 bytes"
        if tensor.stride(3) != 1 or any(
            size > 1 and (stride <= 0 or stride % 8)
            for size, stride in zip(tensor.shape[:3], tensor.stride()[:3], strict=True)
        ):
            return f"{name} has strides {tensor.stride()}: a descriptor takes multiples of 16 bytes, none of them 0"
    return ""


def describe_self_attention(
    *,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    temperature: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
    tiles: Tiles,
) -> Launch:
    """The launch of these arguments, which have no `obstacle`."""
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    consumers = tiles.block_m // ROWS
    rows = tiles.block_m if "alone" in tiles.options else ROWS
    if temperature is None:
        temperature_strides = (0, 0)
    else:  # [B] is [B, H] whose heads share a value
        temperature_strides = (temperature.stride(0), temperature.stride(1) if temperature.ndim == 2 else 0)
    arguments = dict(
        q_desc=_descriptor(q, rows),
        k_desc=_descriptor(k, tiles.block_n),
        v_desc=_descriptor(v, tiles.block_n),
        temperature_ptr=temperature,
        out_desc=_descriptor(out, rows),
        temperature_strides=temperature_strides,
        scale=float(scale),
        num_keys=keys,
        STAGES=tiles.num_stages,
        BLOCK_N=tiles.block_n,
        HAS_TEMPERATURE=temperature is not None,
        EVEN_KEYS=keys % tiles.block_n == 0,
        num_warps=4,
        enable_fp_fusion=True,
    )
    grid = (triton.cdiv(queries, tiles.block_m), heads, batch)
    if "alone" in tiles.options:
        from attnmod.kernels.gluon.lone_warpgroup import _self_attention_kernel as lone

        arguments |= dict(
            BLOCK_M=rows,
            STEADY="steady" in tiles.options,
            num_warps=rows // 16,
            maxnreg=tiles.max_registers,
        )
        return Launch(lone, grid, arguments)
    arguments |= dict(
        STEADY="steady" in tiles.options,
        CONSUMERS=consumers,
        REGISTERS=tiles.max_registers,
        PING_PONG="ping_pong" in tiles.options and consumers > 1,
        maxnreg=registers_at_launch(tiles),
    )
    return Launch(_self_attention_kernel, grid, arguments)


def registers_at_launch(tiles: Tiles) -> int:
    """Of a thread, before the warps share them out anew: the producer's warp stands in for a warpgroup.

    >>> registers_at_launch(Tiles(128, 128, 8, 3, max_registers=240, kernel="gluon"))
    168
    """
    consumers = tiles.block_m // ROWS
    shared_out = consumers * tiles.max_registers + PRODUCER_REGISTERS
    return -(-shared_out // (consumers + 1) // 8) * 8


def _descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
    """Blocks of so many rows of a head, of [B, length, H, D]: the order in which a projection has them in memory."""
    turned = tensor.transpose(1, 2)
    # an axis of one may have any stride, also one that a descriptor cannot have
    strides = [stride if size > 1 else HEAD_DIM for size, stride in zip(turned.shape, turned.stride(), strict=True)]
    block = [1, rows, 1, HEAD_DIM]
    dtype = gl.float16 if tensor.dtype == torch.float16 else gl.bfloat16
    layout = gl.NVMMASharedLayout.get_default_for(block, dtype)
    return TensorDescriptor(tensor, list(turned.shape), [*strides[:3], 1], block, layout)
