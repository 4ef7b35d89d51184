"""Cross-attention in two sweeps: for heads that vote together, and for prompts too long to be held in registers.

    first sweep    owner = argmax_g of sum over the program's heads of softmax(s) A
    second sweep   out = softmax(s + log f) v, under the owners of the first

The scores are computed again in the second sweep: products are the cheap part, and there is no second launch and no
atomic sum, so the order of every addition is fixed. A prompt passes in groups of up to 80 tokens, one window of
CLIP, under a running maximum and a running sum; a single group stays in shared memory for all heads.

Floors on an H100 SXM for SDXL's 4096 patches, 10 heads, two rows, in fp16, where the heads vote together: at 77 tokens
21.4 MB to read and write, 6.4 us (q and k are found in the cache when read again); 2.4 Gflop of products, 2.6 us,
and exponentials twice, 3.4 us; at 231 tokens 22.2 MB, 6.6 us, and 7.7 and 10.2 us. Not measured.

Where there are too few patches to fill the processors, several programs share the heads between them: each votes over
all of them and attends for its own.

Shapes: as in `cross_attention.py`.
"""

# Triton's language is not Python's to a type checker.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from attnmod.kernels.modulate import (
    exponentials_and_sum,
    finite,
    given_owner,
    log_modulate,
    present_peak,
    present_sum,
)
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
from attnmod.kernels.tiles import LOG2_E, head_base, load_channels, row_base, row_stride, store_channels, zero_channels
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


@triton.jit
def _load_tokens(
    weights_ptr, weights_strides, bits_ptr, bits_strides, b, start, num_tokens, TOKEN_TILES: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr, HAS_ENTITIES: tl.constexpr,
):  # fmt: skip
    """Weights and bits of the group of tokens from start."""
    bits = ()
    if HAS_ENTITIES:
        bits = prompt_bits(bits_ptr, b, bits_strides, start, num_tokens, TOKEN_TILES)
    return prompt_weights(weights_ptr, b, weights_strides, start, num_tokens, TOKEN_TILES, HAS_WEIGHTS), bits


@triton.jit
def _group_votes(
    weights, bits, affinity_ptr, b, affinity_strides, start, num_entities, unit, BLOCK_G: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr, HAS_AFFINITY: tl.constexpr, VOTE_DTYPE: tl.constexpr,
):  # fmt: skip
    """Columns of a group of tokens, and how they vote."""
    votes, _ = prompt_votes(
        voting_bits(bits, weights), weights, affinity_ptr, b, affinity_strides, start, num_entities, BLOCK_G,
        HAS_AFFINITY,
    )  # fmt: skip
    columns, bit_columns = prompt_columns(weights, bits, HAS_WEIGHTS, True)
    voting = voting_columns(votes, columns, bit_columns, HAS_AFFINITY)
    return columns, bit_columns, scale_votes(votes, unit, HAS_AFFINITY, VOTE_DTYPE), voting


@triton.jit
def _vote_group(
    q, k, columns, votes, voting, coefficient, peak, total, vote_peak, shares,
    SHARE_HEADS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Takes one group of tokens into the running vote: its maximum and shares; and the maximum and sum of all tokens.

    The latter two are asked for only where heads are to be compared.
    """
    scores = prompt_scores(q, k, PRECISION)
    before = vote_peak
    vote_peak = tl.maximum(vote_peak, voting_peak(scores, voting, coefficient))
    reference = finite(vote_peak)
    rescaled = shares * tl.exp2(before - reference)[:, None]
    shares = vote_shares(scores, coefficient, reference, votes, rescaled, PRECISION)
    if SHARE_HEADS:
        before = peak
        peak = tl.maximum(peak, present_peak(scores, columns, coefficient))
        total = total * tl.exp2(before - finite(peak)) + present_sum(scores, columns, coefficient, finite(peak))
    return peak, total, vote_peak, shares


@triton.jit
def _attend_group(
    q, k, v, columns, bit_columns, owner, row_hidden, coefficient, peak, total, acc, plain_peak, plain_total,
    D_TILES: tl.constexpr, HAS_ENTITIES: tl.constexpr, RENORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Takes one group of tokens into the running softmax."""
    scores = prompt_scores(q, k, PRECISION)
    before = peak
    exponents, peak = log_modulate(scores, coefficient, columns, bit_columns, owner, row_hidden, peak, HAS_ENTITIES)
    f_e_s, group_total = exponentials_and_sum(exponents, finite(peak))
    rescale = tl.exp2(before - finite(peak))
    total = total * rescale + group_total
    acc = weighted_values(f_e_s, v, acc, rescale, D_TILES, PRECISION)
    if not RENORMALIZE:
        before = plain_peak
        plain_peak = tl.maximum(plain_peak, present_peak(scores, columns, coefficient))
        group_total = present_sum(scores, columns, coefficient, finite(plain_peak))
        plain_total = plain_total * tl.exp2(before - finite(plain_peak)) + group_total
    return peak, total, acc, plain_peak, plain_total


@triton.jit
def _swept_cross_attention_kernel(
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
    heads_per_program,
    num_queries,
    num_tokens,
    num_entities,
    HEAD_DIM: tl.constexpr,
    D_TILES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_G: tl.constexpr,
    TOKEN_TILES: tl.constexpr,
    HELD_GROUPS: tl.constexpr,
    ALIGNED: tl.constexpr,
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
    """One program: BLOCK_M patches of one row with one head or, where the heads vote together, with a share of them."""
    # under torch.compile a Python float arrives as float64; a factor that underflowed must not be zero
    coefficient = tl.maximum(tl.cast(scale, tl.float32) * LOG2_E, 1e-30)
    VOTE_DTYPE: tl.constexpr = tl.float32 if q_ptr.dtype.element_ty == tl.float32 else tl.float16
    VOTES: tl.constexpr = HAS_ENTITIES and not HAS_OWNER
    # where the loop over heads is the innermost, the next head's queries, keys and values are under way meanwhile
    HEADS_AHEAD: tl.constexpr = 3 if HELD_GROUPS == 1 else 1
    GROUP: tl.constexpr = TOKEN_TILES[len(TOKEN_TILES) - 1][0] + TOKEN_TILES[len(TOKEN_TILES) - 1][1]
    first_row = tl.program_id(0) * BLOCK_M
    rows = tl.arange(0, BLOCK_M)
    left = num_queries - first_row
    offs_m = first_row + rows
    q_stride = row_stride(q_strides, ALIGNED)
    k_stride = row_stride(k_strides, ALIGNED)
    v_stride = row_stride(v_strides, ALIGNED)
    out_stride = row_stride(out_strides, ALIGNED)
    b = tl.program_id(2).to(tl.int64)
    first_head = tl.program_id(1) * heads_per_program
    last_head = first_head + 1
    if heads_per_program > 1:
        last_head = tl.minimum(first_head + heads_per_program, num_heads)

    # What holds for the row: whether there is text, whether an owner makes a difference, the unit of the votes.
    first = first_weight(weights_ptr, b, weights_strides, HAS_WEIGHTS)
    present = row_is_present(first, weights_ptr, b, weights_strides, num_tokens, HAS_WEIGHTS)
    modulated = tl.full([], 0, tl.int1)
    largest_vote = tl.full([], 0.0, tl.float32)
    if HAS_ENTITIES:
        log_hidden, hides = load_log_hidden(hidden_ptr, b, hidden_stride, HAS_HIDDEN_WEIGHT)
        if VOTES or RETURN_OWNER:
            for start in range(0, num_tokens, GROUP):
                bits = prompt_bits(bits_ptr, b, bits_strides, start, num_tokens, TOKEN_TILES)
                modulated = modulated | any_entity(bits)
                if HAS_AFFINITY:
                    weights = prompt_weights(
                        weights_ptr, b, weights_strides, start, num_tokens, TOKEN_TILES, HAS_WEIGHTS
                    )
                    _, group_vote = prompt_votes(
                        bits, weights, affinity_ptr, b, affinity_strides, start, num_entities, BLOCK_G, True
                    )
                    largest_vote = tl.maximum(largest_vote, group_vote)
            modulated = modulated & hides & present
    unit = tl.where(largest_vote > 0, largest_vote, 1.0)
    if HELD_GROUPS == 1:  # what belongs to the tokens is the same for all heads
        held_weights, held_bits = _load_tokens(
            weights_ptr, weights_strides, bits_ptr, bits_strides, b, 0, num_tokens, TOKEN_TILES, HAS_WEIGHTS,
            HAS_ENTITIES,
        )  # fmt: skip
        if VOTES:
            held_columns, held_bit_columns, held_votes, held_voting = _group_votes(
                held_weights, held_bits, affinity_ptr, b, affinity_strides, 0, num_entities, unit, BLOCK_G, HAS_WEIGHTS,
                HAS_AFFINITY, VOTE_DTYPE,
            )  # fmt: skip
        else:
            held_columns, held_bit_columns = prompt_columns(held_weights, held_bits, HAS_WEIGHTS, HAS_ENTITIES)

    owner = tl.full([BLOCK_M], 0, tl.uint32)
    row_hidden = tl.zeros([BLOCK_M], tl.float32)
    reported = tl.full([BLOCK_M], -1, tl.int32)
    if HAS_OWNER:
        ptrs = owner_ptr + b * owner_strides[0] + offs_m.to(tl.int64) * owner_strides[1]
        given = tl.load(ptrs, mask=offs_m < num_queries, other=-1).to(tl.int32)
        owner, row_hidden = given_owner(given, log_hidden)
        reported = tl.where(modulated, given, -1)

    if VOTES:
        affinity = tl.zeros([BLOCK_M, BLOCK_G], tl.float32)
        scale_of_affinity = tl.full([BLOCK_M], float("-inf"), tl.float32)
        if modulated:
            voting_heads = num_heads if SHARE_HEADS else 1
            for step in tl.range(0, voting_heads, num_stages=HEADS_AHEAD):
                h = tl.cast(step if SHARE_HEADS else first_head, tl.int64)
                q_base = row_base(head_base(q_ptr, b, h, q_strides, ALIGNED), first_row, q_stride)
                k_base = head_base(k_ptr, b, h, k_strides, ALIGNED)
                q = load_channels(q_base, rows, q_stride, left, HEAD_DIM, D_TILES, True)
                peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
                total = tl.zeros([BLOCK_M], tl.float32)
                vote_peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
                shares = tl.zeros([BLOCK_M, BLOCK_G], tl.float32)
                if HELD_GROUPS == 1:
                    k = prompt_matrix(k_base, held_weights, 0, k_stride, HEAD_DIM, D_TILES)
                    peak, total, vote_peak, shares = _vote_group(
                        q, k, held_columns, held_votes, held_voting, coefficient, peak, total, vote_peak, shares,
                        SHARE_HEADS, PRECISION,
                    )  # fmt: skip
                else:
                    for start in range(0, num_tokens, GROUP):
                        weights, bits = _load_tokens(
                            weights_ptr, weights_strides, bits_ptr, bits_strides, b, start, num_tokens, TOKEN_TILES,
                            HAS_WEIGHTS, HAS_ENTITIES,
                        )  # fmt: skip
                        k = prompt_matrix(k_base, weights, start, k_stride, HEAD_DIM, D_TILES)
                        columns, _, votes, voting = _group_votes(
                            weights, bits, affinity_ptr, b, affinity_strides, start, num_entities, unit, BLOCK_G,
                            HAS_WEIGHTS, HAS_AFFINITY, VOTE_DTYPE,
                        )  # fmt: skip
                        peak, total, vote_peak, shares = _vote_group(
                            q, k, columns, votes, voting, coefficient, peak, total, vote_peak, shares, SHARE_HEADS,
                            PRECISION,
                        )  # fmt: skip
                if SHARE_HEADS:
                    # Heads compare as probabilities, shares * 2^log_mass. Only their relation matters to the owner, so
                    # they are summed in units of the largest.
                    log_mass = vote_peak - peak - tl.log2(total)
                    before = scale_of_affinity
                    scale_of_affinity = tl.maximum(scale_of_affinity, log_mass)
                    affinity *= tl.exp2(before - finite(scale_of_affinity))[:, None]
                    affinity += shares * tl.exp2(log_mass - finite(scale_of_affinity))[:, None]
                else:
                    affinity = shares
            owner = owner_bit(affinity, BLOCK_G)
            row_hidden += log_hidden
            reported = exponent_of(owner)
        if RETURN_AFFINITY:  # noqa: SIM102 - the first is decided at compile time, the second is not
            if first_head == 0:
                offs_g = tl.arange(0, BLOCK_G)
                ptrs = affinity_out_ptr + b * affinity_out_strides[0] + offs_g[None, :]
                ptrs = ptrs + offs_m.to(tl.int64)[:, None] * affinity_out_strides[1]
                inside = (offs_m < num_queries)[:, None] & (offs_g < num_entities)[None, :]
                mean = affinity * (tl.exp2(scale_of_affinity) * (unit / num_heads))[:, None]
                tl.store(ptrs, mean, mask=inside)

    if present:
        for step in tl.range(first_head, last_head, num_stages=HEADS_AHEAD):
            h = tl.cast(step, tl.int64)
            q_base = row_base(head_base(q_ptr, b, h, q_strides, ALIGNED), first_row, q_stride)
            k_base = head_base(k_ptr, b, h, k_strides, ALIGNED)
            v_base = head_base(v_ptr, b, h, v_strides, ALIGNED)
            q = load_channels(q_base, rows, q_stride, left, HEAD_DIM, D_TILES, True)
            out = zero_channels(BLOCK_M, D_TILES)
            peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
            plain_peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
            total = tl.zeros([BLOCK_M], tl.float32)
            plain_total = tl.zeros([BLOCK_M], tl.float32)
            if HELD_GROUPS == 1:
                k = prompt_matrix(k_base, held_weights, 0, k_stride, HEAD_DIM, D_TILES)
                v = prompt_matrix(v_base, held_weights, 0, v_stride, HEAD_DIM, D_TILES)
                peak, total, out, plain_peak, plain_total = _attend_group(
                    q, k, v, held_columns, held_bit_columns, owner, row_hidden, coefficient, peak, total, out,
                    plain_peak, plain_total, D_TILES, HAS_ENTITIES, RENORMALIZE, PRECISION,
                )  # fmt: skip
            elif HELD_GROUPS > 1:  # all loads come first
                weights, bits, k, v = (), (), (), ()
                for g in tl.static_range(HELD_GROUPS):
                    group_weights, group_bits = _load_tokens(
                        weights_ptr, weights_strides, bits_ptr, bits_strides, b, g * GROUP, num_tokens, TOKEN_TILES,
                        HAS_WEIGHTS, HAS_ENTITIES,
                    )  # fmt: skip
                    weights, bits = weights + (group_weights,), bits + (group_bits,)
                    k = k + (prompt_matrix(k_base, group_weights, g * GROUP, k_stride, HEAD_DIM, D_TILES),)
                    v = v + (prompt_matrix(v_base, group_weights, g * GROUP, v_stride, HEAD_DIM, D_TILES),)
                for g in tl.static_range(HELD_GROUPS):
                    columns, bit_columns = prompt_columns(weights[g], bits[g], HAS_WEIGHTS, HAS_ENTITIES)
                    peak, total, out, plain_peak, plain_total = _attend_group(
                        q, k[g], v[g], columns, bit_columns, owner, row_hidden, coefficient, peak, total, out,
                        plain_peak, plain_total, D_TILES, HAS_ENTITIES, RENORMALIZE, PRECISION,
                    )  # fmt: skip
            else:
                for start in range(0, num_tokens, GROUP):
                    weights, bits = _load_tokens(
                        weights_ptr, weights_strides, bits_ptr, bits_strides, b, start, num_tokens, TOKEN_TILES,
                        HAS_WEIGHTS, HAS_ENTITIES,
                    )  # fmt: skip
                    k = prompt_matrix(k_base, weights, start, k_stride, HEAD_DIM, D_TILES)
                    v = prompt_matrix(v_base, weights, start, v_stride, HEAD_DIM, D_TILES)
                    columns, bit_columns = prompt_columns(weights, bits, HAS_WEIGHTS, HAS_ENTITIES)
                    peak, total, out, plain_peak, plain_total = _attend_group(
                        q, k, v, columns, bit_columns, owner, row_hidden, coefficient, peak, total, out, plain_peak,
                        plain_total, D_TILES, HAS_ENTITIES, RENORMALIZE, PRECISION,
                    )  # fmt: skip
            factor = 1.0 / tl.where(total > 0, total, 1.0)
            if not RENORMALIZE:
                factor = tl.where(total > 0, tl.exp2(peak - plain_peak) / plain_total, 0.0)
            out_base = row_base(head_base(out_ptr, b, h, out_strides, ALIGNED), first_row, out_stride)
            store_channels(out_base, out, factor, rows, out_stride, left, HEAD_DIM, D_TILES)
    else:  # an empty text: zeros, and neither q, k nor v is read
        for step in range(first_head, last_head):
            h = tl.cast(step, tl.int64)
            out_base = row_base(head_base(out_ptr, b, h, out_strides, ALIGNED), first_row, out_stride)
            zeros = zero_channels(BLOCK_M, D_TILES)
            factor = tl.full([BLOCK_M], 0.0, tl.float32)
            store_channels(out_base, zeros, factor, rows, out_stride, left, HEAD_DIM, D_TILES)
    if RETURN_OWNER and not SHARE_HEADS:
        for step in range(first_head, last_head):
            owner_base = owner_out_ptr + b * owner_out_strides[0] + tl.cast(step, tl.int64) * owner_out_strides[1]
            tl.store(owner_base + offs_m, reported.to(tl.int8), mask=offs_m < num_queries)
    if RETURN_OWNER and SHARE_HEADS:  # noqa: SIM102
        if first_head == 0:
            tl.store(owner_out_ptr + b * owner_out_strides[0] + offs_m, reported.to(tl.int8), mask=offs_m < num_queries)
