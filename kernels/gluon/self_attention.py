"""Self-attention on Hopper, head dim 64: products that are in flight while the exponentials are taken.

    out = softmax(q kT * scale / tau) v

The same online softmax as in `kernels/self_attention.py`, in Gluon, where the program itself says which warps do what
and when a product is waited for (FlashAttention-3, arXiv 2407.08608). One warp loads tiles of keys and values by TMA
into a ring in shared memory. Each consumer, a warpgroup of 64 queries, issues the product of its queries with the next
keys and that of its last exponentials with their values, waits for the first alone, and takes this tile's exponentials
while the second is computed.

The tile that may have keys beyond the last is the first one taken, before the loop: no mask is in it, and a tile
always has a key. What lies beyond an end reads as zero and is not written: the descriptors have the rows of one head
for an axis of their own, so that none reaches into the next.

A barrier's `full` says that a tile has come, its `empty` that every consumer has read it. Waits are for the parity of
a barrier's phase: the ring's turn for `full`, the turn before for `empty`, whose first wait so passes at once.

A program takes three blocks of 64 queries of a head, so that these share what is loaded. Blocks that would only half
fill the last round of programs go out by twos and ones (`launch.shares`).

On an H200 (Triton 3.6, fp16, SDXL's 4096 patches) this takes 181 us, and 205 to 211 where every program takes three
blocks; Triton's kernel 194 to 210, cuDNN without a temperature 184 to 192. What lost there: consumers that issue in
turns (222), one or two of them (204 to 213), tiles of 64 keys (214 to 260), three blocks a processor of one warpgroup
each that loads for itself (197 to 202: each reads all keys and values, 71 % of what the second-level cache can give).
At 1024 patches Triton's kernel is ahead (30 against 34 to 41): there a program's beginning and end are a third of its
time, see `persistent.py`.

Two things that ptxas does and that this order avoids (seen with Triton 3.6 and 3.9): it moves a wait for all products
before the exponentials, unless a branch (here a barrier's wait) is between them and the exponentials, in float32, go
through the wait themselves; and it waits after every product where an accumulator stays in flight around the loop.

Shapes: q, out [B, H, M, 64]; k, v [B, H, T, 64]; temperature [B] or [B, H].
"""

# Gluon's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from attnmod.kernels.reference import MIN_TEMPERATURE

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
):
    """The warp that loads: the queries of all consumers, then a tile's keys with the values of the tile before."""
    BYTES: gl.constexpr = BLOCK_N * _D * 2
    q_desc, k_desc, v_desc, buffers, barriers, place = loads
    q_buffers, k_buffers, v_buffers = buffers
    q_full, k_full, v_full, empty = barriers
    b, h, first_row, steps, first_tile, _ = place
    mbarrier.expect(q_full, CONSUMERS * _ROWS * _D * 2)
    for c in gl.static_range(CONSUMERS):
        _fetch(q_desc, b, h, first_row + c * _ROWS, q_full, q_buffers.index(c))
    for i in range(steps + 1):
        stage = i % STAGES
        tile = first_tile + i
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        # the first pair has no values and the last no keys: their barriers turn all the same
        mbarrier.expect(k_full.index(stage), BYTES, pred=i < steps)
        mbarrier.arrive(k_full.index(stage), count=1, pred=i == steps)
        mbarrier.expect(v_full.index(stage), BYTES, pred=i > 0)
        mbarrier.arrive(v_full.index(stage), count=1, pred=i == 0)
        if i < steps:
            first_key = (tile - gl.where(tile >= steps, steps, 0)) * BLOCK_N
            _fetch(k_desc, b, h, first_key, k_full.index(stage), k_buffers.index(stage))
        if i > 0:
            first_key = (tile - 1 - gl.where(tile - 1 >= steps, steps, 0)) * BLOCK_N
            _fetch(v_desc, b, h, first_key, v_full.index(stage), v_buffers.index(stage))


@gluon.jit
def _consume(
    given,
    ME: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
):
    """64 queries against all keys. ME: this consumer's number; those that the program does not need let tiles pass."""
    place = given[3]
    if place[5] > ME:
        _attend(given, ME, STAGES, BLOCK_N, EVEN_KEYS)
    else:
        _let_pass(given, STAGES)


@gluon.jit
def _let_pass(given, STAGES: gl.constexpr):
    """A consumer without queries: the barriers count on it."""
    _, k_full, v_full, empty = given[2]
    for i in range(given[3][3] + 1):
        stage = i % STAGES
        parity = (i // STAGES) & 1
        mbarrier.wait(k_full.index(stage), parity)
        mbarrier.wait(v_full.index(stage), parity)
        mbarrier.arrive(empty.index(stage), count=1)


@gluon.jit
def _attend(given, ME: gl.constexpr, STAGES: gl.constexpr, BLOCK_N: gl.constexpr, EVEN_KEYS: gl.constexpr):
    """A consumer's queries against all keys, to the output. keys_left: how many keys the first tile has."""
    out_desc, buffers, barriers, place, keys_left, coefficient = given
    q_buffers, k_buffers, v_buffers = buffers
    q_full, k_full, v_full, empty = barriers
    b, h, first_row, steps, _, _ = place
    q_buffer = q_buffers.index(ME)
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    OUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, _D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    dtype: gl.constexpr = q_buffer.dtype
    mbarrier.wait(q_full, 0)
    zero = gl.zeros([_ROWS, BLOCK_N], gl.float32, SCORES)
    acc = gl.zeros([_ROWS, _D], gl.float32, OUT)

    mbarrier.wait(k_full.index(0), 0)
    product = warpgroup_mma(q_buffer, k_buffers.index(0).permute((1, 0)), zero, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=(product,))
    mbarrier.arrive(empty.index(0), count=1)
    if not EVEN_KEYS:
        offs_n = gl.arange(0, BLOCK_N, gl.SliceLayout(0, SCORES))
        scores = gl.where((offs_n < keys_left)[None, :], scores, float("-inf"))
    running_max = gl.max(scores, 1) * coefficient
    p = gl.exp2(scores * coefficient - running_max[:, None])
    sums = _sums_by_column(p)
    weights = gl.convert_layout(p.to(dtype), WEIGHTS)
    for i in range(1, steps):
        stage = i % STAGES
        parity = (i // STAGES) & 1
        mbarrier.wait(v_full.index(stage), parity)
        if i == 1:
            mbarrier.wait(k_full.index(stage), parity)
        product = warpgroup_mma(q_buffer, k_buffers.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
        added = warpgroup_mma(weights, v_buffers.index(stage), acc, is_async=True)
        scores = warpgroup_mma_wait(1, deps=(product,))  # [64, BLOCK_N]
        tile_max = gl.maximum(running_max, gl.max(scores, 1) * coefficient)
        p = gl.exp2(scores * coefficient - tile_max[:, None])
        rescale = gl.exp2(running_max - tile_max)
        by_row = gl.convert_layout(rescale, gl.SliceLayout(1, sums.type.layout))
        sums = sums * by_row[:, None] + _sums_by_column(p)
        running_max = tile_max
        # The branch that keeps the wait for the second product behind the exponentials, see above.
        upcoming = i + 1
        mbarrier.wait(k_full.index(upcoming % STAGES), (upcoming // STAGES) & 1, pred=upcoming < steps)
        acc, p = warpgroup_mma_wait(0, deps=(added, p))
        mbarrier.arrive(empty.index(stage), count=1)
        acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, OUT))[:, None]
        weights = gl.convert_layout(p.to(dtype), WEIGHTS)
    stage = steps % STAGES
    mbarrier.wait(v_full.index(stage), (steps // STAGES) & 1)
    added = warpgroup_mma(weights, v_buffers.index(stage), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(added,))
    mbarrier.arrive(empty.index(stage), count=1)
    total = gl.convert_layout(gl.sum(sums, 1), gl.SliceLayout(1, OUT))
    q_buffer.store((acc * (1.0 / total)[:, None]).to(dtype))  # every product with these queries is done
    fence_async_shared()
    block = q_buffer.reshape(out_desc.block_shape)
    _store(out_desc, [b, first_row + ME * _ROWS, h, 0], block)
    tma.store_wait(0)


@gluon.jit
def _sums_by_column(p):
    """What a thread has of each row, in 8 columns: no lane has to ask another."""
    return gl.sum(p.reshape([p.shape[0], p.shape[1] // 8, 8]), 1)


# a kernel for every number of keys, and for every layout of temperatures, is none the faster
@gluon.jit(do_not_specialize=["num_keys", "temperature_strides", "heads", "threes", "twos", "ones"])
def _self_attention_kernel(
    q_desc,
    k_desc,
    v_desc,
    temperature_ptr,
    out_desc,
    temperature_strides,
    scale,
    num_keys,
    heads,
    threes,
    twos,
    ones,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    REGISTERS: gl.constexpr,
    HAS_TEMPERATURE: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
):
    """One program: up to 64 * CONSUMERS queries of one row and head against all of its keys.

    Of every head's blocks of 64 queries so many programs take three each, so many two, and so many one; those that take
    three come first. Descriptors are of [B, length, H, D]. REGISTERS: of a thread of the consumers but the first, which
    has what is left.
    """
    coefficient = gl.cast(scale, gl.float32) * _LOG2_E  # under torch.compile a Python float arrives as float64
    program = gl.program_id(0)
    groups = gl.num_programs(0) // (threes + twos + ones)  # heads of all rows
    size = 3
    each = threes
    first_block = 0
    if program >= groups * threes:
        program -= groups * threes
        size = 2
        each = twos
        first_block = 3 * threes
        if program >= groups * twos:
            program -= groups * twos
            size = 1
            each = ones
            first_block += 2 * twos
    group = program // each
    h = group % heads
    b = group // heads
    first_row = (first_block + size * (program % each)) * _ROWS
    if HAS_TEMPERATURE:
        tau = gl.load(temperature_ptr + b.to(gl.int64) * temperature_strides[0] + h * temperature_strides[1])
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / gl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = gl.maximum(coefficient, 1e-30)
    steps = (num_keys + BLOCK_N - 1) // BLOCK_N
    keys_left = num_keys - (steps - 1) * BLOCK_N
    first_tile = steps - 1  # the ragged one: it alone is masked
    if EVEN_KEYS:
        first_tile = gl.minimum((first_row + size * (_ROWS // 2)) // BLOCK_N, steps - 1)

    dtype: gl.constexpr = q_desc.dtype
    QUERIES: gl.constexpr = gl.NVMMASharedLayout.get_default_for([_ROWS, _D], dtype)
    KEYS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_N, _D], dtype)
    q_buffers = gl.allocate_shared_memory(dtype, [CONSUMERS, _ROWS, _D], QUERIES)
    k_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    v_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS)
    fence_async_shared()

    buffers = (q_buffers, k_buffers, v_buffers)
    barriers = (q_full, k_full, v_full, empty)
    place = (b, h, first_row, steps, first_tile, size)
    given = (out_desc, buffers, barriers, place, keys_left, coefficient)
    loads = (q_desc, k_desc, v_desc, buffers, barriers, place)
    if CONSUMERS == 1:
        gl.warp_specialize(
            [
                (_consume, (given, 0, STAGES, BLOCK_N, EVEN_KEYS)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N)),
            ],
            [1],
            [_PRODUCER_REGISTERS],
        )
    elif CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (given, 0, STAGES, BLOCK_N, EVEN_KEYS)),
                (_consume, (given, 1, STAGES, BLOCK_N, EVEN_KEYS)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N)),
            ],
            [4, 1],
            [REGISTERS, _PRODUCER_REGISTERS],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (given, 0, STAGES, BLOCK_N, EVEN_KEYS)),
                (_consume, (given, 1, STAGES, BLOCK_N, EVEN_KEYS)),
                (_consume, (given, 2, STAGES, BLOCK_N, EVEN_KEYS)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N)),
            ],
            [4, 4, 1],
            [REGISTERS, REGISTERS, _PRODUCER_REGISTERS],
        )
