"""Small kernels in Gluon for the tests of the emulator: a copy, a product, a ring."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global


@gluon.jit
def copy_kernel(in_desc, out_desc, BYTES: gl.constexpr):
    """A block of rows to another tensor."""
    row = gl.program_id(0) * 16
    buffer = gl.allocate_shared_memory(in_desc.dtype, [16, 32], in_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(full, count=1)
    fence_async_shared()
    mbarrier.expect(full, BYTES)
    _load(in_desc, [row, 0], full, buffer)
    mbarrier.wait(full, 0)
    _store(out_desc, [row, 0], buffer)
    tma.store_wait(0)


@gluon.jit
def product_kernel(a_desc, b_desc, out_desc, OUTSTANDING: gl.constexpr):
    """a b, where b is stored again before it is multiplied: the product reads what ordinary stores wrote."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 32, 16])
    a = gl.allocate_shared_memory(a_desc.dtype, [64, 32], a_desc.layout)
    b = gl.allocate_shared_memory(b_desc.dtype, [32, 32], b_desc.layout)
    out = gl.allocate_shared_memory(out_desc.dtype, [64, 32], out_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(full, count=1)
    fence_async_shared()
    mbarrier.expect(full, 2 * (64 + 32) * 32)
    _load(a_desc, [0, 0], full, a)
    _load(b_desc, [0, 0], full, b)
    mbarrier.wait(full, 0)
    b.store(b.load(layout))
    fence_async_shared()
    acc = gl.zeros([64, 32], gl.float32, layout)
    product = warpgroup_mma(a, b, acc, is_async=True)
    acc = warpgroup_mma_wait(OUTSTANDING, deps=(product,))
    out.store(acc.to(out_desc.dtype))
    fence_async_shared()
    _store(out_desc, [0, 0], out)
    tma.store_wait(0)


@gluon.jit
def _fill(in_desc, buffers, full, empty, steps, STAGES: gl.constexpr):
    for i in range(steps):
        mbarrier.wait(empty.index(i % STAGES), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(full.index(i % STAGES), 16 * 32 * 2)
        _load(in_desc, [i * 16, 0], full.index(i % STAGES), buffers.index(i % STAGES))


@gluon.jit
def _drain(out_desc, buffers, full, empty, steps, STAGES: gl.constexpr):
    for i in range(steps):
        mbarrier.wait(full.index(i % STAGES), (i // STAGES) & 1)
        _store(out_desc, [i * 16, 0], buffers.index(i % STAGES))
        tma.store_wait(0)
        mbarrier.arrive(empty.index(i % STAGES), count=1)


@gluon.jit
def ring_kernel(in_desc, out_desc, steps, STAGES: gl.constexpr):
    """All rows through a ring of buffers, one partition filling and the other draining it."""
    buffers = gl.allocate_shared_memory(in_desc.dtype, [STAGES, 16, 32], in_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (_drain, (out_desc, buffers, full, empty, steps, STAGES)),
            (_fill, (in_desc, buffers, full, empty, steps, STAGES)),
        ],
        [1],
        [24],
    )
