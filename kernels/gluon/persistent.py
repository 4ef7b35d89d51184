"""Self-attention on Hopper as in `self_attention.py`, by programs that stay: a candidate that no GPU has timed.

As many programs as the processors hold go from piece to piece, and the warp that loads is ahead of them: it begins the
next piece's queries, keys and values while the consumers still compute, so that no piece waits for its first tile.

With STEADY the exponentials keep the reference of the first tile, in which the queries themselves are where they attend
to themselves: no maximum is taken of the other tiles and nothing is rescaled, which is a quarter of the instructions.
What a reference must not do is to let the 16 bits of an exponential overflow; the sums tell whether it did, and such a
piece is computed again with maxima, after all others. That happens where a temperature sharpens: of random scores with
a spread of 7 in log2 so many pieces were repeated on an H200 that the form lost.

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

from attnmod.kernels.gluon.self_attention import HEAD_DIM, PRODUCER_REGISTERS, ROWS
from attnmod.kernels.reference import MIN_TEMPERATURE

# Triton 3.9's names, 3.6's
_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global

TURNS = 64  # the most pieces of a program

_ROWS = gl.constexpr(ROWS)
_D = gl.constexpr(HEAD_DIM)
_PRODUCER_REGISTERS = gl.constexpr(PRODUCER_REGISTERS)
_TURNS = gl.constexpr(TURNS)
_LOG2_E = gl.constexpr(1.4426950408889634)
_MIN_TEMPERATURE = gl.constexpr(MIN_TEMPERATURE)
# In log2: how far a steady reference is above what gave it; and the sum that shows that nothing overflowed.
_MARGIN = gl.constexpr(3.0)
_LARGEST_SUM = gl.constexpr(32768.0)


@gluon.jit
def _fetch(descriptor, b, h, first_row, barrier, buffer):
    """Begins a copy of rows of a head into a buffer [rows, D]; the barrier has been told how many bytes come."""
    block = buffer.reshape(descriptor.block_shape)  # [1, rows, 1, D]
    _load(descriptor, [b, first_row, h, 0], barrier, block)


@gluon.jit
def _piece(work, turn, BLOCK_N: gl.constexpr, EVEN_KEYS: gl.constexpr):
    """What this program does in that turn: size blocks of queries of a head, from first_row; 0 where it is through.

    Pieces of three blocks come first, and every other round is dealt out backwards.
    """
    pieces, heads, threes, twos, ones, num_keys = work
    programs = gl.num_programs(0)
    me = gl.program_id(0)
    piece = turn * programs + gl.where(turn % 2 == 0, me, programs - 1 - me)
    is_through = piece >= pieces
    groups = pieces // (threes + twos + ones)  # heads of all rows
    size = 3
    each = threes
    first_block = 0
    if piece >= groups * threes:
        piece -= groups * threes
        size = 2
        each = twos
        first_block = 3 * threes
        if piece >= groups * twos:
            piece -= groups * twos
            size = 1
            each = ones
            first_block += 2 * twos
    each = gl.maximum(each, 1)
    group = piece // each
    first_row = (first_block + size * (piece % each)) * _ROWS
    steps = (num_keys + BLOCK_N - 1) // BLOCK_N
    first_tile = steps - 1  # the ragged one: it alone is masked
    if EVEN_KEYS:
        first_tile = gl.minimum((first_row + size * (_ROWS // 2)) // BLOCK_N, steps - 1)
    return group // heads, group % heads, first_row, steps, first_tile, gl.where(is_through, 0, size)


@gluon.jit
def _produce(
    loads,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    STEADY: gl.constexpr,
):
    """The warp that loads, ahead of the consumers: a piece's queries, then its keys and values."""
    barriers, work, turns = loads[4], loads[5], loads[6]
    done = 0
    begun = 0
    for turn in range(turns):
        place = _piece(work, turn, BLOCK_N, EVEN_KEYS)
        if place[5] > 0:
            _produce_piece(loads, place, done, begun, CONSUMERS, STAGES, BLOCK_N)
            done += 1
            begun += place[3] + 1
    if STEADY:
        mbarrier.wait(barriers[6], 0)
        for turn in range(turns):
            if _is_to_be_repeated(barriers, turn, 1):
                place = _piece(work, turn, BLOCK_N, EVEN_KEYS)
                _produce_piece(loads, place, done, begun, CONSUMERS, STAGES, BLOCK_N)
                done += 1
                begun += place[3] + 1


@gluon.jit
def _produce_piece(loads, place, done, begun, CONSUMERS: gl.constexpr, STAGES: gl.constexpr, BLOCK_N: gl.constexpr):
    """The queries of all consumers, then a tile's keys with the values of the tile before, around the end.

    done, begun: how many pieces and how many such pairs were loaded before.
    """
    BYTES: gl.constexpr = BLOCK_N * _D * 2
    q_desc, k_desc, v_desc, buffers, barriers, _, _ = loads
    q_buffers, k_buffers, v_buffers = buffers
    q_full, q_empty, k_full, v_full, empty = barriers[0], barriers[1], barriers[2], barriers[3], barriers[4]
    b, h, first_row, steps, first_tile, _ = place
    slot = done % 2
    mbarrier.wait(q_empty.index(slot), ((done // 2) & 1) ^ 1)
    mbarrier.expect(q_full.index(slot), CONSUMERS * _ROWS * _D * 2)
    for c in gl.static_range(CONSUMERS):
        _fetch(q_desc, b, h, first_row + c * _ROWS, q_full.index(slot), q_buffers.index(slot * CONSUMERS + c))
    for i in range(steps + 1):
        stage = (begun + i) % STAGES
        tile = first_tile + i
        mbarrier.wait(empty.index(stage), (((begun + i) // STAGES) & 1) ^ 1)
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
def _is_to_be_repeated(barriers, turn, WARPS: gl.constexpr):
    """Whether any consumer found its steady reference too low in that turn; once all are through."""
    return gl.max(barriers[5].index(turn).load(gl.BlockedLayout([1], [32], [WARPS], [0])), 0) == 1


@gluon.jit
def _consume(
    given,
    ME: gl.constexpr,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    HAS_TEMPERATURE: gl.constexpr,
    STEADY: gl.constexpr,
):
    """64 queries of each piece against all keys. ME: this consumer's number; where a piece is smaller, tiles pass."""
    barriers, work, turns = given[2], given[3], given[4]
    done = 0
    begun = 0
    for turn in range(turns):
        place = _piece(work, turn, BLOCK_N, EVEN_KEYS)
        if place[5] > ME:
            _attend(given, place, turn, done, begun, ME, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)
        elif place[5] > 0:
            _let_pass(barriers, place, done, begun, STAGES)
        if place[5] > 0:
            done += 1
            begun += place[3] + 1
    if STEADY:
        mbarrier.arrive(barriers[6], count=1)
        mbarrier.wait(barriers[6], 0)
        for turn in range(turns):
            if _is_to_be_repeated(barriers, turn, 4):
                place = _piece(work, turn, BLOCK_N, EVEN_KEYS)
                if place[5] > ME:
                    _attend(
                        given,
                        place,
                        turn,
                        done,
                        begun,
                        ME,
                        CONSUMERS,
                        STAGES,
                        BLOCK_N,
                        EVEN_KEYS,
                        HAS_TEMPERATURE,
                        False,
                    )
                else:
                    _let_pass(barriers, place, done, begun, STAGES)
                done += 1
                begun += place[3] + 1


@gluon.jit
def _let_pass(barriers, place, done, begun, STAGES: gl.constexpr):
    """A consumer without queries: the barriers count on it."""
    q_empty, k_full, v_full, empty = barriers[1], barriers[2], barriers[3], barriers[4]
    for i in range(place[3] + 1):
        stage = (begun + i) % STAGES
        parity = ((begun + i) // STAGES) & 1
        mbarrier.wait(k_full.index(stage), parity)
        mbarrier.wait(v_full.index(stage), parity)
        mbarrier.arrive(empty.index(stage), count=1)
    mbarrier.arrive(q_empty.index(done % 2), count=1)


@gluon.jit
def _attend(
    given,
    place,
    turn,
    done,
    begun,
    ME: gl.constexpr,
    CONSUMERS: gl.constexpr,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    HAS_TEMPERATURE: gl.constexpr,
    STEADY: gl.constexpr,
):
    """A consumer's queries of one piece against all keys, to the output."""
    out_desc, buffers, barriers, work, _, temperature_ptr, temperature_strides, scale = given
    b, h, first_row, steps, _, _ = place
    coefficient = gl.cast(scale, gl.float32) * _LOG2_E  # under torch.compile a Python float arrives as float64
    if HAS_TEMPERATURE:
        tau = gl.load(temperature_ptr + b.to(gl.int64) * temperature_strides[0] + h * temperature_strides[1])
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / gl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = gl.maximum(coefficient, 1e-30)
    keys_left = work[5] - (steps - 1) * BLOCK_N
    slot = done % 2
    q_buffer = buffers[0].index(slot * CONSUMERS + ME)
    dtype: gl.constexpr = q_buffer.dtype
    mbarrier.wait(barriers[0].index(slot), (done // 2) & 1)
    acc, total = _pass(
        q_buffer, buffers, barriers, begun, steps, keys_left, coefficient, STAGES, BLOCK_N, EVEN_KEYS, STEADY
    )
    if STEADY:
        LINE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
        too_low = gl.max(gl.where(total < _LARGEST_SUM, 0, 1), 0)
        barriers[5].index(turn).slice(ME, 1).store(gl.full([1], too_low, gl.int32, LINE))
    q_buffer.store((acc * (1.0 / total)[:, None]).to(dtype))  # every product with these queries is done
    fence_async_shared()
    block = q_buffer.reshape(out_desc.block_shape)
    _store(out_desc, [b, first_row + ME * _ROWS, h, 0], block)
    tma.store_wait(0)
    mbarrier.arrive(barriers[1].index(slot), count=1)


@gluon.jit
def _sums_by_column(p):
    """What a thread has of each row, in 8 columns: no lane has to ask another."""
    return gl.sum(p.reshape([p.shape[0], p.shape[1] // 8, 8]), 1)


@gluon.jit
def _pass(
    q_buffer,
    buffers,
    barriers,
    begun,
    steps,
    keys_left,
    coefficient,
    STAGES: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    STEADY: gl.constexpr,
):
    """All keys of a head. keys_left: of the first tile. The unnormalised output and the sums of its rows."""
    _, k_buffers, v_buffers = buffers
    k_full, v_full, empty = barriers[2], barriers[3], barriers[4]
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
    mbarrier.arrive(empty.index(stage), count=1)
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
        parity = ((begun + i) // STAGES) & 1
        mbarrier.wait(v_full.index(stage), parity)
        if i == 1:
            mbarrier.wait(k_full.index(stage), parity)
        product = warpgroup_mma(q_buffer, k_buffers.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
        added = warpgroup_mma(weights, v_buffers.index(stage), acc, is_async=True)
        scores = warpgroup_mma_wait(1, deps=(product,))  # [64, BLOCK_N]
        if STEADY:
            p = gl.exp2(scores * coefficient - reference[:, None])
            sums = sums + _sums_by_column(p)
        else:
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
        mbarrier.arrive(empty.index(stage), count=1)
        if not STEADY:
            acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, OUT))[:, None]
        weights = gl.convert_layout(p.to(dtype), WEIGHTS)
    stage = (begun + steps) % STAGES
    mbarrier.wait(v_full.index(stage), ((begun + steps) // STAGES) & 1)
    added = warpgroup_mma(weights, v_buffers.index(stage), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(added,))
    mbarrier.arrive(empty.index(stage), count=1)
    return acc, gl.convert_layout(gl.sum(sums, 1), gl.SliceLayout(1, OUT))


# a kernel for every number of keys, and for every layout of temperatures, is none the faster
@gluon.jit(do_not_specialize=["num_keys", "temperature_strides", "turns", "pieces", "heads", "threes", "twos", "ones"])
def _self_attention_kernel(
    q_desc,
    k_desc,
    v_desc,
    temperature_ptr,
    out_desc,
    temperature_strides,
    scale,
    num_keys,
    turns,
    pieces,
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
    STEADY: gl.constexpr,
):
    """One program: pieces of up to 64 * CONSUMERS queries of a row and head against all of its keys, one after another.

    Of every head's blocks of 64 queries so many pieces take three each, so many two, and so many one. turns: the most
    pieces that a program has, at most `TURNS`. Descriptors are of [B, length, H, D]. REGISTERS: of a thread of the
    consumers but the first, which has what is left.
    """
    dtype: gl.constexpr = q_desc.dtype
    QUERIES: gl.constexpr = gl.NVMMASharedLayout.get_default_for([_ROWS, _D], dtype)
    KEYS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_N, _D], dtype)
    q_buffers = gl.allocate_shared_memory(dtype, [2 * CONSUMERS, _ROWS, _D], QUERIES)
    k_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    v_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    through = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    too_low = gl.allocate_shared_memory(gl.int32, [_TURNS, 4], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    if STEADY:
        for turn in range(turns):
            too_low.index(turn).store(gl.full([4], 0, gl.int32, gl.BlockedLayout([1], [32], [4], [0])))
        mbarrier.init(through, count=CONSUMERS)
    for i in gl.static_range(2):
        mbarrier.init(q_full.index(i), count=1)
        mbarrier.init(q_empty.index(i), count=CONSUMERS)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS)
    fence_async_shared()

    buffers = (q_buffers, k_buffers, v_buffers)
    barriers = (q_full, q_empty, k_full, v_full, empty, too_low, through)
    work = (pieces, heads, threes, twos, ones, num_keys)
    given = (out_desc, buffers, barriers, work, turns, temperature_ptr, temperature_strides, scale)
    loads = (q_desc, k_desc, v_desc, buffers, barriers, work, turns)
    if CONSUMERS == 1:
        gl.warp_specialize(
            [
                (_consume, (given, 0, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, STEADY)),
            ],
            [1],
            [_PRODUCER_REGISTERS],
        )
    elif CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (given, 0, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)),
                (_consume, (given, 1, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, STEADY)),
            ],
            [4, 1],
            [REGISTERS, _PRODUCER_REGISTERS],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (given, 0, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)),
                (_consume, (given, 1, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)),
                (_consume, (given, 2, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, HAS_TEMPERATURE, STEADY)),
                (_produce, (loads, CONSUMERS, STAGES, BLOCK_N, EVEN_KEYS, STEADY)),
            ],
            [4, 4, 1],
            [REGISTERS, REGISTERS, _PRODUCER_REGISTERS],
        )
