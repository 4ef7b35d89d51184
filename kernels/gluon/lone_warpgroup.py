"""Self-attention on Hopper, head dim 64, by warpgroups that load for themselves.

    out = softmax(q kT * scale / tau) v

Three such blocks fit a processor (168 registers, two tiles of 128 keys and values each): while one takes exponentials
the others compute products, and no two have to agree on it. Otherwise as `self_attention.py`, whose barriers and
products these are.

With STEADY the exponentials keep the reference of the first tile, in which the queries themselves are where they attend
to themselves, plus a margin: no maximum is taken of the other tiles and nothing is rescaled. What this may not do is
overflow the 16 bits of an exponential; the sum of a row tells whether it did, and such a block is computed again with
maxima.
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
_barrier = getattr(gl, "barrier", None) or gl.thread_barrier

_D = gl.constexpr(64)
_LOG2_E = gl.constexpr(1.4426950408889634)
_MIN_TEMPERATURE = gl.constexpr(MIN_TEMPERATURE)
# In log2: how far the reference is above the first tile's maximum, and how large a sum shows that nothing overflowed.
_MARGIN = gl.constexpr(6.0)
_LARGEST_SUM = gl.constexpr(32768.0)


@gluon.jit
def _fetch(descriptor, place, index, barrier, buffer, pred):
    """Begins the copy of a tile of keys or values: one after another from the first, around the end.

    The barrier has been told how many bytes come.
    """
    b, h, first_tile, steps = place
    tile = first_tile + index
    tile -= gl.where(tile >= steps, steps, 0)
    block = buffer.reshape(descriptor.block_shape)
    _load(descriptor, [b, tile * buffer.shape[0], h, 0], barrier, block, pred=pred)


@gluon.jit
def _sums_by_column(p):
    """What a thread has of each row, in 8 columns: no lane has to ask another."""
    return gl.sum(p.reshape([p.shape[0], p.shape[1] // 8, 8]), 1)


@gluon.jit
def _pass(
    given,
    begun,
    STAGES: gl.constexpr,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    STEADY: gl.constexpr,
):
    """All keys once. begun: how many tiles were loaded before. The unnormalised output and the sums of its rows."""
    k_desc, v_desc, q_buffer, k_buffers, v_buffers, k_full, v_full, place, keys_left, coefficient = given
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [BLOCK_M // 16, 1], [16, BLOCK_N, 16])
    OUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [BLOCK_M // 16, 1], [16, _D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUT, 2)
    BYTES: gl.constexpr = BLOCK_N * _D * 2
    dtype: gl.constexpr = q_buffer.dtype
    steps = place[3]
    zero = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, SCORES)
    acc = gl.zeros([BLOCK_M, _D], gl.float32, OUT)
    for s in gl.static_range(STAGES):
        at = (begun + s) % STAGES
        mbarrier.expect(k_full.index(at), BYTES, pred=s < steps)
        mbarrier.expect(v_full.index(at), BYTES, pred=s < steps)
    for s in gl.static_range(STAGES):
        at = (begun + s) % STAGES
        _fetch(k_desc, place, s, k_full.index(at), k_buffers.index(at), s < steps)
        _fetch(v_desc, place, s, v_full.index(at), v_buffers.index(at), s < steps)

    stage = begun % STAGES
    mbarrier.wait(k_full.index(stage), (begun // STAGES) & 1)
    product = warpgroup_mma(q_buffer, k_buffers.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=(product,))
    _barrier()
    mbarrier.expect(k_full.index(stage), BYTES, pred=steps > STAGES)
    _fetch(k_desc, place, STAGES, k_full.index(stage), k_buffers.index(stage), steps > STAGES)
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
        product = warpgroup_mma(q_buffer, k_buffers.index(stage).permute((1, 0)), zero, use_acc=False, is_async=True)
        added = warpgroup_mma(weights, v_buffers.index(last), acc, is_async=True)
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
        # Behind this branch ptxas leaves the wait for the second product where it is, see self_attention.py.
        upcoming = begun + i + 1
        mbarrier.wait(k_full.index(upcoming % STAGES), (upcoming // STAGES) & 1, pred=i + 1 < steps)
        acc, p = warpgroup_mma_wait(0, deps=(added, p))
        _barrier()
        k_left, v_left = i + STAGES < steps, i - 1 + STAGES < steps
        mbarrier.expect(k_full.index(stage), BYTES, pred=k_left)
        mbarrier.expect(v_full.index(last), BYTES, pred=v_left)
        _fetch(k_desc, place, i + STAGES, k_full.index(stage), k_buffers.index(stage), k_left)
        _fetch(v_desc, place, i - 1 + STAGES, v_full.index(last), v_buffers.index(last), v_left)
        if not STEADY:
            acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, OUT))[:, None]
        weights = gl.convert_layout(p.to(dtype), WEIGHTS)
    final = begun + steps - 1
    mbarrier.wait(v_full.index(final % STAGES), (final // STAGES) & 1)
    added = warpgroup_mma(weights, v_buffers.index(final % STAGES), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(added,))
    return acc, gl.convert_layout(gl.sum(sums, 1), gl.SliceLayout(1, OUT))


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
    STAGES: gl.constexpr,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    HAS_TEMPERATURE: gl.constexpr,
    EVEN_KEYS: gl.constexpr,
    STEADY: gl.constexpr,
):
    """One program: 64 queries of one row and head against all of its keys. Descriptors are of [B, length, H, D]."""
    coefficient = gl.cast(scale, gl.float32) * _LOG2_E  # under torch.compile a Python float arrives as float64
    h = gl.program_id(1)
    b = gl.program_id(2)
    if HAS_TEMPERATURE:
        tau = gl.load(temperature_ptr + b.to(gl.int64) * temperature_strides[0] + h * temperature_strides[1])
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / gl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = gl.maximum(coefficient, 1e-30)
    first_row = gl.program_id(0) * BLOCK_M
    steps = (num_keys + BLOCK_N - 1) // BLOCK_N
    keys_left = num_keys - (steps - 1) * BLOCK_N
    first_tile = steps - 1  # the ragged one: it alone is masked
    if EVEN_KEYS:
        first_tile = gl.minimum(first_row // BLOCK_N, steps - 1)

    dtype: gl.constexpr = q_desc.dtype
    QUERIES: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_M, _D], dtype)
    KEYS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_N, _D], dtype)
    q_buffer = gl.allocate_shared_memory(dtype, [BLOCK_M, _D], QUERIES)
    k_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    v_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, _D], KEYS)
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for s in gl.static_range(STAGES):
        mbarrier.init(k_full.index(s), count=1)
        mbarrier.init(v_full.index(s), count=1)
    fence_async_shared()
    mbarrier.expect(q_full, BLOCK_M * _D * 2)
    _load(q_desc, [b, first_row, h, 0], q_full, q_buffer.reshape(q_desc.block_shape))

    place = (b, h, first_tile, steps)
    given = (k_desc, v_desc, q_buffer, k_buffers, v_buffers, k_full, v_full, place, keys_left, coefficient)
    mbarrier.wait(q_full, 0)
    acc, total = _pass(given, 0, STAGES, BLOCK_M, BLOCK_N, EVEN_KEYS, STEADY)
    if STEADY:  # noqa: SIM102 - compiled without it, the branch must not be there
        if gl.max(gl.where(total < _LARGEST_SUM, 0, 1), 0) == 1:
            acc, total = _pass(given, steps, STAGES, BLOCK_M, BLOCK_N, EVEN_KEYS, False)
    q_buffer.store((acc * (1.0 / total)[:, None]).to(dtype))  # every product with these queries is done
    fence_async_shared()
    _store(out_desc, [b, first_row, h, 0], q_buffer.reshape(out_desc.block_shape))
    tma.store_wait(0)
