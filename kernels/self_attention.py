"""Self-attention with a softmax temperature per row, read from the device.

    out = softmax(q kT * scale / tau) v

The image attends to itself: thousands of keys, so they stream past in tiles under a running maximum and a
running sum (FlashAttention's online softmax, arXiv 2205.14135), and no score reaches memory. The temperature
joins scale and log2 e in one factor per program, which makes a sharpened softmax as cheap as a plain one:
each score costs one fused multiply-add and one exp2.

Floors on an H100 SXM for SDXL's 4096 patches, 10 heads, two rows, in fp16: 85.9 Gflop of products take 90.5 us, and as
many exponentials (16 a clock and processor) as long again: 90.5 us if the two overlap wholly, 181 us if not at all;
42 MB to read and write, 12.5 us. A score needs at least 4.5 instructions: multiply-add, exponential, sum, maximum,
half a conversion. The datasheet counts 7.7 on sm_90 for tiles of 64 x 128, against 8.1 for 128 x 64: 87 us of issue
slots, below the exponentials' 90.5. So of the tiles we expect 64 x 128 with two blocks on a processor to win,
for one block's products then run beside another's exponentials. Not measured.

Shapes: q, out [B, H, M, D]; k, v [B, H, T, D]; temperature [B] or [B, H].
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl

from attnmod.kernels.configs import aligned, architecture, channel_tiles, precision, self_attention_tiles
from attnmod.kernels.reference import MIN_TEMPERATURE
from attnmod.kernels.tiles import (
    LOG2_E,
    dot,
    dot_channels,
    head_base,
    load_channels,
    row_stride,
    store_channels,
    zero_channels,
)

_MIN_TEMPERATURE = tl.constexpr(MIN_TEMPERATURE)


@triton.jit
def _attend(
    q,
    k_base,
    v_base,
    stride_kn,
    stride_vn,
    num_keys,
    coefficient,
    acc,
    running_max,
    running_sum,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Takes the first BLOCK_N of num_keys keys and values into the running softmax."""
    offs_n = tl.arange(0, BLOCK_N)
    k = load_channels(k_base, offs_n, stride_kn, num_keys, HEAD_DIM, D_TILES, MASK_KEYS)  # [BLOCK_N, D]
    scores = dot_channels(q, k, PRECISION)  # [BLOCK_M, BLOCK_N]
    if MASK_KEYS:
        scores = tl.where((offs_n < num_keys)[None, :], scores, float("-inf"))
    # The factor is positive, so the maximum may be taken before it is applied.
    tile_max = tl.maximum(running_max, tl.max(scores, 1) * coefficient)  # [BLOCK_M]
    p = tl.exp2(scores * coefficient - tile_max[:, None])  # [BLOCK_M, BLOCK_N]
    rescale = tl.exp2(running_max - tile_max)  # [BLOCK_M]
    running_sum = running_sum * rescale + tl.sum(p, 1)
    v = load_channels(v_base, offs_n, stride_vn, num_keys, HEAD_DIM, D_TILES, MASK_KEYS)  # [BLOCK_N, D]
    results = ()
    for c in tl.static_range(len(D_TILES)):
        results = results + (dot(p.to(v[c].dtype), v[c], acc[c] * rescale[:, None], PRECISION),)  # [BLOCK_M, D]
    return results, tile_max, running_sum


@triton.jit
def _self_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    temperature_ptr,
    out_ptr,
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
    PRECISION: tl.constexpr,
):
    """One program: BLOCK_M queries of one row and head against all of its keys."""
    coefficient = tl.cast(scale, tl.float32) * LOG2_E  # under torch.compile a Python float arrives as float64
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)

    if HAS_TEMPERATURE:
        tau = tl.load(temperature_ptr + b * temperature_strides[0] + h * temperature_strides[1]).to(tl.float32)
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / tl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = tl.maximum(coefficient, 1e-30)

    k_base = head_base(k_ptr, b, h, k_strides, ALIGNED)
    v_base = head_base(v_ptr, b, h, v_strides, ALIGNED)
    q_base = head_base(q_ptr, b, h, q_strides, ALIGNED)
    q = load_channels(q_base, offs_m, row_stride(q_strides, ALIGNED), num_queries, HEAD_DIM, D_TILES, True)

    acc = zero_channels(BLOCK_M, D_TILES)
    running_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_M], tl.float32)
    stride_kn = row_stride(k_strides, ALIGNED)
    stride_vn = row_stride(v_strides, ALIGNED)
    full_keys = num_keys // BLOCK_N * BLOCK_N
    for _ in range(0, full_keys, BLOCK_N):
        acc, running_max, running_sum = _attend(
            q, k_base, v_base, stride_kn, stride_vn, num_keys, coefficient, acc, running_max, running_sum,
            HEAD_DIM, D_TILES, BLOCK_N, False, PRECISION,
        )  # fmt: skip
        k_base += tl.cast(stride_kn, tl.int64) * BLOCK_N
        v_base += tl.cast(stride_vn, tl.int64) * BLOCK_N
    if not EVEN_KEYS:
        acc, running_max, running_sum = _attend(
            q, k_base, v_base, stride_kn, stride_vn, num_keys - full_keys, coefficient, acc, running_max, running_sum,
            HEAD_DIM, D_TILES, BLOCK_N, True, PRECISION,
        )  # fmt: skip
    out_base = head_base(out_ptr, b, h, out_strides, ALIGNED)
    out_stride = row_stride(out_strides, ALIGNED)
    store_channels(out_base, acc, 1.0 / running_sum, offs_m, out_stride, num_queries, HEAD_DIM, D_TILES)


def launch_self_attention(
    *,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    temperature: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
) -> None:
    """Writes the attention of q to k and v into out. Allocates nothing and trusts its inputs."""
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[2]
    if out.numel() == 0:
        return
    device = architecture(q.device)
    tiles = self_attention_tiles(device, head_dim, queries, q.element_size())
    if temperature is None:
        temperature_strides = (0, 0)
    else:  # [B] is [B, H] whose heads share a value
        temperature_strides = (temperature.stride(0), temperature.stride(1) if temperature.ndim == 2 else 0)
    _self_attention_kernel[(triton.cdiv(queries, tiles.block_m), heads, batch)](
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        temperature_ptr=temperature,
        out_ptr=out,
        q_strides=q.stride()[:3],
        k_strides=k.stride()[:3],
        v_strides=v.stride()[:3],
        temperature_strides=temperature_strides,
        out_strides=out.stride()[:3],
        scale=scale,
        num_queries=queries,
        num_keys=keys,
        HEAD_DIM=head_dim,
        D_TILES=channel_tiles(head_dim),
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        ALIGNED=aligned(q, k, v, out),
        HAS_TEMPERATURE=temperature is not None,
        EVEN_KEYS=keys % tiles.block_n == 0,
        PRECISION=precision(q.dtype, device),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        enable_fp_fusion=True,
    )
