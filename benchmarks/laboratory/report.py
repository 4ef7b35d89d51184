"""What the records of an experiment say: figures with intervals, as JSON and as a Markdown table."""

import statistics as middle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnmod.benchmarks.laboratory.arms import Experiment
from attnmod.benchmarks.laboratory.bootstrap import LEVEL, Estimate, difference, estimate
from attnmod.benchmarks.laboratory.runs import Record, Result
from attnmod.benchmarks.laboratory.tasks import Task
from attnmod.benchmarks.miniature.judge import ALL_CATEGORIES, MISTAKES

# name -> one picture's value, or None where the prompt does not ask for it
METRICS: dict[str, Callable[[Result], float | None]] = {
    "whole": lambda result: float(result.verdict.whole),
    "layout": lambda result: float(result.verdict.layout),
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


def paired(records: Sequence[Record], tasks: Sequence[Task], repeats: int) -> list[list[Result]]:
    """Of each record the pictures that were asked for and that all of them have.

    An interrupted run compares nothing that is not paired, and what an earlier, larger run has recorded does not count.
    """
    wanted = [(task, repeat) for task in tasks for repeat in range(repeats)]
    common = [(task.number, repeat) for task, repeat in wanted if all(record.has(task, repeat) for record in records)]
    return [[record.results[key] for key in common] for record in records]


def seconds_a_picture(results: Sequence[Sequence[Result]]) -> list[float | None]:
    """Each arm's median, over the pictures that one process made of all arms: other times do not compare."""
    together = [
        place for place, made in enumerate(zip(*results, strict=True)) if len({result.session for result in made}) == 1
    ]
    if not together:
        return [None] * len(results)
    return [middle.median(found[place].seconds for place in together) for found in results]


def summarise(
    experiment: Experiment, tasks: Sequence[Task], records: Sequence[Record], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, as JSON can hold it.

    Args:
        experiment: whose arms, how many pictures, and what each arm is held against.
        tasks: its prompts.
        records: one for each arm.
        about: what else to note: the model, the command, the machine.
    """
    results = paired(records, tasks, experiment.repeats)
    arms = []
    for place, (arm, found, seconds) in enumerate(
        zip(experiment.arms, results, seconds_a_picture(results), strict=True)
    ):
        baseline = experiment.baseline(arm)
        figures = {
            group: {
                metric: {
                    "value": _as_dict(estimate(own := by_prompt(found, metric, group))),
                    "difference": _as_dict(difference(by_prompt(results[baseline], metric, group), own))
                    if baseline != place
                    else None,
                }
                for metric in METRICS
            }
            for group in GROUPS
        }
        settings = {**arm.settings(), "baseline": experiment.arms[baseline].name}
        arms.append({"name": arm.name, **settings, "seconds_per_picture": seconds, "figures": figures})
    pictures = len(results[0]) if results else 0
    return {
        "experiment": experiment.name,
        "about": experiment.about,
        "against": experiment.against,
        **about,
        "split": experiment.split,
        "prompts": len({result.task for result in results[0]}) if results else 0,
        "prompts_wanted": len(tasks),
        "pictures_per_arm": pictures,
        "pictures_per_arm_wanted": len(tasks) * experiment.repeats,
        "arms": arms,
    }


def is_finished(summary: Mapping[str, Any]) -> bool:
    """Whether every arm has all pictures that were asked for."""
    return summary["pictures_per_arm"] == summary["pictures_per_arm_wanted"]


def _as_dict(value: Estimate | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"mean": value.mean, "low": value.low, "high": value.high, "prompts": value.prompts}


# -- tables


def as_markdown(summary: Mapping[str, Any], groups: Sequence[str] = ("2 to 4",)) -> str:
    """The figures of a summary, one table for each group of prompts.

    Accuracies are percent of pictures, mistakes are a picture's mean number; after each in brackets the difference to
    the arm's baseline, with its interval, where that leaves out zero (and `FEWEST_PROMPTS` prompts or more ask for it).
    """
    made = f"{summary['pictures_per_arm']} pictures an arm, of {summary['prompts']} prompts"
    lines = [
        f"### {summary['experiment']}: {summary['about']}",
        "",
        f"{made} of the {summary['split']} split"
        + ("" if is_finished(summary) else f" ({summary['pictures_per_arm_wanted']} are meant to be made)")
        + f"; {summary['model_note']}.",
        f"Made by `{summary['command']}`.",
        f"In brackets the difference to {summary['against']} and its {LEVEL:.0%} interval, where that leaves out zero.",
    ]
    if any(arm["seconds_per_picture"] is None for arm in summary["arms"]):
        lines.append("No time is given: the arms' pictures were made in different runs, whose times do not compare.")
    lines.append("")
    percent = ("whole", "layout", "attributes", *ALL_CATEGORIES)
    for group in groups:
        lines += [
            f"{_group_title(group)}:",
            "",
            f"| arm | whole prompt | errors against {summary['against']} | "
            + " | ".join(["layout", "attributes", *ALL_CATEGORIES, *MISTAKES])
            + " | s a picture |",
            "| --- |" + " --- |" * (5 + len(ALL_CATEGORIES) + len(MISTAKES)),
        ]
        whole = {arm["name"]: arm["figures"][group]["whole"]["value"] for arm in summary["arms"]}
        for arm in summary["arms"]:
            figures, baseline = arm["figures"][group], whole[arm["baseline"]]
            cells = [_cell(figures[metric], 100 if metric in percent else 1) for metric in METRICS]
            seconds = "-" if arm["seconds_per_picture"] is None else f"{arm['seconds_per_picture']:.2f}"
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
    """By how much each arm is better than its baseline; baselines and arms without figures are left out."""
    found = {}
    for arm in summary["arms"]:
        change = arm["figures"][group][metric]["difference"]
        if change is not None:
            found[arm["name"]] = change["mean"]
    return found
