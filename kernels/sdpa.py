"""Both ops on PyTorch's own fused attention: the path for CPU tensors, and for GPUs that Triton cannot serve.

A temperature is divided out of q. Cross-attention votes first, on materialised scores, and then hands SDPA the
mask and the weights as an additive bias. Same contract as `reference.py`, not differentiated.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attnmod.kernels import reference


def self_attention(q: Tensor, k: Tensor, v: Tensor, *, temperature: Tensor | None, scale: float) -> Tensor:
    """softmax(q kT * scale / tau) v by SDPA on q / tau."""
    if temperature is not None:
        tau = temperature.clamp(min=reference.MIN_TEMPERATURE)
        q = (q / tau.reshape(*tau.shape, *[1] * (4 - tau.ndim))).to(q.dtype)
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
    # The vote costs one more product over few tokens; in float32 it does not depend on the dtype of q.
    owners, mean_affinity = reference.assign_owners(
        q.float(),
        k.float(),
        entity_bits=entity_bits,
        affinity=None if affinity is None else affinity.float(),
        log_weights=log_weights,
        hidden_weight=hidden_weight,
        owner=owner,
        share_heads=share_heads,
        scale=scale,
    )
    out = _attend(q, k, v, entity_bits, log_weights, hidden_weight, owners, renormalize, scale)
    results = [out]
    if return_owner:
        results.append((owners[:, 0] if share_heads else owners.expand(q.shape[:3])).contiguous())
    if return_affinity:
        results.append(mean_affinity)
    return tuple(results)


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
    if entity_bits is None and log_weights is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    bias = reference.log_factors(k, entity_bits, log_weights, hidden_weight, owners)  # [B, 1 or H, 1 or M, T]
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
