"""Cross-attention of image patches to a short prompt, masked by entity and reweighted, in one pass.

    a     = softmax(s) A                      s = scale * q kT
    owner = argmax_g a
    out   = softmax(s + log f) v              f = w where visible to the owner, else w * hidden_weight

A UNet reads few text tokens (77) from many patches (4096): one program holds the scores of its patches against the
whole prompt in registers, so the vote, the mask and the weights are applied to them there, one exponential of each
score serves the vote and the attention, and nothing of size M x T exists in memory.

Its launcher also starts `swept_attention.py`, which takes heads that vote together and longer prompts.

Floors on an H100 SXM for SDXL's 4096 patches, 77 tokens, 10 heads, two rows, in fp16: 21.4 MB to read and write,
6.4 us; 1.6 Gflop of products and as much time again of exponentials, 1.7 us each. So it is bound by memory, but only
just by issue slots. The datasheet counts for sm_90 (Triton 3.9) 840 instructions of a warp for 16 patches, with the
vote, and some 780 once for a program of two such blocks: 5 such programs one after the other on a processor, of 4 warps
for 4 schedulers, issue for 7.0 us at 1.755 GHz. So we expect 7 to 9 us. Not measured.

Shapes: q, out [B, H, M, D]; k, v [B, H, T, D]; entity_bits, log_weights [B, T]; affinity [B, T, G];
hidden_weight [B]; owner [B, M]; owner_out [B, H, M] or [B, M]; affinity_out [B, M, G].
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
    cross_attention_form,
    cross_attention_tiles,
    generation,
    held_groups,
    precision,
    sweep_tiles,
    token_tiles,
)
from attnmod.kernels.modulate import (
    exponentials_and_sum,
    finite,
    given_owner,
    log_modulate,
    present_peak,
    present_sum,
)
from attnmod.kernels.plan import Launch, Plans, alignment
from attnmod.kernels.prompt import (
    any_entity,
    first_weight,
    load_log_hidden,
    prompt_bits,
    prompt_columns,
    prompt_matrix,
    prompt_scores,
    prompt_weights,
    row_is_present,
    weighted_values,
)
from attnmod.kernels.reference import MAX_ENTITIES
from attnmod.kernels.swept_attention import _swept_cross_attention_kernel
from attnmod.kernels.tiles import (
    LOG2_E,
    head_base,
    load_channels,
    row_base,
    row_stride,
    store_channels,
    zero_channels,
)
from attnmod.kernels.vote import (
    exponent_of,
    owner_bit,
    prompt_votes,
    scale_votes,
    vote_shares,
    voting_bits,
    voting_columns,
    voting_peak,
)

# How many programs of heads that vote together an H100 runs at once: two on each processor.
_PLACES = 2 * 132
_plans = Plans()


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
    scale,
    num_queries,
    num_tokens,
    num_entities,
    blocks_per_program: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_G: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    ALIGNED: tl.constexpr,
    HAS_ENTITIES: tl.constexpr,
    HAS_AFFINITY: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_HIDDEN_WEIGHT: tl.constexpr,
    HAS_OWNER: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    RETURN_OWNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: a few blocks of BLOCK_M patches of one row and head, with the same keys and values."""
    # under torch.compile a Python float arrives as float64; a factor that underflowed must not be zero
    coefficient = tl.maximum(tl.cast(scale, tl.float32) * LOG2_E, 1e-30)
    VOTE_DTYPE: tl.constexpr = tl.float32 if q_ptr.dtype.element_ty == tl.float32 else tl.float16
    VOTES: tl.constexpr = HAS_ENTITIES and not HAS_OWNER
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    first_row = tl.program_id(0) * (blocks_per_program * BLOCK_M)
    rows = tl.arange(0, BLOCK_M)
    k_base = head_base(k_ptr, b, h, k_strides, ALIGNED)
    v_base = head_base(v_ptr, b, h, v_strides, ALIGNED)
    q_base = row_base(head_base(q_ptr, b, h, q_strides, ALIGNED), first_row, row_stride(q_strides, ALIGNED))
    out_base = row_base(head_base(out_ptr, b, h, out_strides, ALIGNED), first_row, row_stride(out_strides, ALIGNED))
    q_stride = row_stride(q_strides, ALIGNED)
    out_stride = row_stride(out_strides, ALIGNED)

    # Two rounds of loads: what belongs to the row; then, in a row that has tokens, queries, keys and values.
    first = first_weight(weights_ptr, b, weights_strides, HAS_WEIGHTS)
    weights = prompt_weights(weights_ptr, b, weights_strides, 0, num_tokens, TOKEN_TILES, HAS_WEIGHTS)
    bits = ()
    if HAS_ENTITIES:
        bits = prompt_bits(bits_ptr, b, bits_strides, 0, num_tokens, TOKEN_TILES)
        log_hidden, hides = load_log_hidden(hidden_ptr, b, hidden_stride, HAS_HIDDEN_WEIGHT)
    if row_is_present(first, weights_ptr, b, weights_strides, num_tokens, HAS_WEIGHTS):
        q = ()
        for i in tl.static_range(blocks_per_program):
            block_ptr = q_base + i * BLOCK_M * q_stride
            left = num_queries - first_row - i * BLOCK_M
            q = q + (load_channels(block_ptr, rows, q_stride, left, HEAD_DIM, D_TILES, True),)
        k = prompt_matrix(k_base, weights, 0, row_stride(k_strides, ALIGNED), HEAD_DIM, D_TILES)
        v = prompt_matrix(v_base, weights, 0, row_stride(v_strides, ALIGNED), HEAD_DIM, D_TILES)
        columns, bit_columns = prompt_columns(weights, bits, HAS_WEIGHTS, HAS_ENTITIES)
        modulated = False
        if VOTES or (HAS_OWNER and RETURN_OWNER):  # an owner makes no difference where nothing is hidden
            modulated = any_entity(bits) & hides
        if VOTES:
            votes, largest_vote = prompt_votes(
                voting_bits(bits, weights), weights, affinity_ptr, b, affinity_strides, 0, num_entities, BLOCK_G,
                HAS_AFFINITY,
            )  # fmt: skip
            unit = tl.where(largest_vote > 0, largest_vote, 1.0)
            voting = voting_columns(votes, columns, bit_columns, HAS_AFFINITY)
            votes = scale_votes(votes, unit, HAS_AFFINITY, VOTE_DTYPE)
        for i in tl.static_range(blocks_per_program):
            left = num_queries - first_row - i * BLOCK_M
            offs_m = first_row + i * BLOCK_M + rows
            scores = prompt_scores(q[i], k, PRECISION)  # [BLOCK_M, width]
            if i > 0 and not VOTES:  # read again rather than kept in registers meanwhile: more programs fit
                weights = prompt_weights(weights_ptr, b, weights_strides, 0, num_tokens, TOKEN_TILES, HAS_WEIGHTS)
                if HAS_ENTITIES:
                    bits = prompt_bits(bits_ptr, b, bits_strides, 0, num_tokens, TOKEN_TILES)
                columns, bit_columns = prompt_columns(weights, bits, HAS_WEIGHTS, HAS_ENTITIES)
            owner = tl.full([BLOCK_M], 0, tl.uint32)
            row_hidden = tl.full([BLOCK_M], 0.0, tl.float32)
            reported = tl.full([BLOCK_M], -1, tl.int32)
            if HAS_OWNER:
                ptrs = owner_ptr + b * owner_strides[0] + offs_m.to(tl.int64) * owner_strides[1]
                given = tl.load(ptrs, mask=offs_m < num_queries, other=-1).to(tl.int32)
                owner, row_hidden = given_owner(given, log_hidden)
                if RETURN_OWNER:
                    reported = tl.where(modulated, given, -1)
            if VOTES:
                reference = finite(voting_peak(scores, voting, coefficient))
                shares = tl.zeros([BLOCK_M, BLOCK_G], tl.float32)
                shares = vote_shares(scores, coefficient, reference, votes, shares, PRECISION)
                owner = owner_bit(shares, BLOCK_G)
                row_hidden += tl.where(modulated, log_hidden, 0.0)
                reported = tl.where(modulated, exponent_of(owner), -1)
            peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
            exponents, peak = log_modulate(
                scores, coefficient, columns, bit_columns, owner, row_hidden, peak, HAS_ENTITIES
            )
            peak = finite(peak)
            f_e_s, total = exponentials_and_sum(exponents, peak)
            zeros = zero_channels(BLOCK_M, D_TILES)
            ones = tl.full([BLOCK_M], 1.0, tl.float32)
            out = weighted_values(f_e_s, v, zeros, ones, D_TILES, PRECISION)
            factor = 1.0 / tl.where(total > 0, total, 1.0)
            if not RENORMALIZE:
                plain_peak = present_peak(scores, columns, coefficient)
                factor = tl.where(total > 0, tl.exp2(peak - plain_peak), 0.0)
                factor = factor / present_sum(scores, columns, coefficient, plain_peak)
            store_channels(out_base + i * BLOCK_M * out_stride, out, factor, rows, out_stride, left, HEAD_DIM, D_TILES)
            if RETURN_OWNER:
                owner_base = owner_out_ptr + b * owner_out_strides[0] + h * owner_out_strides[1]
                tl.store(owner_base + offs_m, reported.to(tl.int8), mask=offs_m < num_queries)
    else:  # an empty text: zeros, and neither q, k nor v is read
        for i in tl.static_range(blocks_per_program):
            left = num_queries - first_row - i * BLOCK_M
            offs_m = first_row + i * BLOCK_M + rows
            zeros = zero_channels(BLOCK_M, D_TILES)
            factor = tl.full([BLOCK_M], 0.0, tl.float32)
            store_channels(
                out_base + i * BLOCK_M * out_stride, zeros, factor, rows, out_stride, left, HEAD_DIM, D_TILES
            )
            if RETURN_OWNER:
                owner_base = owner_out_ptr + b * owner_out_strides[0] + h * owner_out_strides[1]
                tl.store(owner_base + offs_m, tl.full([BLOCK_M], -1, tl.int8), mask=offs_m < num_queries)


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
    form: str | None = None,
    tiles: Tiles | None = None,
) -> None:
    """Writes out and, where given, owner_out and affinity_out. Allocates nothing and trusts its inputs.

    form and tiles None are the table's.
    """
    if out.numel() == 0:
        return
    tensors = (q, k, v, entity_bits, affinity, log_weights, hidden_weight, owner, out, owner_out, affinity_out)
    # lists made into tuples: generators cost twice as much, and this is every layer's way
    pointers = tuple([None if tensor is None else tensor.data_ptr() for tensor in tensors])
    key = (
        q.get_device(),
        q.dtype,
        q.shape,
        k.shape,
        tuple([None if tensor is None else tensor.stride() for tensor in tensors]),
        None if affinity is None else (affinity.dtype, affinity.shape[2]),
        share_heads,
        renormalize,
        form,
        tiles,
        alignment(pointers),
        generation(),
    )
    if not _plans.launch(key, pointers, scale):
        launch = describe_cross_attention(
            q=q,
            k=k,
            v=v,
            entity_bits=entity_bits,
            affinity=affinity,
            log_weights=log_weights,
            hidden_weight=hidden_weight,
            owner=owner,
            share_heads=share_heads,
            renormalize=renormalize,
            scale=scale,
            out=out,
            owner_out=owner_out,
            affinity_out=affinity_out,
            form=form,
            tiles=tiles,
        )
        _plans.make(key, launch)


def describe_cross_attention(
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
    form: str | None = None,
    tiles: Tiles | None = None,
    device: str = "",
) -> Launch:
    """The launch of these arguments, on the architecture of that name or else on q's own."""
    batch, heads, queries, head_dim = q.shape
    tokens = k.shape[2]
    entities = MAX_ENTITIES if affinity is None else affinity.shape[2]
    heads_vote_together = share_heads and owner is None
    device = device or architecture(q.device)
    votes = entity_bits is not None and owner is None
    form = form or cross_attention_form(device, head_dim, q.element_size(), tokens, votes, heads_vote_together)
    tiles = tiles or cross_attention_tiles(device, head_dim, form, queries, q.element_size())
    owner_strides = _strides(owner_out, 3)[:2]
    if owner_out is not None and share_heads:
        owner_strides = (owner_out.stride(0), 0)  # one map for all heads: each writes the same
    arguments = dict(
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
        owner_out_strides=owner_strides,
        scale=float(scale),
        num_queries=queries,
        num_tokens=tokens,
        num_entities=entities,
        HEAD_DIM=head_dim,
        D_TILES=channel_tiles(head_dim),
        BLOCK_M=tiles.block_m,
        BLOCK_G=max(16, triton.next_power_of_2(entities)),
        ALIGNED=aligned(q, k, v, out),
        HAS_ENTITIES=entity_bits is not None,
        HAS_AFFINITY=affinity is not None,
        HAS_WEIGHTS=log_weights is not None,
        HAS_HIDDEN_WEIGHT=hidden_weight is not None,
        HAS_OWNER=owner is not None,
        RENORMALIZE=renormalize,
        RETURN_OWNER=owner_out is not None,
        PRECISION=precision(q.dtype, device),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        enable_fp_fusion=True,
    )  # fmt: skip
    if tiles.max_registers:
        arguments["maxnreg"] = tiles.max_registers
    blocks = triton.cdiv(queries, tiles.block_m)
    if form == "prompt":
        del arguments["affinity_out_ptr"]
        programs = triton.cdiv(blocks, tiles.blocks_per_program)
        arguments |= dict(blocks_per_program=tiles.blocks_per_program, TOKEN_TILES=token_tiles(tokens))
        return Launch(_cross_attention_kernel, (programs, heads, batch), arguments)
    heads_per_program = 1
    if heads_vote_together:  # enough programs to fill the processors, each voting over all heads
        heads_per_program = triton.cdiv(heads, min(heads, max(1, _PLACES // (blocks * batch))))
    group = sweep_tiles(tokens, tiles.block_n)
    arguments |= dict(
        affinity_out_strides=_strides(affinity_out, 3)[:2],
        num_heads=heads,
        heads_per_program=heads_per_program,
        TOKEN_TILES=group,
        HELD_GROUPS=held_groups(device, head_dim, q.element_size(), tokens, sum(width for _, width in group)),
        SHARE_HEADS=heads_vote_together,
        RETURN_AFFINITY=affinity_out is not None,
    )
    return Launch(_swept_cross_attention_kernel, (blocks, triton.cdiv(heads, heads_per_program), batch), arguments)


def _strides(tensor: torch.Tensor | None, ndim: int) -> tuple[int, ...]:
    return (0,) * ndim if tensor is None else tensor.stride()
