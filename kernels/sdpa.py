"""Both ops in PyTorch's own operators: the path for CPU tensors, and for GPUs that Triton cannot serve.

A temperature is divided out of q. Cross-attention whose owners are known, or that has none, is scaled dot-product
attention with the mask and the weights as an additive bias. Where the patches vote, that comes first, on scores in
memory. Same contract as `reference.py`, not differentiated.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attnmod.kernels import reference


def _attention(q: Tensor, k: Tensor, v: Tensor, **options) -> Tensor:
    """SDPA, but where there is nothing to compute: there PyTorch 2.10 divides by zero and takes the process along."""
    return torch.empty_like(q) if q.numel() == 0 else F.scaled_dot_product_attention(q, k, v, **options)


def self_attention(q: Tensor, k: Tensor, v: Tensor, *, temperature: Tensor | None, scale: float) -> Tensor:
    """softmax(q kT * scale / tau) v by SDPA on q / tau."""
    if temperature is None:
        return _attention(q, k, v, scale=scale)
    tau = temperature.clamp(min=reference.MIN_TEMPERATURE)
    sharpened = q / tau.reshape(*tau.shape, *[1] * (4 - tau.ndim))  # float32
    if q.device.type == "cpu":
        return _attention(sharpened, k.float(), v.float(), scale=scale).to(q.dtype)
    # float16 ends at 65504, which a temperature under 1e-3 may well take q beyond: infinite scores would give NaN
    most = torch.finfo(q.dtype).max
    return _attention(sharpened.clamp(-most, most).to(q.dtype), k, v, scale=scale)


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
    k, v = reference.present_rows(k, v, log_weights)
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
            owners[rows], mean_affinity[rows] = _vote(
                q[rows], k[rows], bits, votes, weights, hidden, share_heads, scale
            )
            out[rows] = _attend(q[rows], k[rows], v[rows], bits, weights, hidden, owners[rows], renormalize, scale)

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
        return _attention(q, k, v, scale=scale)
    if entity_bits is None:
        bias = reference.log_factors(k, None, log_weights, None, owners)  # [B, 1, 1, T]
    else:
        bias = _of_owner(_log_factors_by_owner(k, entity_bits, log_weights, hidden_weight), owners)  # [B, 1, M, T]
    sees_any = (bias > -math.inf).any(-1, keepdim=True)
    # SDPA's answer to a row of nothing but -inf depends on its backend: such rows see everything, then become zero.
    out = _attention(q, k, v, attn_mask=torch.where(sees_any, bias, 0).to(q.dtype), scale=scale)
    if not renormalize:
        scores = q.float() @ k.float().transpose(-1, -2) * scale  # [B, H, M, T]
        present = reference.present_tokens(k, log_weights)
        plain = torch.logsumexp(torch.where(present, scores, -math.inf), -1, keepdim=True)
        modulated = torch.logsumexp(scores + bias, -1, keepdim=True)
        out = (out * torch.exp(modulated - plain)).to(q.dtype)
    return torch.where(sees_any, out, 0)


def _vote(
    q: Tensor,
    k: Tensor,
    entity_bits: Tensor,
    affinity: Tensor | None,
    log_weights: Tensor | None,
    hidden_weight: Tensor | None,
    share_heads: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Returns owners [B, 1 or H, M] and the mean affinity [B, M, G]. In float32, whatever the dtype of q."""
    if affinity is None:
        affinity = reference.default_affinity(entity_bits)  # [B, T, G]
    votes, mean_affinity = reference.entity_votes(
        q.float(), k.float(), affinity, log_weights=log_weights, share_heads=share_heads, scale=scale
    )
    owners = votes.argmax(-1).to(torch.int8)  # [B, 1 or H, M]; of equals the first
    masked = _masked_rows(k, entity_bits, log_weights, hidden_weight)[:, None, None]
    return torch.where(masked, owners, -1), torch.where(masked, mean_affinity, 0)


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
