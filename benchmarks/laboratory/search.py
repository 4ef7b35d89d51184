"""The choices that nobody published, searched with few runs, and on the validation split only.

One factor at a time from a base; then the factors' winners together, the strongest first; then the best of these
against base and stock on validation prompts that the search has not seen. Arms are ranked by the share of attributes
that are right on two to four entities, which so few pictures tell better than whole prompts; all tables show both.
"""

from typing import Any

from attnmod.benchmarks.laboratory.arms import Arm, Experiment, changed
from attnmod.sampler.config import ModulationConfig

CONFIRMED = 3  # arms that the last stage looks at again
CONFIRMATION_SEED = 1  # of its prompts; the first two stages draw theirs with 0


def _linear(start: float, end: float, begin: float = 0.0, stop: float = 1.0) -> dict[str, Any]:
    return {"kind": "linear", "start": start, "end": end, "begin": begin, "stop": stop}


def _until(value: float, progress: float, after: float = 1.0) -> dict[str, Any]:
    """value up to this progress, then at once another."""
    return {"kind": "linear", "start": value, "end": after, "begin": progress, "stop": progress}


# factor -> variant -> what it changes
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "tau": {
        "tau 1": {"temperature": 1.0},
        "tau 0.9 early": {"temperature": _linear(0.9, 1.0, 0.2, 0.5)},
        "tau 0.8 early": {"temperature": _linear(0.8, 1.0, 0.2, 0.5)},
        "tau 0.7 early": {"temperature": _linear(0.7, 1.0, 0.2, 0.5)},
        "tau 0.6 early": {"temperature": _linear(0.6, 1.0, 0.2, 0.5)},
        "tau 0.7 long": {"temperature": _linear(0.7, 1.0, 0.5, 0.9)},
        "tau 0.8 always": {"temperature": 0.8},
    },
    "tau rows": {"tau on all rows": {"temperature_rows": "all"}},
    "mask": {
        "no mask": {"hidden_weight": 1.0},
        "mask from the start": {"hidden_weight": 0.0},
        "mask from 0.17": {"hidden_weight": _until(1.0, 0.17, after=0.0)},
        "mask from 0.25": {"hidden_weight": _until(1.0, 0.25, after=0.0)},
        "mask from 0.33": {"hidden_weight": _until(1.0, 0.33, after=0.0)},
        "mask from 0.42": {"hidden_weight": _until(1.0, 0.42, after=0.0)},
        "soft mask 0.2 from 0.25": {"hidden_weight": _until(1.0, 0.25, after=0.2)},
        "mask grows 0 to 0.5": {"hidden_weight": _linear(1.0, 0.0, 0.0, 0.5)},
        "mask grows 0.25 to 0.5": {"hidden_weight": _linear(1.0, 0.0, 0.25, 0.5)},
        "mask early": {"hidden_weight": _until(0.0, 0.5)},
    },
    "vote": {"vote mean": {"vote": "mean"}, "vote head": {"vote": "head"}},
    "balance": {"balanced": {"balanced": True}, "not balanced": {"balanced": False}},
    "ownership": {
        "by layer": {"ownership": "layer", "owned_above": 0.0},
        "by layer and head": {"ownership": "layer", "owned_above": 0.0, "share_heads": False},
        "by layer, unowned background": {"ownership": "layer", "owned_above": 0.0, "unowned_background": True},
        "every patch owned": {"ownership": "average", "owned_above": 0.0},
        "owned above 1": {"ownership": "average", "owned_above": 1.0},
        "owned above 1.2": {"ownership": "average", "owned_above": 1.2},
        "owned above 1.5": {"ownership": "average", "owned_above": 1.5},
        "owned above 2": {"ownership": "average", "owned_above": 2.0},
        "owned above 3": {"ownership": "average", "owned_above": 3.0},
        "all sizes decide": {"ownership": "average", "deciding_sizes": "all"},
    },
    "average": {
        "average decay 0": {"average_decay": 0.0},
        "average decay 0.3": {"average_decay": 0.3},
        "average decay 0.5": {"average_decay": 0.5},
        "average decay 0.8": {"average_decay": 0.8},
    },
    "smoothing": {
        "not smoothed": {"average_smoothing": 0.0},
        "smoothed 0.05": {"average_smoothing": 0.05},
        "smoothed 0.075": {"average_smoothing": 0.075},
        "smoothed 0.12": {"average_smoothing": 0.12},
    },
    "neglected entities": {
        "equalized 0.5": {"equalize_entities": 0.5},
        "equalized": {"equalize_entities": 1.0},
    },
    "special tokens": {
        "eos, padding plain": {"eos": "plain", "padding": "plain"},
        "eos, padding masked": {"eos": "masked", "padding": "masked"},
        "padding masked": {"eos": "plain", "padding": "masked"},
        "eos, padding global": {"eos": "global", "padding": "global"},
        "eos, padding absent": {"eos": "absent", "padding": "absent"},
        "bos absent": {"bos": "absent"},
    },
    "curves": {
        "no reweighting": {"global_weight": 1.0, "detail_weight": 1.0},
        "details grow to 1.3": {"global_weight": _linear(1.0, 0.8), "detail_weight": _linear(1.0, 1.3)},
        "details grow to 2": {"global_weight": _linear(1.0, 0.5), "detail_weight": _linear(1.0, 2.0)},
        "details 1.5 throughout": {"global_weight": 1.0, "detail_weight": 1.5},
    },
    "renormalisation": {"not renormalised": {"renormalize": False}},
    "layers": {
        "mask in up blocks": {"cross_attention_layers": ["up_blocks.*"]},
        "mask in down and mid": {"cross_attention_layers": ["down_blocks.*", "mid_block.*"]},
        "tau in up blocks": {"self_attention_layers": ["up_blocks.*"]},
        "tau in down and mid": {"self_attention_layers": ["down_blocks.*", "mid_block.*"]},
    },
}


def single_factors(base: ModulationConfig, factors: tuple[str, ...] = ()) -> Experiment:
    """The base and everything that differs from it in one factor; factors left out are all."""
    chosen = factors or tuple(FACTORS)
    if unknown := sorted(set(chosen) - set(FACTORS)):
        raise ValueError(f"factors {unknown} are unknown; known are {', '.join(FACTORS)}")
    arms = [Arm("base", base), Arm("stock")]
    seen = {arm.fingerprint for arm in arms}
    for factor in chosen:
        for name, values in FACTORS[factor].items():
            arm = Arm(name, changed(base, **values))
            if arm.fingerprint not in seen:  # a variant that the base has already
                seen.add(arm.fingerprint)
                arms.append(arm)
    about = "one choice at a time, from the base"
    return Experiment("search", about, tuple(arms), split="validation", prompts=100)


def winners(gains: dict[str, float], factors: dict[str, dict[str, dict[str, Any]]] = FACTORS) -> list[str]:
    """The best variant of each factor that gained something on the base, the strongest first.

    >>> winners({"vote mean": 0.02, "vote head": -0.1, "owned above 2": 0.05, "tau 1": 0.0})
    ['owned above 2', 'vote mean']
    """
    best = []
    for variants in factors.values():
        known = [name for name in variants if name in gains]
        if known and gains[top := max(known, key=lambda name: gains[name])] > 0:
            best.append(top)
    return sorted(best, key=lambda name: -gains[name])


def combinations(base: ModulationConfig, order: list[str]) -> Experiment:
    """The base with the first winner, with the first two, and so on."""
    values = {name: changes for variants in FACTORS.values() for name, changes in variants.items()}
    arms, config = [Arm("base", base), Arm("stock")], base
    for count, name in enumerate(order, start=1):
        config = changed(config, **values[name])
        arms.append(Arm(" + ".join(order[:count]), config))
    about = "the winners of the search together, one more in each row"
    return Experiment("combinations", about, tuple(arms), split="validation", prompts=100)


def confirmation(base: ModulationConfig, best: list[Arm]) -> Experiment:
    """The best arms against stock, on prompts that chose none of them."""
    arms = (Arm("stock"), Arm("base", base), *best[:CONFIRMED])
    about = "the best of the search on validation prompts that it has not seen"
    return Experiment("confirmation", about, arms, split="validation", prompts=200)
