"""What the two ops compute, in plain PyTorch: the definition that every other backend is compared with.

    self-attention    out = softmax(q kT * scale / tau) v

    cross-attention   s     = scale * q kT                        p = softmax of s over the present tokens
                      a     = p A                                 how much of a patch's attention each entity has
                      owner = argmax_g a                          the lowest g wins a tie
                      f     = w * (1 if visible to the owner, else hidden_weight)
                      out   = sum_n f e^s v / sum_n f e^s         or / sum_n e^s where it is not renormalised

Everything is computed in the dtype of q (the vote in affinity's own), so that in float64 this is the truth
and in a low dtype it shows what error that dtype costs. It is differentiable in q, k and v, and is the `eager`
backend of `ops.py`.

Axes: b row, h head, m query (patch), n key (token), d channel, g entity.
Shapes: q, out [B, H, M, D]; k, v [B, H, T, D]; entity_bits, log_weights [B, T]; affinity [B, T, G];
hidden_weight [B]; owner [B, M]; temperature [B] or [B, H].
"""

import math

import torch
from torch import Tensor

MAX_ENTITIES = 32  # one bit each in an int32
MAX_LOG_WEIGHT = 60.0  # e^60 times a sum over any prompt is still far below float32's largest number
MIN_LOG_WEIGHT = -1000.0  # of a present token: e^-1000 is nothing beside any other, and fp16 still tells it from -inf
MAX_SCALE = 1e6  # beyond it softmax is an argmax in every dtype, and scores would leave float32
MIN_TEMPERATURE = 1e-6  # below it softmax is an argmax in every dtype, and 1 / tau would overflow


def self_attention(
    q: Tensor, k: Tensor, v: Tensor, *, temperature: Tensor | float | None = None, scale: float | None = None
) -> Tensor:
    """out[m] = sum_n softmax_n(q[m].k[n] * scale / tau) v[n], with tau per row or per row and head."""
    scores = _scores(q, k, scale, None)  # [B, H, M, T]
    if isinstance(temperature, Tensor):
        tau = temperature.clamp(min=MIN_TEMPERATURE)
        tau = tau.reshape(*tau.shape, *[1] * (4 - tau.ndim))  # [B] or [B, H] against [B, H, M, T]
        scores = (scores / tau).to(q.dtype)
    elif temperature is not None:
        scores = scores / max(temperature, MIN_TEMPERATURE)
    return torch.softmax(scores, dim=-1) @ v


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    entity_bits: Tensor | None = None,
    affinity: Tensor | None = None,
    log_weights: Tensor | None = None,
    hidden_weight: Tensor | None = None,
    owner: Tensor | None = None,
    share_heads: bool = False,
    renormalize: bool = True,
    scale: float | None = None,
    return_owner: bool = False,
    return_affinity: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """The masked, reweighted attention of the module docstring.

    Returns:
        out, or a tuple of out, the owner map where return_owner (int8 [B, H, M]; [B, M] with share_heads) and
        the affinity's mean over the heads where return_affinity (float32 or float64 [B, M, G]), in this order.
    """
    k, v = present_rows(k, v, log_weights)
    present = present_tokens(k, log_weights)
    scores = _scores(q, k, scale, present)  # [B, H, M, T]
    owners, mean_affinity = assign_owners(
        q,
        k,
        entity_bits=entity_bits,
        affinity=affinity,
        log_weights=log_weights,
        hidden_weight=hidden_weight,
        owner=owner,
        share_heads=share_heads,
        scale=scale,
    )
    log_factor = log_factors(k, entity_bits, log_weights, hidden_weight, owners).to(q.dtype)  # [B, 1 or H, 1 or M, T]

    # The maximum is taken over what is summed: a hidden token's score must not push the visible ones to zero.
    sees = log_factor > -math.inf
    exponents = torch.where(sees, scores + log_factor, -math.inf)
    peak = _peak(exponents)
    weights = torch.exp(exponents - peak)  # f e^s, up to e^peak
    # A patch that sees no token, and a row without any (an empty text), get zeros whatever q, k and v hold.
    sees_any = sees.any(-1, keepdim=True)
    if renormalize:
        out = (weights / torch.where(sees_any, weights.sum(-1, keepdim=True), 1)) @ v
    else:
        out = (weights * torch.exp(torch.where(sees_any, peak - _log_total(scores, present), 0))) @ v
    out = torch.where(sees_any, out, 0)

    results = [out]
    if return_owner:
        results.append((owners[:, 0] if share_heads else owners.expand(q.shape[:3])).contiguous())
    if return_affinity:
        results.append(mean_affinity)
    return results[0] if len(results) == 1 else tuple(results)


def assign_owners(
    q: Tensor,
    k: Tensor,
    *,
    entity_bits: Tensor | None,
    affinity: Tensor | None,
    log_weights: Tensor | None,
    hidden_weight: Tensor | None,
    owner: Tensor | None,
    share_heads: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Steps 1 to 3: who owns each patch, int8 [B, 1 or H, M], and the affinity's mean over the heads [B, M, G]."""
    batch, _, queries, _ = q.shape
    nobody = torch.full((batch, 1, queries), -1, dtype=torch.int8, device=q.device)
    if entity_bits is None:
        return nobody, q.new_zeros(batch, queries, MAX_ENTITIES)
    # Rows that nothing can change, and rows without a token, do not vote: their patches are nobody's.
    votes = modulated_rows(entity_bits, hidden_weight) & present_tokens(k, log_weights).flatten(1).any(-1)  # [B]
    if owner is not None:
        return torch.where(votes[:, None, None], owner[:, None], nobody), q.new_zeros(batch, queries, MAX_ENTITIES)

    if affinity is None:
        affinity = default_affinity(entity_bits).to(q.dtype)
    preference, mean_affinity = entity_votes(
        q, k, affinity, log_weights=log_weights, share_heads=share_heads, scale=scale
    )
    owners = preference.argmax(-1).to(torch.int8)  # [B, 1 or H, M]; torch's argmax takes the first of equals
    mean_affinity = torch.where(votes[:, None, None], mean_affinity, 0)
    result_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return torch.where(votes[:, None, None], owners, nobody), mean_affinity.to(result_dtype)


def entity_votes(
    q: Tensor,
    k: Tensor,
    affinity: Tensor,
    *,
    log_weights: Tensor | None = None,
    share_heads: bool = False,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """a[m, g] = sum_n p[m, n] A[n, g]: what the argmax is taken of, and its mean over the heads.

    Returns:
        The votes [B, H, M, G], with share_heads their mean [B, 1, M, G], up to a positive factor per patch; and the
        mean over the heads [B, M, G] as probabilities.
    """
    k, _ = present_rows(k, k, log_weights)
    present = present_tokens(k, log_weights)
    scores = _scores(q, k, scale, present)
    voting = present & (affinity > 0).any(-1)[:, None, None]
    exponents = torch.where(voting, scores, -math.inf)
    # The vote has the voting tokens' own maximum: BOS often leads by 10 nats and more, and under its maximum the
    # other probabilities would vanish below fp16, and with them the argmax.
    peak = _peak(exponents)
    votes = torch.exp(exponents - peak).to(affinity.dtype) @ affinity[:, None]  # [B, H, M, G]
    log_mass = (peak - _log_total(scores, present)).to(votes.dtype)  # votes * e^log_mass are probabilities
    mean_affinity = (votes * torch.exp(log_mass)).mean(1)
    if share_heads:
        # Heads compare as probabilities, and only their relation matters: the largest is scaled to 1.
        votes = (votes * torch.exp(log_mass - log_mass.amax(1, keepdim=True))).mean(1, keepdim=True)
    return votes, mean_affinity


def default_affinity(entity_bits: Tensor) -> Tensor:
    """The vote where none is given: 1 for the innermost entity of every token that is not global.

    A parent has a lower id than its children, so the innermost entity is the highest set bit. A nested token is
    visible to both but votes for the inner one only: if it voted for both, the inner one could never win.

    Args:
        entity_bits: int32 [..., T], -1 for a global token.

    Returns:
        float32 [..., T, 32].

    >>> default_affinity(torch.tensor([-1, 0b01, 0b11, 0]))[:, :2].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    unsigned = entity_bits.long() & 0xFFFFFFFF  # entity 31 sits in int32's sign bit
    entities = torch.arange(MAX_ENTITIES, device=entity_bits.device)
    innermost = (unsigned[..., None] >> entities) == 1
    return (innermost & (entity_bits != -1)[..., None]).float()


def modulated_rows(entity_bits: Tensor, hidden_weight: Tensor | None) -> Tensor:
    """Rows [B] in which an owner makes a difference: some token is not global, and hiding it changes its weight."""
    modulated = (entity_bits != -1).any(-1)
    return modulated if hidden_weight is None else modulated & (hidden_weight != 1)


def present_tokens(k: Tensor, log_weights: Tensor | None) -> Tensor:
    """Tokens that exist, bool [B, 1, 1, T]: a log weight of -inf takes one out of the vote and of every sum."""
    if log_weights is None:
        return torch.ones(k.shape[0], 1, 1, k.shape[2], dtype=torch.bool, device=k.device)
    return (log_weights > -math.inf)[:, None, None]


def present_rows(k: Tensor, v: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """k and v with zeros for absent tokens, which may hold anything: NaN times a weight of zero would be NaN."""
    if log_weights is None:
        return k, v
    present = (log_weights > -math.inf)[:, None, :, None]  # [B, 1, T, 1]
    return torch.where(present, k, 0), torch.where(present, v, 0)


def log_factors(
    k: Tensor, entity_bits: Tensor | None, log_weights: Tensor | None, hidden_weight: Tensor | None, owners: Tensor
) -> Tensor:
    """log f of step 5, [B, 1 or H, 1 or M, T] in float32 or wider: the token's weight, and what hiding it costs."""
    log_factor = torch.zeros(k.shape[0], 1, 1, k.shape[2], device=k.device)
    if log_weights is not None:
        log_factor = log_weights.clamp(max=MAX_LOG_WEIGHT)[:, None, None]
    if entity_bits is None:
        return log_factor
    owners = owners[..., None].int()  # [B, 1 or H, M, 1]
    visible = (owners < 0) | ((entity_bits[:, None, None] >> owners.clamp(min=0)) & 1).bool()
    if hidden_weight is None:
        return torch.where(visible, log_factor, -math.inf)
    return torch.where(visible, log_factor, log_factor + torch.log(hidden_weight)[:, None, None, None])


def _scores(q: Tensor, k: Tensor, scale: float | None, present: Tensor | None) -> Tensor:
    """The scores less each patch's largest among the present tokens, which no softmax notices.

    Taken before the scale: a sharp one takes what lies far below out of a low dtype's range, not what leads.
    """
    scores = q @ k.transpose(-1, -2)
    most = torch.finfo(q.dtype).max
    scores = scores.clamp(-most, most)
    peak = _peak(scores if present is None else torch.where(present, scores, -math.inf))
    return ((scores - peak) * (q.shape[-1] ** -0.5 if scale is None else scale)).clamp(-most, most)


def _log_total(scores: Tensor, present: Tensor) -> Tensor:
    """log sum_n e^s over the present tokens, [B, H, M, 1]; 0 where there is none."""
    total = torch.logsumexp(torch.where(present, scores, -math.inf), dim=-1, keepdim=True)
    return torch.where(present.any(-1, keepdim=True), total, 0)


def _peak(exponents: Tensor) -> Tensor:
    """The maximum over tokens as a constant shift, 0 where there is nothing to sum (-inf - -inf is NaN)."""
    peak = exponents.detach().amax(-1, keepdim=True)
    return torch.where(peak > -math.inf, peak, 0)
