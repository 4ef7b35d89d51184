"""Self-attention with a softmax temperature per row, read from the device.

    out = softmax(q kT * scale / tau) v

The image attends to itself: thousands of keys, so they stream past in tiles under a running maximum and a
running sum (FlashAttention's online softmax, arXiv 2205.14135), and no score reaches memory. The temperature
joins scale and log2 e in one factor per program, which makes a sharpened softmax as cheap as a plain one:
each score costs one fused multiply-add and one exp2.

Shapes: q, out [B, H, M, D]; k, v [B, H, T, D]; temperature [B] or [B, H].
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportCallIssue=false

import torch
import triton
import triton.language as tl

from attnmod.kernels.configs import architecture, padded_head_dim, precision, self_attention_tiles
from attnmod.kernels.reference import MIN_TEMPERATURE
from attnmod.kernels.tiles import LOG2_E, dot, load_rows, store_rows

_MIN_TEMPERATURE = tl.constexpr(MIN_TEMPERATURE)


@triton.jit
def _attend(
    q,
    k_base,
    v_base,
    start_n,
    num_keys,
    stride_kn,
    stride_vn,
    coefficient,
    acc,
    running_max,
    running_sum,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Takes one tile of keys and values into the running softmax."""
    offs_n = start_n + tl.arange(0, BLOCK_N)
    k = load_rows(k_base, offs_n, stride_kn, num_keys, HEAD_DIM, BLOCK_D, MASK_KEYS)  # [BLOCK_N, BLOCK_D]
    scores = dot(q, tl.trans(k), None, PRECISION)  # [BLOCK_M, BLOCK_N]
    if MASK_KEYS:
        scores = tl.where((offs_n < num_keys)[None, :], scores, float("-inf"))
    # The factor is positive, so the maximum may be taken before it is applied.
    tile_max = tl.maximum(running_max, tl.max(scores, 1) * coefficient)  # [BLOCK_M]
    p = tl.exp2(scores * coefficient - tile_max[:, None])  # [BLOCK_M, BLOCK_N]
    rescale = tl.exp2(running_max - tile_max)  # [BLOCK_M]
    running_sum = running_sum * rescale + tl.sum(p, 1)
    v = load_rows(v_base, offs_n, stride_vn, num_keys, HEAD_DIM, BLOCK_D, MASK_KEYS)  # [BLOCK_N, BLOCK_D]
    acc = dot(p.to(v.dtype), v, acc * rescale[:, None], PRECISION)  # [BLOCK_M, BLOCK_D]
    return acc, tile_max, running_sum


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
    num_heads,
    num_queries,
    num_keys,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_TEMPERATURE: tl.constexpr,
    EVEN_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BLOCK_M queries of one row and head against all of its keys."""
    coefficient = tl.cast(scale, tl.float32) * LOG2_E  # under torch.compile a Python float arrives as float64
    blocks = tl.cdiv(num_queries, BLOCK_M)
    pid = tl.program_id(0)
    b = (pid // blocks // num_heads).to(tl.int64)
    h = (pid // blocks % num_heads).to(tl.int64)
    offs_m = (pid % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)

    if HAS_TEMPERATURE:
        tau = tl.load(temperature_ptr + b * temperature_strides[0] + h * temperature_strides[1]).to(tl.float32)
        # written so that NaN takes the bound too: nobody has looked at this value
        coefficient = coefficient / tl.where(tau > _MIN_TEMPERATURE, tau, _MIN_TEMPERATURE)
    # -inf * 0 of a masked key would be NaN: a factor that underflowed must not be zero
    coefficient = tl.maximum(coefficient, 1e-30)

    k_base = k_ptr + b * k_strides[0] + h * k_strides[1]
    v_base = v_ptr + b * v_strides[0] + h * v_strides[1]
    q_base = q_ptr + b * q_strides[0] + h * q_strides[1]
    q = load_rows(q_base, offs_m, q_strides[2], num_queries, HEAD_DIM, BLOCK_D, True)  # [BLOCK_M, BLOCK_D]

    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    running_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_M], tl.float32)
    full_keys = num_keys // BLOCK_N * BLOCK_N
    for start_n in range(0, full_keys, BLOCK_N):
        acc, running_max, running_sum = _attend(
            q,
            k_base,
            v_base,
            start_n,
            num_keys,
            k_strides[2],
            v_strides[2],
            coefficient,
            acc,
            running_max,
            running_sum,
            HEAD_DIM,
            BLOCK_D,
            BLOCK_N,
            False,
            PRECISION,
        )
    if not EVEN_KEYS:
        acc, running_max, running_sum = _attend(
            q,
            k_base,
            v_base,
            full_keys,
            num_keys,
            k_strides[2],
            v_strides[2],
            coefficient,
            acc,
            running_max,
            running_sum,
            HEAD_DIM,
            BLOCK_D,
            BLOCK_N,
            True,
            PRECISION,
        )
    out_base = out_ptr + b * out_strides[0] + h * out_strides[1]
    store_rows(out_base, acc / running_sum[:, None], offs_m, out_strides[2], num_queries, HEAD_DIM, BLOCK_D)


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
    tiles = self_attention_tiles(architecture(q.device), head_dim, queries, q.element_size())
    if temperature is None:
        temperature_strides = (0, 0)
    else:  # [B] is [B, H] whose heads share a value
        temperature_strides = (temperature.stride(0), temperature.stride(1) if temperature.ndim == 2 else 0)
    _self_attention_kernel[(triton.cdiv(queries, tiles.block_m) * batch * heads,)](
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
        num_heads=heads,
        num_queries=queries,
        num_keys=keys,
        HEAD_DIM=head_dim,
        BLOCK_D=padded_head_dim(head_dim),
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        HAS_TEMPERATURE=temperature is not None,
        EVEN_KEYS=keys % tiles.block_n == 0,
        PRECISION=precision(q.dtype),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        enable_fp_fusion=True,
    )
