"""Cross-attention of image patches to a short prompt, masked by entity and reweighted, in one pass.

    a     = softmax(s) A                      s = scale * q kT
    owner = argmax_g a
    out   = softmax(s + log f) v              f = w where visible to the owner, else w * hidden_weight

A UNet reads few text tokens (77) from many patches (4096): one program holds the scores of its patches
against the whole prompt in registers, so the vote, the mask and the weights are applied to them there, each
exponential is taken under a maximum that is known beforehand, and nothing of size M x T exists in memory. The
prompt is cut into tiles of exact width (77 = 64 + 16), because a power of two would compute 128 columns.

Where the heads vote together, one program takes its patches through all heads twice: first to vote, then
to attend. Scores are computed twice, but there is no second launch and no atomic sum, so the order of every
addition is fixed.

Shapes: q, out [B, H, M, D]; k, v [B, H, T, D]; entity_bits, log_weights [B, T]; affinity [B, T, G];
hidden_weight [B]; owner [B, M]; owner_out [B, H, M] or [B, M]; affinity_out [B, M, G].
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl

from attnmod.kernels.configs import architecture, cross_attention_tiles, padded_head_dim, precision, token_tiles
from attnmod.kernels.reference import MAX_ENTITIES, MAX_LOG_WEIGHT
from attnmod.kernels.tiles import LOG2_E, dot, load_rows, store_rows
from attnmod.kernels.vote import entity_shares, first_largest, token_bits, token_votes

_MAX_LOG_WEIGHT = tl.constexpr(MAX_LOG_WEIGHT)


@triton.jit
def _token_weights(weights_ptr, b, weights_strides, num_tokens, TOKEN_TILES: tl.constexpr, HAS_WEIGHTS: tl.constexpr):
    """log2 w of every token as a tuple of [width], -inf where there is none; and whether there is any token."""
    weights = ()
    any_present = False
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        inside = offs_n < num_tokens
        if HAS_WEIGHTS:
            ptrs = weights_ptr + b * weights_strides[0] + offs_n.to(tl.int64) * weights_strides[1]
            log_weight = tl.load(ptrs, mask=inside, other=float("-inf"))
            # NaN, which nobody may have looked for, compares false and counts as absent
            weight = tl.where(
                log_weight > float("-inf"), tl.minimum(log_weight, _MAX_LOG_WEIGHT) * LOG2_E, float("-inf")
            )
        else:
            weight = tl.where(inside, 0.0, float("-inf"))
        weights = weights + (weight,)
        any_present = any_present | (tl.max(weight, 0) > float("-inf"))
    return weights, any_present


@triton.jit
def _prompt_scores(
    q,
    k_base,
    stride_n,
    num_tokens,
    coefficient,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The scores against the whole prompt, in log2: a tuple of [BLOCK_M, width]."""
    scores = ()
    for i in tl.static_range(len(TOKEN_TILES)):
        offs_n = TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        k = load_rows(k_base, offs_n, stride_n, num_tokens, HEAD_DIM, BLOCK_D, True)  # [width, BLOCK_D]
        scores = scores + (dot(q, tl.trans(k), None, PRECISION) * coefficient,)  # [BLOCK_M, width]
    return scores


@triton.jit
def _plain_softmax(scores, weights, TOKEN_TILES: tl.constexpr):
    """Maximum and sum, [BLOCK_M] each, of the unmodulated softmax over the present tokens."""
    peak = tl.full([scores[0].shape[0]], float("-inf"), tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        present = (weights[i] > float("-inf"))[None, :]
        peak = tl.maximum(peak, tl.max(tl.where(present, scores[i], float("-inf")), 1))
    total = tl.zeros([scores[0].shape[0]], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        present = (weights[i] > float("-inf"))[None, :]
        total += tl.sum(tl.where(present, tl.exp2(scores[i] - peak[:, None]), 0.0), 1)
    return peak, total


@triton.jit
def _attend(
    scores,
    weights,
    bits,
    owner,
    log_hidden,
    v_base,
    stride_n,
    num_tokens,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    HAS_ENTITIES: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sum_n f e^s v[n] over its denominator, [BLOCK_M, BLOCK_D]."""
    exponents = ()
    peak = tl.full([scores[0].shape[0]], float("-inf"), tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        # a select, not a sum alone: an absent token's score may be anything
        exponent = tl.where((weights[i] > float("-inf"))[None, :], scores[i] + weights[i][None, :], float("-inf"))
        if HAS_ENTITIES:
            # masked to 5 bits, since a shift by more is undefined and nobody may have looked at a given owner
            owned = (bits[i][None, :] >> (owner & 31).to(tl.uint32)[:, None]) & 1
            exponent = tl.where((owner < 0)[:, None] | (owned != 0), exponent, exponent + log_hidden)
        exponents = exponents + (exponent,)  # [BLOCK_M, width]
        peak = tl.maximum(peak, tl.max(exponent, 1))
    sees_any = peak > float("-inf")
    peak = tl.where(sees_any, peak, 0.0)

    total = tl.zeros([scores[0].shape[0]], tl.float32)
    acc = tl.zeros([scores[0].shape[0], BLOCK_D], tl.float32)
    for i in tl.static_range(len(TOKEN_TILES)):
        p = tl.exp2(exponents[i] - peak[:, None])  # [BLOCK_M, width]
        total += tl.sum(p, 1)
        offs_n = TOKEN_TILES[i][0] + tl.arange(0, TOKEN_TILES[i][1])
        v = load_rows(v_base, offs_n, stride_n, num_tokens, HEAD_DIM, BLOCK_D, True)  # [width, BLOCK_D]
        acc = dot(p.to(v.dtype), v, acc, PRECISION)  # [BLOCK_M, BLOCK_D]
    if RENORMALIZE:
        factor = 1.0 / tl.where(sees_any, total, 1.0)
    else:
        plain_peak, plain_total = _plain_softmax(scores, weights, TOKEN_TILES)
        factor = tl.exp2(peak - plain_peak) / plain_total
    # a patch that sees no token gets zeros
    return acc * tl.where(sees_any, factor, 0.0)[:, None]


@triton.jit
def _cross_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    bits_ptr,
    affinity_ptr,
    weights_ptr,
    hidden_ptr,
    owner_ptr,
    out_ptr,
    owner_out_ptr,
    affinity_out_ptr,
    q_strides,
    k_strides,
    v_strides,
    bits_strides,
    affinity_strides,
    weights_strides,
    hidden_stride,
    owner_strides,
    out_strides,
    owner_out_strides,
    affinity_out_strides,
    scale,
    num_heads,
    num_queries,
    num_tokens,
    num_entities,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_G: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    HAS_ENTITIES: tl.constexpr,
    HAS_AFFINITY: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_HIDDEN_WEIGHT: tl.constexpr,
    HAS_OWNER: tl.constexpr,
    SHARE_HEADS: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    RETURN_OWNER: tl.constexpr,
    RETURN_AFFINITY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BLOCK_M patches of one row, with one head or, where the heads vote together, with all."""
    coefficient = tl.cast(scale, tl.float32) * LOG2_E  # under torch.compile a Python float arrives as float64
    VOTE_DTYPE: tl.constexpr = tl.float32 if q_ptr.dtype.element_ty == tl.float32 else tl.float16
    blocks = tl.cdiv(num_queries, BLOCK_M)
    pid = tl.program_id(0)
    offs_m = (pid % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    if SHARE_HEADS:
        b = (pid // blocks).to(tl.int64)
        first_head = tl.full([], 0, tl.int64)
        heads = num_heads
    else:
        b = (pid // blocks // num_heads).to(tl.int64)
        first_head = (pid // blocks % num_heads).to(tl.int64)
        heads = 1

    # What holds for the row: its tokens, and whether an owner makes a difference.
    weights, any_present = _token_weights(weights_ptr, b, weights_strides, num_tokens, TOKEN_TILES, HAS_WEIGHTS)
    owner = tl.full([BLOCK_M], -1, tl.int32)
    bits = ()
    modulated = any_present
    log_hidden = float("-inf")
    if HAS_ENTITIES:
        bits, any_entity = token_bits(bits_ptr, b, bits_strides, num_tokens, TOKEN_TILES)
        modulated = modulated & any_entity
        if HAS_HIDDEN_WEIGHT:
            hidden_weight = tl.load(hidden_ptr + b * hidden_stride).to(tl.float32)
            modulated = modulated & (hidden_weight != 1.0)
            # outside 0 to 1 only where nobody has looked
            log_hidden = tl.where(hidden_weight > 0, tl.log2(tl.minimum(hidden_weight, 1.0)), float("-inf"))
        if HAS_OWNER:  # noqa: SIM102 - the first is decided at compile time, the second is not
            if modulated:
                owner_base = owner_ptr + b * owner_strides[0]
                inside = offs_m < num_queries
                owner = tl.load(owner_base + offs_m.to(tl.int64) * owner_strides[1], mask=inside, other=-1)
                owner = owner.to(tl.int32)

    if SHARE_HEADS and not HAS_OWNER:
        mean_affinity = tl.zeros([BLOCK_M, BLOCK_G], tl.float32)
        if modulated:
            votes, voting, unit = token_votes(
                bits,
                weights,
                affinity_ptr,
                b,
                affinity_strides,
                num_tokens,
                num_entities,
                BLOCK_G,
                TOKEN_TILES,
                HAS_AFFINITY,
            )
            for step in range(heads):
                h = first_head + step
                q_base = q_ptr + b * q_strides[0] + h * q_strides[1]
                k_base = k_ptr + b * k_strides[0] + h * k_strides[1]
                q = load_rows(q_base, offs_m, q_strides[2], num_queries, HEAD_DIM, BLOCK_D, True)
                scores = _prompt_scores(
                    q, k_base, k_strides[2], num_tokens, coefficient, HEAD_DIM, BLOCK_D, TOKEN_TILES, PRECISION
                )
                shares, vote_peak = entity_shares(scores, votes, voting, BLOCK_G, TOKEN_TILES, VOTE_DTYPE, PRECISION)
                # heads can be compared only as true probabilities
                peak, total = _plain_softmax(scores, weights, TOKEN_TILES)
                mean_affinity += shares * (tl.exp2(vote_peak - peak) / total)[:, None]
            mean_affinity = mean_affinity * (unit / num_heads)
            owner = first_largest(mean_affinity, num_entities, BLOCK_G)
        if RETURN_AFFINITY:
            offs_g = tl.arange(0, BLOCK_G)
            affinity_out_base = affinity_out_ptr + b * affinity_out_strides[0]
            ptrs = affinity_out_base + offs_m.to(tl.int64)[:, None] * affinity_out_strides[1] + offs_g[None, :]
            tl.store(ptrs, mean_affinity, mask=(offs_m < num_queries)[:, None] & (offs_g < num_entities)[None, :])

    for step in range(heads):
        h = first_head + step
        out = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        if any_present:  # an empty text: zeros, and neither q, k nor v is read
            q_base = q_ptr + b * q_strides[0] + h * q_strides[1]
            k_base = k_ptr + b * k_strides[0] + h * k_strides[1]
            v_base = v_ptr + b * v_strides[0] + h * v_strides[1]
            q = load_rows(q_base, offs_m, q_strides[2], num_queries, HEAD_DIM, BLOCK_D, True)  # [BLOCK_M, BLOCK_D]
            scores = _prompt_scores(
                q, k_base, k_strides[2], num_tokens, coefficient, HEAD_DIM, BLOCK_D, TOKEN_TILES, PRECISION
            )
            if HAS_ENTITIES and not SHARE_HEADS and not HAS_OWNER:  # noqa: SIM102 - as above
                if modulated:
                    votes, voting, _ = token_votes(
                        bits,
                        weights,
                        affinity_ptr,
                        b,
                        affinity_strides,
                        num_tokens,
                        num_entities,
                        BLOCK_G,
                        TOKEN_TILES,
                        HAS_AFFINITY,
                    )
                    shares, _ = entity_shares(scores, votes, voting, BLOCK_G, TOKEN_TILES, VOTE_DTYPE, PRECISION)
                    owner = first_largest(shares, num_entities, BLOCK_G)
            out = _attend(
                scores,
                weights,
                bits,
                owner,
                log_hidden,
                v_base,
                v_strides[2],
                num_tokens,
                HEAD_DIM,
                BLOCK_D,
                TOKEN_TILES,
                HAS_ENTITIES,
                RENORMALIZE,
                PRECISION,
            )
        out_base = out_ptr + b * out_strides[0] + h * out_strides[1]
        store_rows(out_base, out, offs_m, out_strides[2], num_queries, HEAD_DIM, BLOCK_D)
        if RETURN_OWNER and not SHARE_HEADS:
            owner_base = owner_out_ptr + b * owner_out_strides[0] + h * owner_out_strides[1]
            tl.store(owner_base + offs_m, owner.to(tl.int8), mask=offs_m < num_queries)
    if RETURN_OWNER and SHARE_HEADS:
        tl.store(owner_out_ptr + b * owner_out_strides[0] + offs_m, owner.to(tl.int8), mask=offs_m < num_queries)


def launch_cross_attention(
    *,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    entity_bits: torch.Tensor | None,
    affinity: torch.Tensor | None,
    log_weights: torch.Tensor | None,
    hidden_weight: torch.Tensor | None,
    owner: torch.Tensor | None,
    share_heads: bool,
    renormalize: bool,
    scale: float,
    out: torch.Tensor,
    owner_out: torch.Tensor | None,
    affinity_out: torch.Tensor | None,
) -> None:
    """Writes out and, where given, owner_out and affinity_out. Allocates nothing and trusts its inputs."""
    batch, heads, queries, head_dim = q.shape
    tokens = k.shape[2]
    if out.numel() == 0:
        return
    tiles = cross_attention_tiles(architecture(q.device), head_dim, tokens, q.element_size())
    entities = MAX_ENTITIES if affinity is None else affinity.shape[2]
    programs = triton.cdiv(queries, tiles.block_m) * batch * (1 if share_heads else heads)
    _cross_attention_kernel[(programs,)](
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        bits_ptr=entity_bits,
        affinity_ptr=affinity,
        weights_ptr=log_weights,
        hidden_ptr=hidden_weight,
        owner_ptr=owner,
        out_ptr=out,
        owner_out_ptr=owner_out,
        affinity_out_ptr=affinity_out,
        q_strides=q.stride()[:3],
        k_strides=k.stride()[:3],
        v_strides=v.stride()[:3],
        bits_strides=_strides(entity_bits, 2),
        affinity_strides=_strides(affinity, 3),
        weights_strides=_strides(log_weights, 2),
        hidden_stride=_strides(hidden_weight, 1)[0],
        owner_strides=_strides(owner, 2),
        out_strides=out.stride()[:3],
        owner_out_strides=_strides(owner_out, 3)[:2],
        affinity_out_strides=_strides(affinity_out, 3)[:2],
        scale=scale,
        num_heads=heads,
        num_queries=queries,
        num_tokens=tokens,
        num_entities=entities,
        HEAD_DIM=head_dim,
        BLOCK_D=padded_head_dim(head_dim),
        BLOCK_M=tiles.block_m,
        BLOCK_G=max(16, triton.next_power_of_2(entities)),
        TOKEN_TILES=token_tiles(tokens),
        HAS_ENTITIES=entity_bits is not None,
        HAS_AFFINITY=affinity is not None,
        HAS_WEIGHTS=log_weights is not None,
        HAS_HIDDEN_WEIGHT=hidden_weight is not None,
        HAS_OWNER=owner is not None,
        SHARE_HEADS=share_heads,
        RENORMALIZE=renormalize,
        RETURN_OWNER=owner_out is not None,
        RETURN_AFFINITY=affinity_out is not None,
        PRECISION=precision(q.dtype),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        enable_fp_fusion=True,
    )


def _strides(tensor: torch.Tensor | None, ndim: int) -> tuple[int, ...]:
    return (0,) * ndim if tensor is None else tensor.stride()
