"""The public ops: they check, allocate, choose a backend, and are registered with torch.library.

`self_attention` and `cross_attention` are the checked doors. Behind them `torch.ops.attnmod.self_attention` and
`torch.ops.attnmod.cross_attention` trust their inputs and can be traced by torch.compile and captured in a CUDA
graph. A caller that made its tensors itself, such as the sampler, comes in by `trusted_self_attention` and
`trusted_cross_attention`: where nobody traces or watches, these spare it the way through torch.library.

Importing this module needs torch alone. Triton is imported when it first has something to compute.
"""

import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from attnmod.kernels import configs, reference, sdpa, tile_table
from attnmod.kernels.checks import (
    BACKENDS,
    check_cross_attention,
    check_gradients,
    check_self_attention,
    gradients_are_recorded,
)
from attnmod.kernels.configs import MAX_HEAD_DIM, architecture, generation, self_attention_entry
from attnmod.kernels.reference import MAX_ENTITIES, default_affinity

__all__ = ["available_backends", "cross_attention", "default_affinity", "self_attention"]

_UNMEASURED = "backend 'auto' takes Triton with tiles chosen by arithmetic; `attnmod bench tune` measures them"

_library = torch.library.Library("attnmod", "DEF")
_library.define(
    "self_attention(Tensor q, Tensor k, Tensor v, Tensor? temperature=None, float? scale=None, "
    'str backend="auto") -> Tensor'
)
_library.define(
    "cross_attention(Tensor q, Tensor k, Tensor v, Tensor? entity_bits=None, Tensor? affinity=None, "
    "Tensor? log_weights=None, Tensor? hidden_weight=None, Tensor? owner=None, bool share_heads=False, "
    "bool renormalize=True, float? scale=None, bool return_owner=False, bool return_affinity=False, "
    'str backend="auto") -> Tensor[]'
)


def self_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    temperature: Tensor | float | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention with a softmax temperature: softmax(q kT * scale / temperature) v.

    A temperature below 1 sharpens: a patch attends to a small coherent region, so that entities do not fuse
    (Wu et al., "Towards Better Text-to-Image Generation Alignment via Attention Modulation", arXiv 2404.13899).

    Args:
        q: [B, H, M, D], float16, bfloat16 or float32, any strides with D contiguous.
        k: [B, H, T, D], like q.
        v: [B, H, T, D], like q.
        temperature: a number, or a float32 tensor [B] or [B, H] on q's device, which may change between the
            replays of a CUDA graph. Above 0 and finite in float32; below 1e-6 it counts as 1e-6. None is 1.
        scale: factor of the scores before the temperature, above 0 and up to 1e6; None is D ** -0.5.
        backend: "auto" takes triton on a GPU that it supports, unless SDPA was measured to be faster there, else
            sdpa. "triton" takes CPU tensors only under TRITON_INTERPRET=1. "eager" is plain PyTorch and the only
            one with gradients.

    Returns:
        [B, H, M, D] in q's dtype, in the memory layout [B, M, H, D].

    Raises:
        TypeError: an argument is no tensor or number, or has another dtype than listed.
        ValueError: shapes, devices or strides do not fit, a value is out of range (CUDA tensors are looked at
            only with ATTNMOD_CHECK=1), a gradient is wanted of another backend than "eager", or "triton"
            cannot run here.

    >>> q = torch.randn(2, 4, 16, 8)
    >>> self_attention(q, q, q, temperature=0.5).shape
    torch.Size([2, 4, 16, 8])
    """
    q, k, v = _autocast(q, k, v)
    check_self_attention(q, k, v, temperature, scale, backend)
    scale = _scale(q, scale)
    if temperature is not None and not isinstance(temperature, Tensor):
        scale, temperature = scale / max(temperature, reference.MIN_TEMPERATURE), None
    if backend == "eager":
        return _laid_out(reference.self_attention(q, k, v, temperature=temperature, scale=scale))
    check_gradients(backend, q=q, k=k, v=v, temperature=temperature)
    return torch.ops.attnmod.self_attention(q, k, v, temperature, scale, backend)


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
    backend: str = "auto",
) -> Tensor | tuple[Tensor, ...]:
    """Attention of image patches to a prompt, masked by entity and reweighted by token.

    Every patch is given to the entity that most of its attention goes to, and then sees that entity's tokens and
    the global ones; each token has a weight besides (object-focused masking and reweighting, Wu et al., arXiv
    2404.13899; bit masks, nesting and soft masks are ours). `reference.py` defines it exactly.

    Args:
        q: [B, H, M, D], float16, bfloat16 or float32, any strides with D contiguous.
        k: [B, H, T, D], like q. Any T: what does not fit in registers passes in groups.
        v: [B, H, T, D], like q.
        entity_bits: int32 [B, T], bit g set where the token belongs to entity g, -1 for a global token. A nested
            token carries the bits of all its entities; a parent has a lower id than its children. None: no mask.
        affinity: [B, T, G], float32, float16 or bfloat16, G up to 32, finite and not negative: how token n votes
            for entity g. None: one vote for the innermost entity, see `default_affinity`.
        log_weights: float32 [B, T], natural logarithm of each token's weight, at least -1000; above 60 counts as
            60. -inf is an absent token, whose key and value may hold anything, NaN too.
        hidden_weight: float32 [B], the factor of tokens that a patch's owner does not see: 0 hides them (as
            None does), 1 switches the mask off. However small it and the weights are: where only such tokens are
            left, they share a patch's attention among them.
        owner: int8 [B, M], a given map instead of the vote; -1 is nobody's patch, which sees every token. No
            effect without entity_bits.
        share_heads: the heads vote together, by the mean of their affinities.
        renormalize: divide by the modulated sum; False divides by the sum as it was before mask and weights.
        scale: factor of the scores, above 0 and up to 1e6; None is D ** -0.5.
        return_owner: also return the map of owners.
        return_affinity: also return each patch's affinity to each entity; needs share_heads and no given owner.
        backend: as in `self_attention`.

    Returns:
        out [B, H, M, D] in q's dtype, in the memory layout [B, M, H, D]; or a tuple of it and, in this order,
        the owner map (int8 [B, H, M], with share_heads [B, M]) and the affinity's mean over the heads (float32
        [B, M, G]; G is 32 where affinity is None). A row that nothing modulates (all tokens global, hidden_weight
        1, or no token present) does not vote: its owners are -1 and its affinities 0.

    Raises:
        TypeError: an argument is no tensor or number, or has another dtype than listed.
        ValueError: shapes, devices or strides do not fit; arguments exclude each other; a value is out of range
            (CUDA tensors are looked at only with ATTNMOD_CHECK=1); a gradient is wanted of another backend than
            "eager"; or "triton" cannot run here.

    >>> q, k = torch.randn(1, 2, 16, 8), torch.randn(1, 2, 4, 8)
    >>> bits = torch.tensor([[-1, 1, 2, -1]], dtype=torch.int32)
    >>> out, owner = cross_attention(q, k, k, entity_bits=bits, share_heads=True, return_owner=True)
    >>> owner.shape, sorted(set(owner.flatten().tolist()) | {0, 1})
    (torch.Size([1, 16]), [0, 1])
    """
    options = {
        "entity_bits": entity_bits,
        "affinity": affinity,
        "log_weights": log_weights,
        "hidden_weight": hidden_weight,
        "owner": owner,
        "share_heads": share_heads,
        "renormalize": renormalize,
        "scale": scale,
        "return_owner": return_owner,
        "return_affinity": return_affinity,
    }
    q, k, v = _autocast(q, k, v)
    check_cross_attention(q, k, v, **options, backend=backend)
    if backend == "eager":
        results = _cross_attention_in_torch(reference.cross_attention, q, k, v, **options)
    else:
        check_gradients(backend, q=q, k=k, v=v, affinity=affinity, log_weights=log_weights, hidden_weight=hidden_weight)
        results = torch.ops.attnmod.cross_attention(q, k, v, **options, backend=backend)
    return results[0] if len(results) == 1 else tuple(results)


def trusted_self_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """`torch.ops.attnmod.self_attention` by the shortest way: nothing is checked."""
    if _nobody_watches(q):
        return _self_attention_impl(q, k, v, temperature, scale, backend)
    return torch.ops.attnmod.self_attention(q, k, v, temperature, scale, backend)


def trusted_cross_attention(q: Tensor, k: Tensor, v: Tensor, **options) -> list[Tensor]:
    """`torch.ops.attnmod.cross_attention` by the shortest way: nothing is checked."""
    if _nobody_watches(q):
        return _cross_attention_impl(q, k, v, **options)
    return torch.ops.attnmod.cross_attention(q, k, v, **options)


def _nobody_watches(q: Tensor) -> bool:
    """Whether a call may pass by torch's dispatcher, whose walk through Python costs more than a kernel's launch.

    Not under torch.compile, a dispatch or function mode or a function transform, nor with a tensor that is more than
    a tensor: these must see the op. On a CPU the walk is a small part of the work, and stays.
    """
    return (
        not torch.compiler.is_compiling()
        and q.device.type == configs.ACCELERATOR
        and type(q) is Tensor
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def available_backends() -> dict[str, str]:
    """For each backend "" where it works on this machine, else one line why not.

    >>> sorted(available_backends())
    ['eager', 'sdpa', 'triton']
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return {"triton": _triton_obstacle(device), "sdpa": "", "eager": ""}


def tiles_in_use() -> str:
    """Where the tiles of the kernels come from, in a line: what ships, or the table that a tuning run has made."""
    path = tile_table.user_path()
    if not path.exists():
        return f"the ones that ship; `attnmod bench tune` makes {path} for this card"
    reason = tile_table.obstacle_to(path)
    return f"the ones that ship; {path} is ignored: {reason}" if reason else f"{path}, over the ones that ship"


def _self_attention_impl(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    if gradients_are_recorded():
        check_gradients(backend, q=q, k=k, v=v, temperature=temperature)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    chosen = _choose_backend(backend, q)
    if backend == "auto" and chosen == "triton":
        chosen = _faster_self_attention(q.device, q.shape[3], q.shape[2], generation())
    if chosen == "triton":
        out = empty_output(q)
        _on_its_device(q, _launchers()[0], q=q, k=k, v=v, temperature=temperature, scale=scale, out=out)
        return out
    compute = sdpa.self_attention if chosen == "sdpa" else reference.self_attention
    return _laid_out(compute(q, k, v, temperature=temperature, scale=scale))


def _cross_attention_impl(
    q: Tensor,
    k: Tensor,
    v: Tensor,
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
    backend: str = "auto",
) -> list[Tensor]:
    if gradients_are_recorded():
        check_gradients(backend, q=q, k=k, v=v, affinity=affinity, log_weights=log_weights, hidden_weight=hidden_weight)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    options = {
        "entity_bits": entity_bits,
        "affinity": affinity,
        "log_weights": log_weights,
        "hidden_weight": hidden_weight,
        "owner": owner,
        "share_heads": share_heads,
        "renormalize": renormalize,
        "scale": scale,
    }
    chosen = _choose_backend(backend, q)
    if chosen == "triton":
        results = _empty_results(q, affinity, share_heads, return_owner, return_affinity)
        _on_its_device(
            q,
            _launchers()[1],
            q=q,
            k=k,
            v=v,
            **options,
            out=results[0],
            owner_out=results[1] if return_owner else None,
            affinity_out=results[-1] if return_affinity else None,
        )
        return results
    compute = sdpa.cross_attention if chosen == "sdpa" else reference.cross_attention
    return _cross_attention_in_torch(
        compute, q, k, v, **options, return_owner=return_owner, return_affinity=return_affinity
    )


def _autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast q, k and v take its dtype, and nothing else does: weights and temperatures stay float32."""
    if not isinstance(q, Tensor) or q.device.type == "meta" or not torch.is_autocast_enabled(q.device.type):
        return q, k, v
    dtype = torch.get_autocast_dtype(q.device.type)
    q, k, v = (x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in (q, k, v))
    return q, k, v


@functools.cache
def _launchers() -> tuple[Callable[..., None], Callable[..., None]]:
    """Imported when Triton first has something to compute."""
    from attnmod.kernels.cross_attention import launch_cross_attention
    from attnmod.kernels.self_attention import launch_self_attention

    return launch_self_attention, launch_cross_attention


def _on_its_device(tensor: Tensor, launch: Callable[..., None], /, **arguments) -> None:
    """Triton launches on the current device, which need not be the tensor's; where it is, no switch costs anything."""
    if tensor.device.type != configs.ACCELERATOR or tensor.get_device() == torch.cuda.current_device():
        launch(**arguments)
    else:
        with torch.cuda.device(tensor.device):
            launch(**arguments)


def _cross_attention_in_torch(compute: Callable[..., Tensor | tuple[Tensor, ...]], q, k, v, **options) -> list[Tensor]:
    with torch.autocast(q.device.type, enabled=False):  # q, k and v have its dtype; what is derived from them must not
        results = compute(q, k, v, **options)
    out, *rest = results if isinstance(results, tuple) else (results,)
    return [_laid_out(out), *rest]


def empty_output(q: Tensor) -> Tensor:
    """[B, H, M, D] in the memory layout [B, M, H, D], so that the caller's merge of heads is a view."""
    _, heads, queries, head_dim = q.shape
    return q.new_empty_strided(q.shape, (queries * heads * head_dim, head_dim, heads * head_dim, 1))


def _empty_results(
    q: Tensor, affinity: Tensor | None, share_heads: bool, return_owner: bool, return_affinity: bool
) -> list[Tensor]:
    batch, heads, queries, _ = q.shape
    results = [empty_output(q)]
    if return_owner:
        shape = (batch, queries) if share_heads else (batch, heads, queries)
        results.append(q.new_empty(shape, dtype=torch.int8))
    if return_affinity:
        entities = MAX_ENTITIES if affinity is None else affinity.shape[2]
        results.append(q.new_empty(batch, queries, entities, dtype=torch.float32))
    return results


def _laid_out(out: Tensor) -> Tensor:
    return out.transpose(1, 2).contiguous().transpose(1, 2)


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _choose_backend(backend: str, q: Tensor) -> str:
    """Resolves "auto" and says why "triton" cannot run."""
    if backend in ("sdpa", "eager") or (backend == "auto" and q.device.type != configs.ACCELERATOR):
        return "sdpa" if backend == "auto" else backend
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; it was {backend!r}")
    obstacle = _triton_obstacle(q.device)
    if not obstacle and q.shape[3] > MAX_HEAD_DIM:
        obstacle = f"it takes head dims up to {MAX_HEAD_DIM}, not {q.shape[3]}"
    if not obstacle:
        return "triton"
    if backend == "triton":
        raise ValueError(f"backend='triton' cannot run here: {obstacle}; allowed here are 'auto', 'sdpa' and 'eager'")
    _warn_once(f"attnmod: backend 'auto' uses sdpa instead of triton: {obstacle}")
    return "sdpa"


@functools.cache
def _faster_self_attention(device: torch.device, head_dim: int, queries: int, _generation: int) -> str:
    """What the table of this generation takes for a shape: triton, or sdpa where that was measured to be faster."""
    name = architecture(device)
    entry = self_attention_entry(name, head_dim, queries)
    if not entry.measured:
        _warn_once(f"attnmod: nobody has measured these kernels on {name}: {_UNMEASURED}")
    return entry.backend


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)


@functools.cache
def _triton_obstacle(device: torch.device) -> str:
    """ "" where the Triton kernels run on tensors of this device, else one line why not."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    tiles = sys.modules.get("attnmod.kernels.tiles")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" if tiles is None else tiles.INTERPRETED.value
    if interpreted:
        return ""
    if device.type != configs.ACCELERATOR:
        return f"on {device.type} it runs only in Triton's interpreter, with TRITON_INTERPRET=1 set before the start"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        major, minor = torch.cuda.get_device_capability(device)
        return f"it needs compute capability 8.0, and {torch.cuda.get_device_name(device)} has {major}.{minor}"
    return ""


@torch.library.register_fake("attnmod::self_attention", lib=_library)
def _self_attention_fake(q, k, v, temperature=None, scale=None, backend="auto"):
    check_gradients(backend, q=q, k=k, v=v, temperature=temperature)
    return empty_output(q)


@torch.library.register_fake("attnmod::cross_attention", lib=_library)
def _cross_attention_fake(
    q,
    k,
    v,
    entity_bits=None,
    affinity=None,
    log_weights=None,
    hidden_weight=None,
    owner=None,
    share_heads=False,
    renormalize=True,
    scale=None,
    return_owner=False,
    return_affinity=False,
    backend="auto",
):
    check_gradients(backend, q=q, k=k, v=v, affinity=affinity, log_weights=log_weights, hidden_weight=hidden_weight)
    return _empty_results(q, affinity, share_heads, return_owner, return_affinity)


# One implementation for every device: which code runs is decided by `backend`, when it runs.
_library.impl("self_attention", _self_attention_impl, "CompositeExplicitAutograd")
_library.impl("cross_attention", _cross_attention_impl, "CompositeExplicitAutograd")
