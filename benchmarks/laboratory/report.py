"""What the records of an experiment say: figures with intervals, as JSON and as a Markdown table."""

import statistics as middle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnmod.benchmarks.laboratory.arms import Experiment
from attnmod.benchmarks.laboratory.bootstrap import Estimate, difference, estimate
from attnmod.benchmarks.laboratory.runs import Record, Result
from attnmod.benchmarks.miniature.judge import ALL_CATEGORIES, MISTAKES

# name -> one picture's value, or None where the prompt does not ask for it
METRICS: dict[str, Callable[[Result], float | None]] = {
    "whole": lambda result: float(result.verdict.whole),
    "attributes": lambda result: result.verdict.attributes,
    **{name: (lambda result, name=name: _as_float(result.verdict.categories[name])) for name in ALL_CATEGORIES},
    **{name: (lambda result, name=name: float(getattr(result.verdict, name))) for name in MISTAKES},
}
# which prompts: by the number of entities
GROUPS: dict[str, tuple[int, ...]] = {
    "1": (1,),
    "2": (2,),
    "3": (3,),
    "4": (4,),
    "2 to 4": (2, 3, 4),
    "all": (1, 2, 3, 4),
}


FEWEST_PROMPTS = 10  # a bootstrap over fewer gives no interval worth the name: tables then show the value alone


def _as_float(value: bool | None) -> float | None:
    return None if value is None else float(value)


def by_prompt(results: Sequence[Result], metric: str, group: str) -> dict[int, float]:
    """Each prompt's mean over its pictures; prompts that do not ask for it are left out."""
    values: dict[int, list[float]] = {}
    for result in results:
        value = METRICS[metric](result)
        if value is not None and result.things in GROUPS[group]:
            values.setdefault(result.task, []).append(value)
    return {task: sum(found) / len(found) for task, found in values.items()}


def paired(records: Sequence[Record]) -> list[list[Result]]:
    """Of each record the pictures that all of them have: an interrupted run compares nothing that is not paired."""
    common = set.intersection(*(set(record.results) for record in records)) if records else set()
    return [[record.results[key] for key in sorted(common)] for record in records]


def summarise(experiment: Experiment, records: Sequence[Record], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, as JSON can hold it.

    Args:
        experiment: whose arms; the first is the baseline.
        records: one for each arm.
        about: what else to note: the model, the command, the machine.
    """
    results = paired(records)
    arms = []
    for arm, found in zip(experiment.arms, results, strict=True):
        figures = {
            group: {
                metric: {
                    "value": _as_dict(estimate(own := by_prompt(found, metric, group))),
                    "difference": _as_dict(difference(by_prompt(results[0], metric, group), own))
                    if arm is not experiment.arms[0]
                    else None,
                }
                for metric in METRICS
            }
            for group in GROUPS
        }
        seconds = middle.median(result.seconds for result in found) if found else None
        arms.append({"name": arm.name, **arm.settings(), "seconds_per_picture": seconds, "figures": figures})
    pictures = len(results[0]) if results else 0
    return {
        "experiment": experiment.name,
        "about": experiment.about,
        **about,
        "split": experiment.split,
        "prompts": len({result.task for result in results[0]}) if results else 0,
        "prompts_wanted": experiment.prompts,
        "pictures_per_arm": pictures,
        "pictures_per_arm_wanted": experiment.prompts * experiment.repeats,
        "arms": arms,
    }


def _as_dict(value: Estimate | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"mean": value.mean, "low": value.low, "high": value.high, "prompts": value.prompts}


# -- tables


def as_markdown(summary: Mapping[str, Any], groups: Sequence[str] = ("2 to 4",)) -> str:
    """The figures of a summary, one table for each group of prompts.

    Accuracies are percent of pictures, mistakes are a picture's mean number; after each in brackets the difference to
    the first arm, with its interval, where that leaves out zero (and at least `FEWEST_PROMPTS` prompts ask for it).
    """
    unfinished = summary["pictures_per_arm"] < summary["pictures_per_arm_wanted"]
    made = f"{summary['pictures_per_arm']} pictures an arm, of {summary['prompts']} prompts"
    lines = [
        f"### {summary['experiment']}: {summary['about']}",
        "",
        f"{made} of the {summary['split']} split"
        + (f" ({summary['pictures_per_arm_wanted']} are meant to be made)" if unfinished else "")
        + f"; {summary['model_note']}.",
        f"Made by `{summary['command']}`.",
        "",
    ]
    percent = ("whole", "attributes", *ALL_CATEGORIES)
    for group in groups:
        lines += [
            f"{_group_title(group)}:",
            "",
            "| arm | whole prompt | errors against the first arm | "
            + " | ".join(["attributes", *ALL_CATEGORIES, *MISTAKES])
            + " | s a picture |",
            "| --- |" + " --- |" * (4 + len(ALL_CATEGORIES) + len(MISTAKES)),
        ]
        baseline = summary["arms"][0]["figures"][group]["whole"]["value"]
        for arm in summary["arms"]:
            figures = arm["figures"][group]
            cells = [_cell(figures[metric], 100 if metric in percent else 1) for metric in METRICS]
            seconds = "" if arm["seconds_per_picture"] is None else f"{arm['seconds_per_picture']:.2f}"
            row = [arm["name"], cells[0], _errors(figures["whole"]["value"], baseline), *cells[1:], seconds]
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines)


def _group_title(group: str) -> str:
    if group == "all":
        return "All prompts"
    return f"Prompts with {group} {'entity' if group == '1' else 'entities'}"


def _cell(figure: Mapping[str, Any], scale: float) -> str:
    value, change = figure["value"], figure["difference"]
    if value is None:
        return "-"
    digits = 1 if scale == 100 else 2
    text = f"{scale * value['mean']:.{digits}f}"
    if change is None or change["prompts"] < FEWEST_PROMPTS:
        return text
    if not change["low"] <= 0 <= change["high"]:
        low, high = scale * change["low"], scale * change["high"]
        text += f" ({scale * change['mean']:+.{digits}f}: {low:+.{digits}f} to {high:+.{digits}f})"
    return text


def _errors(value: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None) -> str:
    """How many of the whole-prompt errors are left, in percent."""
    if value is None or baseline is None or baseline["mean"] == 1:
        return "-"
    return f"{100 * (1 - value['mean']) / (1 - baseline['mean']):.0f} %"


def gains(summary: Mapping[str, Any], metric: str = "attributes", group: str = "2 to 4") -> dict[str, float]:
    """By how much each arm is better than the first one; arms without figures are left out."""
    found = {}
    for arm in summary["arms"][1:]:
        change = arm["figures"][group][metric]["difference"]
        if change is not None:
            found[arm["name"]] = change["mean"]
    return found
