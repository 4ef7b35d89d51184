"""What is modulated, and how: every choice that the method leaves open, by name."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnmod.sampler.schedule import Curve

VOTES = ("sum", "mean", "head")
SPECIAL_TOKENS = ("plain", "global", "masked", "absent")
BACKENDS = ("auto", "triton", "sdpa", "eager")
TEMPERATURE_ROWS = ("conditional", "all")
OWNERSHIPS = ("layer", "average")
DECIDING_SIZES = ("all", "finest", "coarsest")


class _CurveField:
    """A field that is read as a `Curve` and may be given as a number or a dict, which type checkers know, too."""

    def __init__(self, default: Curve):
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, config: Any, owner: type | None = None) -> Curve:
        return self.default if config is None else config.__dict__[self.name]

    def __set__(self, config: Any, value: Curve | float | dict[str, Any]) -> None:
        try:
            config.__dict__[self.name] = Curve.of(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None


@dataclass(frozen=True)
class ModulationConfig:
    """The settings of one attached pipeline; frozen, checked, JSON both ways.

    The three mechanisms come from "Towards Better Text-to-Image Generation Alignment via Attention Modulation"
    (Wu et al., arXiv 2404.13899). Its constants are not published where we could read them. The defaults here won among
    those compared on the miniature's validation prompts (benchmarks/results/alignment-candidates.md and
    alignment-finalists.md); on SDXL itself nothing has been measured.

    A curve field takes a `Curve`, a number (constant) or a dict as `Curve.to_dict` gives it.

    Attributes:
        temperature: tau of self-attention, softmax(q k^T scale / tau). Below 1 sharpens. Above 0.
        temperature_rows: whether tau holds for "conditional" rows only, or for "all" rows of such a call.
        hidden_weight: what is left of a token's attention in patches owned by another entity: 0 is a hard mask,
            1 none. In [0, 1]. A mask that grows, because votes are unsure at first, is whole from the first step on
            where regions are given by hand.
        global_weight: weight of the words that belong to no entity (layout, action, scene, style).
        detail_weight: weight of the words of entities.
        vote: how an entity's tokens vote for it: the "sum" or the "mean" of their probabilities, or the tokens of
            its "head" noun alone.
        balanced: divide an entity's vote by its mean over the patches, as the run's earlier calls saw it, so that one
            strong entity does not win every patch.
        ownership: who decides a patch's owner: each "layer" for itself; or the "average" of the affinities over
            layers and the run's earlier calls, one map that all layers read (in the first call nobody owns a patch).
        deciding_sizes: whose affinities are averaged, where layers come in several sizes: those of the last layer of
            "all" sizes, of the "finest" or of the "coarsest" alone.
        average_decay: how much of that average, and of the means that balance, is kept at each call. In [0, 1).
        average_smoothing: with ownership="average": standard deviation of the Gaussian that smooths the average before
            the patches are given to their owners, as a part of the picture's shorter side: what an entity covers hangs
            together, and single votes err. Attend-and-Excite (Chefer et al., arXiv 2301.13826) smooths its maps, too.
            In 0 to 0.5; 0: not at all.
        owned_above: with ownership="average": a patch is owned only where the winner's affinity is more than so many
            times its mean over the patches; elsewhere it is nobody's and sees every token. 0: every patch is owned.
        equalize_entities: how far the weights of the entities' words make up for unequal attention, in 0 to 1: at 1 an
            entity that the patches attend to half as much as to another weighs twice as much as that one. Each
            entity's own factor stays in e^-2 to e^2, so that two may come to differ by e^4. Against neglected entities,
            which Attend-and-Excite excites by gradients. No effect where regions are given by hand.
        share_heads: one owner per patch, from the mean over the heads, instead of one per head. No effect with
            ownership="average" and where regions are given by hand: all heads are handed one map, unless another tool
            has merged a layer's patches, which then votes.
        unowned_background: let the global words vote too; a patch that they win belongs to nobody and sees every
            token.
        renormalize: divide by the modulated sum of weights (True) or by the unmodulated one (False).
        bos, eos, padding: what CLIP's special tokens are: "plain" (weight 1 for every patch), "global" (weighted
            like a global word), "masked" (hidden in every owned patch of a prompt with two entities or more, as another
            entity's words are: the end of text and the padding have read the whole prompt) or "absent" (taken out of
            conditional rows).
        self_attention_layers, cross_attention_layers: shell patterns over the layers' full names, such as
            "mid_block.*" or "up_blocks.0.*"; a layer that no pattern matches keeps its own processor.
        backend: of the kernels: "auto", "triton", "sdpa" or "eager".

    Raises:
        ValueError: a value outside what is listed above; the message names the field.
        TypeError: a field of the wrong type.
    """

    temperature: _CurveField = _CurveField(Curve("linear", 0.9, 1.0, begin=0.2, stop=0.5))
    temperature_rows: str = "conditional"
    hidden_weight: _CurveField = _CurveField(Curve("linear", 1.0, 0.0, begin=0.33, stop=0.33))
    global_weight: _CurveField = _CurveField(Curve("linear", 1.0, 0.8))
    detail_weight: _CurveField = _CurveField(Curve("linear", 1.0, 1.3))
    vote: str = "sum"
    balanced: bool = True
    ownership: str = "average"
    deciding_sizes: str = "finest"
    average_decay: float = 0.3
    average_smoothing: float = 0.075
    owned_above: float = 1.2
    equalize_entities: float = 0.0
    share_heads: bool = True
    unowned_background: bool = False
    renormalize: bool = True
    bos: str = "plain"
    eos: str = "global"
    padding: str = "global"
    self_attention_layers: tuple[str, ...] = ("*",)
    cross_attention_layers: tuple[str, ...] = ("*",)
    backend: str = "auto"

    def __post_init__(self):
        if min(self.temperature.ends) <= 0:
            raise ValueError(f"temperature goes from {self.temperature.ends}; it must stay above 0")
        if max(self.hidden_weight.ends) > 1:
            raise ValueError(f"hidden_weight goes from {self.hidden_weight.ends}; it must stay in 0 to 1")
        for name, allowed in (
            ("temperature_rows", TEMPERATURE_ROWS),
            ("vote", VOTES),
            ("ownership", OWNERSHIPS),
            ("deciding_sizes", DECIDING_SIZES),
            ("bos", SPECIAL_TOKENS),
            ("eos", SPECIAL_TOKENS),
            ("padding", SPECIAL_TOKENS),
            ("backend", BACKENDS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        for name in ("balanced", "share_heads", "unowned_background", "renormalize"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        for name in ("average_decay", "average_smoothing", "owned_above", "equalize_entities"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} is {value!r}; it must be a number")
            object.__setattr__(self, name, float(value))
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay is {self.average_decay!r}; it must lie in 0 to 1, below 1")
        if not 0 <= self.average_smoothing <= 0.5:
            raise ValueError(f"average_smoothing is {self.average_smoothing!r}; it must lie in 0 to 0.5")
        if not 0 <= self.equalize_entities <= 1:
            raise ValueError(f"equalize_entities is {self.equalize_entities!r}; it must lie in 0 to 1")
        if not 0 <= self.owned_above < math.inf:
            raise ValueError(f"owned_above is {self.owned_above!r}; it must be 0 or more, and finite")
        for name in ("self_attention_layers", "cross_attention_layers"):
            patterns = getattr(self, name)
            is_sequence = isinstance(patterns, Sequence) and not isinstance(patterns, str)
            if not is_sequence or not all(isinstance(pattern, str) for pattern in patterns):
                raise TypeError(f"{name} is {patterns!r}; it must be a sequence of patterns")
            object.__setattr__(self, name, tuple(patterns))

    @property
    def modulates_self_attention(self) -> bool:
        return bool(self.self_attention_layers) and not self.temperature.is_constantly(1.0)

    @property
    def modulates_cross_attention(self) -> bool:
        plain = (
            self.hidden_weight.is_constantly(1.0)
            and self.global_weight.is_constantly(1.0)
            and self.detail_weight.is_constantly(1.0)
            and not self.equalize_entities
            and "absent" not in (self.bos, self.eos, self.padding)
        )
        return bool(self.cross_attention_layers) and not plain

    @property
    def observes_affinity(self) -> bool:
        """Whether the patches' affinities are averaged over a run: for balancing, ownership, or equal attention."""
        masks = not self.hidden_weight.is_constantly(1.0) and (self.balanced or self.ownership == "average")
        return self.modulates_cross_attention and (masks or self.equalize_entities > 0)

    @property
    def is_neutral(self) -> bool:
        """Whether these settings change nothing: then the pipeline's own processors run."""
        return not (self.modulates_self_attention or self.modulates_cross_attention)

    @property
    def has_phases(self) -> bool:
        """Whether anything changes over a run."""
        curves = (self.temperature, self.hidden_weight, self.global_weight, self.detail_weight)
        return any(curve.ends[0] != curve.ends[1] for curve in curves)

    @classmethod
    def preset(cls, name: str) -> "ModulationConfig":
        """A named configuration.

        "default"; "neutral"; "described": masks as the paper describes them, by each layer from the first step on; or
        one mechanism alone: "temperature", "mask" (as described), "reweighting".

        >>> ModulationConfig.preset("neutral").is_neutral
        True
        """
        if name not in PRESETS:
            raise ValueError(f"preset is {name!r}; known are {', '.join(PRESETS)}")
        return cls.from_dict(PRESETS[name])

    def to_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value.to_dict() if isinstance(value, Curve) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModulationConfig":
        """The inverse of `to_dict`; keys left out take their defaults, unknown keys raise ValueError."""
        if not isinstance(values, dict):
            raise TypeError(f"a configuration is a dict, not {type(values).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"configuration has unknown keys {unknown}; known are {known}")
        return cls(**values)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "ModulationConfig":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no JSON, or no valid configuration.
        """
        text = Path(path).read_text(encoding="utf-8")
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        try:
            return cls.from_dict(values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


REWEIGHTING = ("global_weight", "detail_weight", "equalize_entities")
_OFF = {"temperature": 1.0, "hidden_weight": 1.0, "global_weight": 1.0, "detail_weight": 1.0, "equalize_entities": 0.0}
# Every patch belongs to somebody from the first step on, by the vote of each layer for itself: the method as it is
# described, with a balanced vote. The default's mask begins later, and is surer of itself.
_DESCRIBED_MASK: dict[str, Any] = {
    "hidden_weight": 0.0,
    "balanced": True,
    "ownership": "layer",
    "deciding_sizes": "all",
    "owned_above": 0.0,
    "eos": "plain",
    "padding": "plain",
}

# name -> what differs from the defaults
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "neutral": _OFF,
    "described": _DESCRIBED_MASK,
    "temperature": {name: value for name, value in _OFF.items() if name != "temperature"},
    "mask": {**_OFF, **_DESCRIBED_MASK},
    "reweighting": {name: value for name, value in _OFF.items() if name not in REWEIGHTING},
}
