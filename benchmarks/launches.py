"""The launches that ship, recorded without a GPU: what a caller of one shape hands to Triton's compiler.

The launches are described for meta tensors. So what is compiled for another machine is what that machine would be
given: the tiles of its table, and arguments specialised as Triton specialises them.
"""

import math
from dataclasses import dataclass

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from attnmod.kernels.configs import Tiles
from attnmod.kernels.cross_attention import describe_cross_attention
from attnmod.kernels.plan import Launch
from attnmod.kernels.self_attention import describe_self_attention

_TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int8: "*i8",
}
_ENTITIES = 8
SLOTS = 16  # of the sampler's rows, whatever their prompt


@dataclass(frozen=True)
class Case:
    """One call: an op, its shape, and which of its features are used.

    feature: self-attention "temperature" or "plain"; cross-attention "plain" (no mask), "owner" (given map),
    "vote" (per head), "affinity" (per head, by a given affinity), "shared" (the heads vote together, by a given
    affinity that is also returned) or "average" (what ownership over a run is made from: shared, the affinity alone is
    of interest, and no token is hidden). weights, hidden, renormalize: whether cross-attention has log weights, a
    hidden weight (a mask without one is hard), and divides by the modulated sum; plain attention has none of them by
    default.
    """

    op: str
    feature: str
    dtype: torch.dtype
    heads: int
    queries: int
    tokens: int
    head_dim: int
    batch: int = 2
    candidate: Tiles | None = None  # these tiles, which do not ship
    weights: bool | None = None  # None: where there is a mask
    hidden: bool | None = None
    renormalize: bool = True

    @property
    def name(self) -> str:
        words = [self.op, self.feature, str(self.dtype).removeprefix("torch.")]
        words += [f"{'' if has else 'no-'}weights" for has in (self.weights,) if has is not None]
        words += [f"{'' if has else 'no-'}hidden" for has in (self.hidden,) if has is not None]
        words += [] if self.renormalize else ["unnormalised"]
        return " ".join([*words, f"{self.queries}x{self.tokens}x{self.head_dim}"])


def record(case: Case, architecture: str) -> Launch:
    """The one launch that this case makes on that architecture."""
    if case.op == "self":
        return describe_self_attention(**_self_attention_inputs(case), tiles=case.candidate, device=architecture)
    return describe_cross_attention(**_cross_attention_inputs(case), tiles=case.candidate, device=architecture)


def compile_launch(launch: Launch, architecture: str, scale_type: str = "fp32"):
    """The compiled kernel; scale_type "fp64" is what torch.compile passes for a Python float."""
    target = _target(architecture)
    arguments = dict(launch.arguments)
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = arguments.pop(parameter.name)
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = _describe((index,), value, constants, attributes, target.backend)
    signature["scale"] = scale_type
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target, options=arguments)


def _target(architecture: str) -> GPUTarget:
    if architecture.startswith("gfx"):
        return GPUTarget("hip", architecture, 64)
    return GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)


def _describe(path: tuple[int, ...], value, constants: dict, attributes: dict, backend: str):
    """The type of an argument, specialised as Triton does at a launch: 1 and None, and multiples of 16."""
    if isinstance(value, tuple):
        return tuple(_describe((*path, i), item, constants, attributes, backend) for i, item in enumerate(value))
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, torch.Tensor):
        attributes[path] = [["tt.divisibility", 16]]
        if backend == "hip":  # tensors under 2 GiB, whose offsets fit a buffer instruction
            attributes[path].append(["tt.pointer_range", 32])
        return _TYPES[value.dtype]
    if value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return "i32"


def _projected(case: Case, length: int) -> torch.Tensor:
    """[B, H, length, D] as a view of a projection [B, length, H * D]."""
    shape = (case.batch, length, case.heads, case.head_dim)
    return torch.empty(shape, dtype=case.dtype, device="meta").transpose(1, 2)


def _self_attention_inputs(case: Case) -> dict:
    q, k = _projected(case, case.queries), _projected(case, case.tokens)
    tau = torch.empty(case.batch, device="meta") if case.feature == "temperature" else None
    return {"q": q, "k": k, "v": k, "temperature": tau, "scale": 1 / math.sqrt(case.head_dim), "out": q}


def _cross_attention_inputs(case: Case) -> dict:
    q, k = _projected(case, case.queries), _projected(case, case.tokens)
    shared, masked = case.feature in ("shared", "average"), case.feature != "plain"
    votes, told = case.feature in ("vote", "affinity", "shared", "average"), case.feature != "average"
    by_token = (case.batch, case.tokens)
    owner_shape = (case.batch, case.queries) if shared else (case.batch, case.heads, case.queries)
    entities = _ENTITIES if told else SLOTS
    affinity = torch.empty(*by_token, entities, device="meta") if shared or case.feature == "affinity" else None
    weights = masked if case.weights is None else case.weights
    hidden = masked and told if case.hidden is None else case.hidden
    return {
        "q": q,
        "k": k,
        "v": k,
        "entity_bits": torch.empty(by_token, dtype=torch.int32, device="meta") if masked else None,
        "affinity": affinity,
        "log_weights": torch.empty(by_token, device="meta") if weights else None,
        "hidden_weight": torch.empty(case.batch, device="meta") if hidden else None,
        "owner": None
        if votes or not masked
        else torch.empty(case.batch, case.queries, dtype=torch.int8, device="meta"),
        "share_heads": shared,
        "renormalize": case.renormalize,
        "scale": 1 / math.sqrt(case.head_dim),
        "out": q,
        "owner_out": torch.empty(owner_shape, dtype=torch.int8, device="meta") if votes and told else None,
        "affinity_out": torch.empty(case.batch, case.queries, entities, device="meta") if shared else None,
    }
