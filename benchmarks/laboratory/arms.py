"""The arms of the laboratory's experiments, as data: a name, settings, a guidance scale."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnmod.benchmarks.laboratory.tasks import fingerprint
from attnmod.sampler.config import PRESETS, REWEIGHTING, ModulationConfig

GUIDANCE = 5.0  # as `attnmod generate` has it
STEPS = 20
OFF: dict[str, Any] = PRESETS["neutral"]
MECHANISMS = {
    "temperature": ("temperature",),
    "mask": ("hidden_weight",),
    "reweighting": REWEIGHTING,
}
# names of results; a file of arms must have another
TAKEN = ("steps", "search", "combinations", "confirmation", "headline", "ablation", "guidance")
TAKEN += ("layers", "regions", "diagnosis", "sheet")


@dataclass(frozen=True)
class Arm:
    """One way to make pictures.

    Attributes:
        name: in tables.
        config: None is the pipeline as it is.
        guidance_scale, steps: of the pipeline's call.
        regions: whether the entities' regions are given (`layout.regions`), in place of any vote.
        baseline: the name of the arm that it is held against, "" for the experiment's first. No picture depends on it.
    """

    name: str
    config: ModulationConfig | None = None
    guidance_scale: float = GUIDANCE
    steps: int = STEPS
    regions: bool = False
    baseline: str = ""

    def settings(self) -> dict[str, Any]:
        """What its pictures depend on, with model and noise."""
        config = None if self.config is None else self.config.to_dict()
        given = {"regions": True} if self.regions else {}
        return {"config": config, "guidance_scale": self.guidance_scale, "steps": self.steps, **given}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.settings())


@dataclass(frozen=True)
class Experiment:
    """Arms that are compared on the same prompts and noise.

    Attributes:
        name, about: for tables.
        arms: each is held against its baseline, where that is another.
        split: whose prompts.
        prompts, repeats: how many prompts, and pictures of each.
        against: what the baselines are, in words.
    """

    name: str
    about: str
    arms: tuple[Arm, ...]
    split: str = "test"
    prompts: int = 200
    repeats: int = 2
    against: str = "the first arm"

    def baseline(self, arm: Arm) -> int:
        """The place of the arm that this one is held against; its own, if it is a baseline itself.

        Raises:
            ValueError: there is no arm of that name.
        """
        return [other.name for other in self.arms].index(arm.baseline) if arm.baseline else 0


def changed(base: ModulationConfig, **values: Any) -> ModulationConfig:
    return dataclasses.replace(base, **values)


def with_mechanisms(base: ModulationConfig, mechanisms: tuple[str, ...]) -> ModulationConfig:
    """Only these of the three mechanisms, as base has them. Tokens that it takes out are part of its mask."""
    kept = {field for mechanism in mechanisms for field in MECHANISMS[mechanism]}
    off = {field: value for field, value in OFF.items() if field not in kept}
    if "mask" not in mechanisms:
        off |= {token: "plain" for token in ("bos", "eos", "padding") if getattr(base, token) == "absent"}
    return changed(base, **off)


def headline(base: ModulationConfig) -> Experiment:
    arms = (Arm("stock"), Arm("modulated", base))
    return Experiment("headline", "the shipped settings against the pipeline as it is", arms, prompts=500, repeats=4)


def ablation(base: ModulationConfig) -> Experiment:
    sets = [("temperature",), ("mask",), ("reweighting",)]
    sets += [("temperature", "mask"), ("temperature", "reweighting"), ("mask", "reweighting")]
    sets += [("temperature", "mask", "reweighting")]
    arms = tuple(Arm(" + ".join(chosen), with_mechanisms(base, chosen)) for chosen in sets)
    return Experiment("ablation", "each mechanism alone, each pair, all three", (Arm("stock"), *arms))


def regions(base: ModulationConfig) -> Experiment:
    """What masks can do at their best: who owns which patch is given, from the first step on."""
    mask = changed(with_mechanisms(base, ("mask",)), hidden_weight=0.0)
    arms = (
        Arm("stock"),
        Arm("modulated", base),
        Arm("mask, regions given", mask, regions=True),
        Arm("mask, regions given, special tokens masked", changed(mask, eos="masked", padding="masked"), regions=True),
    )
    about = "masks whose regions are given, against those that are voted for"
    return Experiment("regions", about, arms, split="validation", prompts=100, repeats=1)


def guidance(base: ModulationConfig) -> Experiment:
    """Stock and modulated at each scale, the latter held against the former."""
    scales = (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0)
    arms = [
        Arm(f"{name}, guidance {scale:g}", config, guidance_scale=scale, baseline=f"stock, guidance {scale:g}")
        for scale in scales
        for name, config in (("stock", None), ("modulated", base))
    ]
    about = "the scale of classifier-free guidance from 1 to 12"
    return Experiment("guidance", about, tuple(arms), against="stock at the same scale")


def from_file(base: ModulationConfig, path: Path) -> Experiment:
    """Arms of a JSON file, {name: {field: value}}, each what differs from base, against stock; validation split.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such JSON; settings that ModulationConfig does not allow, or a taken name: the message names the
            arm; the file's name, which becomes that of the results, is another experiment's.
    """
    if path.stem in TAKEN:
        raise ValueError(f"{path}: its results would be named {path.stem}, as those of another experiment; rename it")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(given, dict) or not all(isinstance(values, dict) for values in given.values()):
        raise ValueError(f'{path} must hold {{"name": {{"field": value}}}}')
    if "stock" in given:
        raise ValueError(f"{path}: stock is the name of the pipeline as it is; give that arm another")
    arms = [Arm("stock")]
    for name, values in given.items():
        try:
            arms.append(Arm(name, ModulationConfig.from_dict({**base.to_dict(), **values})))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {name}: {error}") from None
    return Experiment(path.stem, f"the arms of {path.name}", tuple(arms), split="validation", prompts=100)


def steps(_base: ModulationConfig) -> Experiment:
    """How few steps still give what many do: decides the number of steps of all other experiments."""
    arms = tuple(Arm(f"stock, {count} steps", steps=count) for count in (50, 25, 20, 15, 12, 10, 8))
    return Experiment("steps", "Euler steps of the stock pipeline", arms, split="validation", prompts=100)
