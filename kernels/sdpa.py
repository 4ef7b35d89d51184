"""Both ops in PyTorch's own operators: the path for CPU tensors, and for GPUs that Triton cannot serve.

A temperature is divided out of q. Cross-attention whose owners are known, or that has none, is scaled dot-product
attention with the mask and the weights as an additive bias. Where the patches vote, the scores are materialised once
and serve the vote and the attention, as in the Triton kernels. Same contract as `reference.py`, not differentiated.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attnmod.kernels import reference

# How far, in nats, the leading token may stand above 1 where the votes' own maximum is 1: its product with values
# must stay within float32.
_LARGEST_LEAD = 60.0


def self_attention(q: Tensor, k: Tensor, v: Tensor, *, temperature: Tensor | None, scale: float) -> Tensor:
    """softmax(q kT * scale / tau) v by SDPA on q / tau."""
    if temperature is not None:
        tau = temperature.clamp(min=reference.MIN_TEMPERATURE)
        sharpened = q / tau.reshape(*tau.shape, *[1] * (4 - tau.ndim))
        most = torch.finfo(q.dtype).max  # a small tau takes a large q beyond it, and infinite scores would give NaN
        q = sharpened.clamp(-most, most).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    entity_bits: Tensor | None,
    affinity: Tensor | None,
    log_weights: Tensor | None,
    hidden_weight: Tensor | None,
    owner: Tensor | None,
    share_heads: bool,
    renormalize: bool,
    scale: float,
    return_owner: bool = False,
    return_affinity: bool = False,
) -> tuple[Tensor, ...]:
    """Returns out and, where asked for, owner and affinity, as `reference.cross_attention` does."""
    batch, heads, queries, _ = q.shape
    entities = reference.MAX_ENTITIES if affinity is None else affinity.shape[2]
    out = q.new_empty(batch, queries, heads, q.shape[3]).transpose(1, 2)
    owners = torch.full((batch, 1 if share_heads else heads, queries), -1, dtype=torch.int8, device=q.device)
    mean_affinity = q.new_zeros(batch, queries, entities, dtype=torch.float32)

    for kind, rows in _rows_by_kind(k, entity_bits, log_weights, hidden_weight):
        bits, weights, hidden = (None if x is None else x[rows] for x in (entity_bits, log_weights, hidden_weight))
        if kind == "empty":
            out[rows] = 0
        elif kind == "plain":
            if weights is not None and not weights.any():  # rows are "plain" only where a look is free
                weights = None
            out[rows] = _attend(q[rows], k[rows], v[rows], None, weights, None, owners[rows], renormalize, scale)
        elif bits is None or owner is not None:
            if bits is not None and owner is not None:
                masked = _masked_rows(k[rows], bits, weights, hidden)
                owners[rows] = torch.where(masked[:, None, None], owner[rows][:, None], -1)
            out[rows] = _attend(q[rows], k[rows], v[rows], bits, weights, hidden, owners[rows], renormalize, scale)
        else:
            votes = None if affinity is None else affinity[rows].float()
            out[rows], owners[rows], mean_affinity[rows] = _vote_and_attend(
                q[rows], k[rows], v[rows], bits, votes, weights, hidden, share_heads, renormalize, scale
            )

    results = [out]
    if return_owner:
        results.append(owners[:, 0] if share_heads else owners)
    if return_affinity:
        results.append(mean_affinity)
    return tuple(results)


def _rows_by_kind(
    k: Tensor, entity_bits: Tensor | None, log_weights: Tensor | None, hidden_weight: Tensor | None
) -> list[tuple[str, slice]]:
    """Runs of rows with the same work to do: "empty" has no token, "plain" no mask that matters, "masked" the rest.

    On a CPU a look at the values costs nothing; elsewhere it would wait for the device, so all rows are "masked".
    """
    if k.device.type != "cpu":
        return [("masked", slice(0, k.shape[0]))]
    present = reference.present_tokens(k, log_weights).flatten(1).any(-1).tolist()
    masked = [False] * k.shape[0]
    if entity_bits is not None:
        masked = reference.modulated_rows(entity_bits, hidden_weight).tolist()
    runs: list[tuple[str, slice]] = []
    for b, (is_present, is_masked) in enumerate(zip(present, masked, strict=True)):
        kind = "empty" if not is_present else "masked" if is_masked else "plain"
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, slice(runs[-1][1].start, b + 1))
        else:
            runs.append((kind, slice(b, b + 1)))
    return runs


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    entity_bits: Tensor | None,
    log_weights: Tensor | None,
    hidden_weight: Tensor | None,
    owners: Tensor,
    renormalize: bool,
    scale: float,
) -> Tensor:
    """Attention whose owners, int8 [B, 1 or H, M], are known; without entity_bits they do not matter."""
    if entity_bits is None and log_weights is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if entity_bits is None:
        bias = reference.log_factors(k, None, log_weights, None, owners)  # [B, 1, 1, T]
    else:
        bias = _of_owner(_log_factors_by_owner(k, entity_bits, log_weights, hidden_weight), owners)  # [B, 1, M, T]
    sees_any = (bias > -math.inf).any(-1, keepdim=True)
    # SDPA's answer to a row of nothing but -inf depends on its backend: such rows see everything, then become zero.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=torch.where(sees_any, bias, 0).to(q.dtype), scale=scale)
    if not renormalize:
        scores = q.float() @ k.float().transpose(-1, -2) * scale  # [B, H, M, T]
        present = reference.present_tokens(k, log_weights)
        plain = torch.logsumexp(torch.where(present, scores, -math.inf), -1, keepdim=True)
        modulated = torch.logsumexp(scores + bias, -1, keepdim=True)
        out = (out * torch.exp(modulated - plain)).to(q.dtype)
    return torch.where(sees_any, out, 0)


def _vote_and_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    entity_bits: Tensor,
    affinity: Tensor | None,
    log_weights: Tensor | None,
    hidden_weight: Tensor | None,
    share_heads: bool,
    renormalize: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns out, owners [B, 1 or H, M] and the mean affinity [B, M, G]. In float32, whatever the dtype of q."""
    if affinity is None:
        affinity = reference.default_affinity(entity_bits)  # [B, T, G]
    present = reference.present_tokens(k, log_weights)  # [B, 1, 1, T]
    voting = present & (affinity > 0).any(-1)[:, None, None]

    scores = (q.float() * scale) @ k.float().transpose(-1, -2)  # [B, H, M, T]
    scores.masked_fill_(~present, -math.inf)
    # The vote's own maximum, see reference.entity_votes; where the leading token is too far above it, less than that.
    peak = scores.amax(-1, keepdim=True)
    vote_peak = (scores + torch.where(voting, 0.0, -math.inf)).amax(-1, keepdim=True)
    reference_peak = torch.maximum(vote_peak, peak - _LARGEST_LEAD)
    reference_peak = torch.where(peak > -math.inf, reference_peak, 0)  # a row without a token: -inf - -inf is NaN
    e_s = scores.sub_(reference_peak).exp_()  # [B, H, M, T]
    total = e_s.sum(-1, keepdim=True)
    shares = e_s @ affinity[:, None]  # [B, H, M, G]
    mean_affinity = (shares / total).mean(1)  # [B, M, G]
    votes = mean_affinity[:, None] if share_heads else shares
    owners = votes.argmax(-1).to(torch.int8)  # [B, 1 or H, M]; of equals the first
    masked = _masked_rows(k, entity_bits, log_weights, hidden_weight)[:, None, None]
    owners = torch.where(masked, owners, -1)
    mean_affinity = torch.where(masked, mean_affinity, 0)

    # Weights over the largest, so that their product with e^s stays within float32.
    log_factors = _log_factors_by_owner(k, entity_bits, log_weights, hidden_weight)  # [B, G + 1, T]
    largest = log_factors[:, -1].amax(-1)[:, None, None]  # of what nobody's patch sees: everything
    largest = torch.where(largest > -math.inf, largest, 0)
    f_e_s = e_s.mul_(_of_owner(torch.exp(log_factors - largest), owners))
    modulated = f_e_s.sum(-1, keepdim=True)
    divisor = modulated if renormalize else total * torch.exp(-largest)[..., None]
    out = (f_e_s @ v.float()) / torch.where(modulated > 0, divisor, 1)
    return out.to(q.dtype), owners, mean_affinity


def _masked_rows(k: Tensor, entity_bits: Tensor, log_weights: Tensor | None, hidden_weight: Tensor | None) -> Tensor:
    """Rows [B] in which an owner makes a difference."""
    present = reference.present_tokens(k, log_weights).flatten(1).any(-1)
    return reference.modulated_rows(entity_bits, hidden_weight) & present


def _log_factors_by_owner(
    k: Tensor, entity_bits: Tensor, log_weights: Tensor | None, hidden_weight: Tensor | None
) -> Tensor:
    """log f of every token for every owner that there can be, [B, 33, T]; the last is nobody."""
    everybody = torch.arange(reference.MAX_ENTITIES + 1, device=k.device, dtype=torch.int8)
    everybody = torch.where(everybody < reference.MAX_ENTITIES, everybody, -1).expand(k.shape[0], 1, -1)
    return reference.log_factors(k, entity_bits, log_weights, hidden_weight, everybody)[:, 0]


def _of_owner(table: Tensor, owners: Tensor) -> Tensor:
    """The lines [B, 33, T] of each patch's owner, int8 [B, H, M]: [B, H, M, T]."""
    batch = torch.arange(table.shape[0], device=table.device)[:, None, None]
    return table[batch, owners.long()]  # -1, nobody, is the last line
