"""Self-attention with a softmax temperature per row, read from the device.

    out = softmax(q kT * scale / tau) v

The image attends to itself: thousands of keys, so they stream past in tiles under a running maximum and a
running sum (FlashAttention's online softmax, arXiv 2205.14135), and no score reaches memory. The temperature
joins scale and log2 e in one factor per program, which makes a sharpened softmax as cheap as a plain one:
each score costs one fused multiply-add and one exp2.

Floors on an H100 SXM for SDXL's 4096 patches, 10 heads, two rows, in fp16: 85.9 Gflop of products take 90.5 us, and as
many exponentials (16 a clock and processor) as long again: 90.5 us if the two overlap wholly, 181 us if not at all;
42 MB to read and write, 12.5 us. A score needs at least 4.5 instructions: multiply-add, exponential, sum, maximum,
half a conversion; the datasheet counts 7.2 to 7.4 on sm_90 (Triton 3.6, 3.9), which issue in 81 to 84 us.

So what decides is how much of the exponentials' time products run in. Where products are asynchronous a tile's product
with its values is therefore issued before the next tile's softmax (`OVERLAP`, as in FlashAttention-3, arXiv
2407.08608): 47 to 52 of a tile's 66 exponentials then stand beside it instead of none, and a second block on the
processor fills the rest. Keys and values are copied a whole tile ahead, in three stages: with two, nothing is under
way while products run, on any architecture. Measured on an H200 (Triton 3.6, graph replay): 241 us with two stages of
64 x 128, 195 to 212 with three, 199 to 205 with 64 x 64 and 194 to 205 without `OVERLAP`; of 1024 patches and 20 heads
35 us and, with 64 x 64, 30. Where the table has an entry for it `gluon/` is taken instead.

Compiled for sm_90 and left out: the next scores issued before this tile's softmax (ptxas moves every exponential in
front of them, so nothing overlaps, for 70 more registers); loads by descriptors (7.0 to 7.2 instructions per score, 206
registers, as many blocks, but strides that are no projection's need another kernel); warp specialisation (with pointers
and 4 warps the compiler fails and with 8 it changes nothing; with descriptors and 64 rows both consumers compute the
same tile, with 128 rows it fails; Triton 3.6 and 3.9).

Shapes: q, out [B, H, M, D]; k, v [B, H, T, D]; temperature [B] or [B, H].
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl

from attnmod.kernels.configs import (
    Tiles,
    aligned,
    architecture,
    channel_tiles,
    generation,
    gluon_tiles,
    precision,
    self_attention_tiles,
    temperature_strides,
)
from attnmod.kernels.plan import Launch, Plans, alignment
from attnmod.kernels.reference import MIN_TEMPERATURE
from attnmod.kernels.tiles import (
    INTERPRETED,
    LOG2_E,
    dot,
    dot_channels,
    head_base,
    load_channels,
    row_base,
    row_stride,
    store_channels,
    zero_channels,
)

_MIN_TEMPERATURE = tl.constexpr(MIN_TEMPERATURE)
# In log2. Exponentials at most 2^-25 are zero in fp16, and 4096 of them change a sum of at least 1 by 1.2e-4.
_INVISIBLE = tl.constexpr(-25.0)
# p up to 2^8, and their sums, are far from the largest fp16 and float32.
_LARGEST_GROWTH = tl.constexpr(8.0)
_plans = Plans()


@triton.jit
def _scores(
    q,
    k_base,
    stride_kn,
    num_keys,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """q kT of the first BLOCK_N of num_keys keys, [BLOCK_M, BLOCK_N]; -inf beyond the last."""
    offs_n = tl.arange(0, BLOCK_N)
    k = load_channels(k_base, offs_n, stride_kn, num_keys, HEAD_DIM, D_TILES, MASK_KEYS)  # [BLOCK_N, D]
    scores = dot_channels(q, k, PRECISION)  # [BLOCK_M, BLOCK_N]
    if MASK_KEYS:
        scores = tl.where((offs_n < num_keys)[None, :], scores, float("-inf"))
    return scores


@triton.jit
def _attend(
    scores,
    v_base,
    stride_vn,
    num_keys,
    coefficient,
    acc,
    running_max,
    running_sum,
    skipped,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    LAZY_RESCALE: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SKIP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Takes a tile of scores [BLOCK_M, BLOCK_N] and its values into the running softmax."""
    v = load_channels(v_base, tl.arange(0, scores.shape[1]), stride_vn, num_keys, HEAD_DIM, D_TILES, MASK_KEYS)
    row_max = tl.max(scores, 1) * coefficient  # [BLOCK_M]; the factor is positive, so it may be applied afterwards
    if SKIP and tl.max(row_max - running_max, 0) <= _INVISIBLE:
        skipped += 1
    elif LAZY_RESCALE:
        # The reference of the exponentials need not be their maximum: it stays while no row outgrows it by 2^8.
        if tl.max(row_max - running_max, 0) > _LARGEST_GROWTH:
            rescale = tl.exp2(running_max - tl.maximum(running_max, row_max))  # [BLOCK_M]
            acc = _scaled(acc, rescale)
            running_sum = running_sum * rescale
            running_max = tl.maximum(running_max, row_max)
        p = _exp2(scores * coefficient - running_max[:, None], POLYNOMIAL)  # [BLOCK_M, BLOCK_N]
        running_sum += tl.sum(p, 1)
        acc = _add_values(acc, p, v, PRECISION)
    else:
        p, rescale, running_max, running_sum = _softmax(
            scores, row_max, coefficient, running_max, running_sum, POLYNOMIAL
        )
        acc = _add_values(_scaled(acc, rescale), p, v, PRECISION)
    return acc, running_max, running_sum, skipped


@triton.jit
def _softmax(scores, row_max, coefficient, running_max, running_sum, POLYNOMIAL: tl.constexpr):
    """The tile's exponentials, what the sums before them are to be multiplied with, and both statistics."""
    tile_max = tl.maximum(running_max, row_max)  # [BLOCK_M]
    p = _exp2(scores * coefficient - tile_max[:, None], POLYNOMIAL)  # [BLOCK_M, BLOCK_N]
    rescale = tl.exp2(running_max - tile_max)  # [BLOCK_M]
    return p, rescale, tile_max, running_sum * rescale + tl.sum(p, 1)


@triton.jit
def _add_values(acc, p, v, PRECISION: tl.constexpr):
    """acc + p v, over channels of [BLOCK_M, D]."""
    results = ()
    for c in tl.static_range(len(acc)):
        results = results + (dot(p.to(v[c].dtype), v[c], acc[c], PRECISION),)
    return results


@triton.jit
def _scaled(acc, rescale):
    parts = ()
    for c in tl.static_range(len(acc)):
        parts = parts + (acc[c] * rescale[:, None],)
    return parts


@triton.jit
def _exp2(x, POLYNOMIAL: tl.constexpr):
    """2^x; with POLYNOMIAL one in four by multiply-adds, to 8e-5, for where the special-function unit is the limit.

    Cody and Waite: 2^x = 2^n 2^f, n the nearest integer, left in the low bits by adding 1.5 * 2^23, and f within a
    half, where the cubic is the one whose largest relative error is least. FlashAttention-4 (arXiv 2603.05451) does
    this on Blackwell.
    """
    if not POLYNOMIAL:
        p = tl.exp2(x)
    elif INTERPRETED:
        bounded = tl.maximum(x, -126.0)
        n = tl.floor(bounded + 0.5)
        f = bounded - n
        cubic = ((0.05517167 * f + 0.24261113) * f + 0.69326097) * f + 0.99992806
        one_in_four = (tl.arange(0, x.shape[1]) % 4 == 3)[None, :]
        p = tl.where(one_in_four, cubic * tl.exp2(n), tl.exp2(x))
    else:
        p = tl.inline_asm_elementwise(
            """
            {
            .reg .f32 x, t, n, f, c;
            .reg .b32 i;
            ex2.approx.ftz.f32 $0, $4;
            ex2.approx.ftz.f32 $1, $5;
            ex2.approx.ftz.f32 $2, $6;
            max.ftz.f32 x, $7, 0fC2FC0000;
            add.rn.ftz.f32 t, x, 0f4B400000;
            sub.rn.ftz.f32 n, t, 0f4B400000;
            sub.rn.ftz.f32 f, x, n;
            fma.rn.ftz.f32 c, f, 0f3D61FBB0, 0f3E786F0D;
            fma.rn.ftz.f32 c, c, f, 0f3F31798D;
            fma.rn.ftz.f32 c, c, f, 0f3F7FFB49;
            mov.b32 i, t;
            shl.b32 i, i, 23;
            mov.b32 $3, c;
            add.s32 $3, $3, i;
            }
            """,
            "=r,=r,=r,=r,r,r,r,r",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=4,
        )
    return p


@triton.jit
def _self_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    temperature_ptr,
    out_ptr,
    skipped_ptr,
    q_strides,
    k_strides,
    v_strides,
    temperature_strides,
    out_strides,
    scale,
    num_queries,
    num_keys,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGNED: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
    EVEN_KEYS: tl.constexpr,
    OVERLAP: tl.constexpr,
    LAZY_RESCALE: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
    SKIP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BLOCK_M queries of one row and head against all of its keys.

    OVERLAP: a tile's product with its values is issued before the softmax of the next tile, and runs beside it.
    LAZY_RESCALE, SKIP: see `_attend`; they have no effect with OVERLAP. POLYNOMIAL: see `_exp2`. How many tiles were
    skipped is stored where there is a skipped_ptr.
    """
    coefficient = tl.cast(scale, tl.float32) * LOG2_E  # under torch.compile a Python float arrives as float64
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    first_row = tl.program_id(0) * BLOCK_M
    offs_m = tl.arange(0, BLOCK_M)
    rows_left = num_queries - first_row

    if HAS_TEMPERATURE:
        tau = tl.load(temperature_ptr + b * temperature_strides[0] + h * temperature_strides[1]).to(tl.float32)
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / tl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = tl.maximum(coefficient, 1e-30)

    k_base = head_base(k_ptr, b, h, k_strides, ALIGNED)
    v_base = head_base(v_ptr, b, h, v_strides, ALIGNED)
    stride_qm = row_stride(q_strides, ALIGNED)
    q_base = row_base(head_base(q_ptr, b, h, q_strides, ALIGNED), first_row, stride_qm)
    q = load_channels(q_base, offs_m, stride_qm, rows_left, HEAD_DIM, D_TILES, True)

    acc = zero_channels(BLOCK_M, D_TILES)
    running_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_M], tl.float32)
    skipped = tl.full([], 0, tl.int32)
    stride_kn = row_stride(k_strides, ALIGNED)
    stride_vn = row_stride(v_strides, ALIGNED)
    full_keys = num_keys // BLOCK_N * BLOCK_N
    if OVERLAP:  # the launcher promises at least one whole tile
        scores = _scores(q, k_base, stride_kn, num_keys, HEAD_DIM, D_TILES, BLOCK_N, False, PRECISION)
        p, _, running_max, running_sum = _softmax(
            scores, tl.max(scores, 1) * coefficient, coefficient, running_max, running_sum, POLYNOMIAL
        )
        for _ in range(BLOCK_N, full_keys, BLOCK_N):
            k_base += tl.cast(stride_kn, tl.int64) * BLOCK_N
            scores = _scores(q, k_base, stride_kn, num_keys, HEAD_DIM, D_TILES, BLOCK_N, False, PRECISION)
            v = load_channels(v_base, tl.arange(0, BLOCK_N), stride_vn, num_keys, HEAD_DIM, D_TILES, False)
            acc = _add_values(acc, p, v, PRECISION)
            p, rescale, running_max, running_sum = _softmax(
                scores, tl.max(scores, 1) * coefficient, coefficient, running_max, running_sum, POLYNOMIAL
            )
            acc = _scaled(acc, rescale)
            v_base += tl.cast(stride_vn, tl.int64) * BLOCK_N
        v = load_channels(v_base, tl.arange(0, BLOCK_N), stride_vn, num_keys, HEAD_DIM, D_TILES, False)
        acc = _add_values(acc, p, v, PRECISION)
        k_base += tl.cast(stride_kn, tl.int64) * BLOCK_N
        v_base += tl.cast(stride_vn, tl.int64) * BLOCK_N
    else:
        for _ in range(0, full_keys, BLOCK_N):
            scores = _scores(q, k_base, stride_kn, num_keys, HEAD_DIM, D_TILES, BLOCK_N, False, PRECISION)
            acc, running_max, running_sum, skipped = _attend(
                scores, v_base, stride_vn, num_keys, coefficient, acc, running_max, running_sum, skipped,
                HEAD_DIM, D_TILES, False, LAZY_RESCALE, POLYNOMIAL, SKIP, PRECISION,
            )  # fmt: skip
            k_base += tl.cast(stride_kn, tl.int64) * BLOCK_N
            v_base += tl.cast(stride_vn, tl.int64) * BLOCK_N
    if not EVEN_KEYS:
        keys_left = num_keys - full_keys
        scores = _scores(q, k_base, stride_kn, keys_left, HEAD_DIM, D_TILES, BLOCK_N, True, PRECISION)
        acc, running_max, running_sum, skipped = _attend(
            scores, v_base, stride_vn, keys_left, coefficient, acc, running_max, running_sum, skipped,
            HEAD_DIM, D_TILES, True, LAZY_RESCALE, POLYNOMIAL, SKIP, PRECISION,
        )  # fmt: skip
    if skipped_ptr is not None:
        program = (b * tl.num_programs(1) + h) * tl.num_programs(0) + tl.program_id(0)
        tl.store(skipped_ptr + program, skipped)
    stride_om = row_stride(out_strides, ALIGNED)
    out_base = row_base(head_base(out_ptr, b, h, out_strides, ALIGNED), first_row, stride_om)
    store_channels(out_base, acc, 1.0 / running_sum, offs_m, stride_om, rows_left, HEAD_DIM, D_TILES)


def launch_self_attention(
    *,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    temperature: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
    skipped: torch.Tensor | None = None,
    tiles: Tiles | None = None,
) -> None:
    """Writes the attention of q to k and v into out. Allocates nothing and trusts its inputs.

    skipped takes, for each program (int32 [B, H, ceil(M / block_m)]), how many tiles of keys it skipped. tiles None are
    the table's.
    """
    if out.numel() == 0:
        return
    pointers = (
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if temperature is None else temperature.data_ptr(),
        out.data_ptr(),
        None if skipped is None else skipped.data_ptr(),
    )
    key = (
        q.get_device(),
        q.dtype,
        q.shape,
        q.stride(),
        k.shape,
        k.stride(),
        v.stride(),
        None if temperature is None else temperature.stride(),
        out.stride(),
        tiles,
        alignment(pointers),
        skipped is None,
        generation(),
    )
    if not _plans.launch(key, pointers, scale):
        launch = describe_self_attention(
            q=q, k=k, v=v, temperature=temperature, scale=scale, out=out, skipped=skipped, tiles=tiles
        )
        _plans.make(key, launch)


def describe_self_attention(
    *,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    temperature: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
    skipped: torch.Tensor | None = None,
    tiles: Tiles | None = None,
    device: str = "",
) -> Launch:
    """The launch of these arguments, on the architecture of that name or else on q's own."""
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[2]
    device = device or architecture(q.device)
    preferred = tiles or gluon_tiles(device, head_dim, queries)
    if preferred and preferred.kernel == "gluon":
        from attnmod.kernels.gluon import launch as hopper

        if not (obstacle := hopper.obstacle(q, k, v, out, device)):
            return hopper.describe_self_attention(
                q=q, k=k, v=v, temperature=temperature, scale=scale, out=out, tiles=preferred
            )
        if tiles:
            raise ValueError(f"these tiles are for the Gluon kernel, but {obstacle}")
    tiles = tiles or self_attention_tiles(device, head_dim, queries, q.element_size())
    arguments = dict(
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        temperature_ptr=temperature,
        out_ptr=out,
        skipped_ptr=skipped,
        q_strides=q.stride()[:3],
        k_strides=k.stride()[:3],
        v_strides=v.stride()[:3],
        temperature_strides=temperature_strides(temperature),
        out_strides=out.stride()[:3],
        scale=float(scale),
        num_queries=queries,
        num_keys=keys,
        HEAD_DIM=head_dim,
        D_TILES=channel_tiles(head_dim),
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        ALIGNED=aligned(q, k, v, out),
        HAS_TEMPERATURE=temperature is not None,
        EVEN_KEYS=keys % tiles.block_n == 0,
        OVERLAP="overlap" in tiles.options and keys >= tiles.block_n,
        LAZY_RESCALE="lazy_rescale" in tiles.options,
        POLYNOMIAL="polynomial" in tiles.options,
        SKIP="skip" in tiles.options,
        PRECISION=precision(q.dtype, device),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        enable_fp_fusion=True,
    )
    if tiles.max_registers:
        arguments["maxnreg"] = tiles.max_registers
    grid = (triton.cdiv(queries, tiles.block_m), heads, batch)
    return Launch(_self_attention_kernel, grid, arguments)
