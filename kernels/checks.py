"""What the public ops accept. Every error names the argument, what it was and what is allowed.

Rank, shape, dtype, device and strides are looked at on every call. Values are looked at where that is free: on
CPU tensors, on CUDA tensors only with ATTNMOD_CHECK=1 in the environment (it waits for the device), and never
inside torch.compile, whose traces hold no values.
"""

import math
import os

import torch
from torch import Tensor
from torch.autograd import forward_ad

from attnmod.kernels.reference import MAX_ENTITIES, MAX_SCALE, MIN_LOG_WEIGHT

BACKENDS = ("auto", "triton", "sdpa", "eager")
_COMPUTE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def check_self_attention(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor | float | None, scale: float | None, backend: str
) -> None:
    _check_operands(q, k, v)
    _check_scale(scale)
    _check_backend(backend)
    if isinstance(temperature, Tensor):
        batch, heads = q.shape[:2]
        _check_tensor("temperature", temperature, (torch.float32,), q.device)
        _check_shape("temperature", temperature, {"[B]": (batch,), "[B, H]": (batch, heads)})
        if _may_look(temperature):
            allowed = (temperature > 0) & (temperature < math.inf)
            _check_values("temperature", temperature, allowed, "be finite and above 0")
    elif temperature is not None:
        _check_number("temperature", temperature)
        largest = torch.finfo(torch.float32).max
        if not 0 < temperature <= largest:
            raise ValueError(
                f"temperature must be above 0 and at most {largest:.4g}, as float32 is; it was {_told(temperature)}"
            )


def check_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    entity_bits: Tensor | None,
    affinity: Tensor | None,
    log_weights: Tensor | None,
    hidden_weight: Tensor | None,
    owner: Tensor | None,
    share_heads: bool,
    renormalize: bool,
    scale: float | None,
    return_owner: bool,
    return_affinity: bool,
    backend: str,
) -> None:
    _check_operands(q, k, v)
    _check_scale(scale)
    _check_backend(backend)
    for name, flag in (
        ("share_heads", share_heads),
        ("renormalize", renormalize),
        ("return_owner", return_owner),
        ("return_affinity", return_affinity),
    ):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be True or False; it was {flag!r}")
    batch, queries, tokens = q.shape[0], q.shape[2], k.shape[2]
    if owner is not None and affinity is not None:
        raise ValueError("owner and affinity exclude each other: a given owner map replaces the vote")
    if affinity is not None and entity_bits is None:
        raise ValueError("affinity needs entity_bits, which was None: a vote without entities decides nothing")
    if share_heads and entity_bits is None:
        raise ValueError("share_heads=True needs entity_bits, which was None: without entities there is no vote")
    if return_affinity and not share_heads:
        raise ValueError("return_affinity=True needs share_heads=True: the affinity is the mean over the heads")
    if return_affinity and owner is not None:
        raise ValueError("return_affinity=True needs owner=None: a given owner map replaces the vote")

    if entity_bits is not None:
        _check_tensor("entity_bits", entity_bits, (torch.int32,), q.device)
        _check_shape("entity_bits", entity_bits, {"[B, T]": (batch, tokens)})
    if affinity is not None:
        _check_tensor("affinity", affinity, _COMPUTE_DTYPES, q.device)
        if affinity.ndim != 3 or affinity.shape[:2] != (batch, tokens):
            raise ValueError(f"affinity must be [B, T, G] = [{batch}, {tokens}, G]; it was {_shape(affinity)}")
        if not 1 <= affinity.shape[2] <= MAX_ENTITIES:
            raise ValueError(f"affinity must have 1 to {MAX_ENTITIES} entities; it had {affinity.shape[2]}")
        if _may_look(affinity):
            allowed = (affinity >= 0) & (affinity < math.inf)
            _check_values("affinity", affinity, allowed, "be finite and not negative")
    if log_weights is not None:
        _check_tensor("log_weights", log_weights, (torch.float32,), q.device)
        _check_shape("log_weights", log_weights, {"[B, T]": (batch, tokens)})
        if _may_look(log_weights):
            allowed = (log_weights == -math.inf) | ((log_weights >= MIN_LOG_WEIGHT) & (log_weights < math.inf))
            rule = f"be finite and at least {MIN_LOG_WEIGHT:g}, or -inf for an absent token"
            _check_values("log_weights", log_weights, allowed, rule)
    if hidden_weight is not None:
        _check_tensor("hidden_weight", hidden_weight, (torch.float32,), q.device)
        _check_shape("hidden_weight", hidden_weight, {"[B]": (batch,)})
        if _may_look(hidden_weight):
            allowed = (hidden_weight >= 0) & (hidden_weight <= 1)
            _check_values("hidden_weight", hidden_weight, allowed, "lie within 0 and 1")
    if owner is not None:
        _check_tensor("owner", owner, (torch.int8,), q.device)
        _check_shape("owner", owner, {"[B, M]": (batch, queries)})
        if _may_look(owner):
            allowed = (owner >= -1) & (owner < MAX_ENTITIES)
            _check_values("owner", owner, allowed, f"lie within -1 (nobody) and {MAX_ENTITIES - 1}")


def gradients_are_recorded() -> bool:
    """Whether a gradient could be wanted of anything, in either mode; forward mode knows no torch.no_grad()."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0


def check_gradients(backend: str, **tensors: Tensor | None) -> None:
    """Refuses inputs that want a gradient, in either mode, which only the eager backend gives."""
    backward, forward = torch.is_grad_enabled(), forward_ad._current_level >= 0
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            continue
        if backward and tensor.requires_grad:
            raise ValueError(
                f"{name} requires grad, and backend={backend!r} has no gradient: call the public function with "
                "backend='eager', or run under torch.no_grad()"
            )
        if forward and forward_ad.unpack_dual(tensor).tangent is not None:
            raise ValueError(
                f"{name} has a forward-mode tangent, and backend={backend!r} has no gradient: call the public "
                "function with backend='eager'"
            )


def _check_operands(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor; it was {type(tensor).__name__}")
        if tensor.dtype not in _COMPUTE_DTYPES:
            raise TypeError(f"{name} must be {_names(_COMPUTE_DTYPES)}; it was {tensor.dtype}")
        if tensor.ndim != 4:
            axes = "[B, H, M, D]" if name == "q" else "[B, H, T, D]"
            raise ValueError(f"{name} must be {axes}; it was {_shape(tensor)}")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            raise TypeError(f"{name} must have q's dtype, {q.dtype}; it was {tensor.dtype}")
        if tensor.device != q.device:
            raise ValueError(f"{name} must be on q's device, {q.device}; it was on {tensor.device}")
    batch, heads, _, head_dim = q.shape
    for name, tensor in (("k", k), ("v", v)):
        if tensor.shape[:2] != (batch, heads) or tensor.shape[3] != head_dim:
            raise ValueError(
                f"{name} must be [B, H, T, D] with q's B, H and D, [{batch}, {heads}, T, {head_dim}]; "
                f"it was {_shape(tensor)}"
            )
    if v.shape[2] != k.shape[2]:
        raise ValueError(f"v must have as many tokens as k, {k.shape[2]}; it had {v.shape[2]}")
    if k.shape[2] == 0:
        raise ValueError("k must have at least one token; it had 0")
    if head_dim == 0:
        raise ValueError("q must have at least one channel; it had 0")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.shape[3] > 1 and tensor.stride(3) != 1:
            raise ValueError(
                f"{name} must have a contiguous last dimension (stride 1); its strides were {tuple(tensor.stride())}"
            )


def _check_tensor(name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], device: torch.device) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor; it was {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be {_names(dtypes)}; it was {tensor.dtype}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on q's device, {device}; it was on {tensor.device}")


def _check_shape(name: str, tensor: Tensor, allowed: dict[str, tuple[int, ...]]) -> None:
    if not any(tensor.shape == shape for shape in allowed.values()):
        choices = " or ".join(f"{axes} = {list(shape)}" for axes, shape in allowed.items())
        raise ValueError(f"{name} must be {choices}; it was {_shape(tensor)}")


def _check_values(name: str, tensor: Tensor, allowed: Tensor, rule: str) -> None:
    """Comparisons with NaN are false: it is never allowed."""
    if not allowed.all():
        raise ValueError(f"{name} must {rule}; it holds {tensor[~allowed][0].item()}")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number; it was {type(value).__name__}")


def _check_scale(scale: float | None) -> None:
    if scale is None:
        return
    _check_number("scale", scale)
    if not 0 < scale <= MAX_SCALE:
        raise ValueError(f"scale must be above 0 and at most {MAX_SCALE:g}; it was {_told(scale)}")


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; it was {backend!r}")


def _told(number: float) -> str:
    """A number as an error shows it; Python refuses to print very large ones."""
    if isinstance(number, int) and abs(number) >= 10**20:
        return f"{'-' if number < 0 else ''}2 ** {abs(number).bit_length() - 1} or more"
    return str(number)


def _may_look(tensor: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    if tensor.device.type == "meta":  # there is nothing to see
        return False
    return tensor.device.type == "cpu" or os.environ.get("ATTNMOD_CHECK") == "1"


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(str(dtype) for dtype in dtypes)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
