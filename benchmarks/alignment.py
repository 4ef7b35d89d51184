"""Does the modulation make pictures follow their prompts? Counted in the little world, whose truth is known.

    python -m benchmarks.alignment [EXPERIMENT ...] [--model DIR] [--config FILE] [--budget MINUTES]

Experiments, in this order if several are named (headline and sheet if none is):

    steps       how few Euler steps give what many do (stock, validation split)
    search      the open choices, one at a time, then the winners together, then confirmed (validation split only)
    arms        those of --arms FILE, {"name": {"field": value}}, against stock (validation split)
    headline    stock against modulated: 500 test prompts of 1, 2, 3 and 4 entities by 4 seeds
    ablation    temperature, mask, reweighting: each alone, each pair, all three (200 prompts by 2 seeds)
    guidance    the guidance scale from 1 to 12, modulated against stock at each (200 by 2)
    regions     masks whose regions are given: what masks can do at their best (validation split)
    layers      which layers know who is where, and from which step on (validation split)
    diagnosis   who owned which patch, step by step, and what became of it
    sheet       a picture of the first test prompts: stock, modulated, and who owns which patch

All arms see the same prompts and the same noise. Every finished picture is recorded at once, so an interrupted or timed
out run goes on where it stopped; records know their model and their settings. Results go to benchmarks/results.
"""

import argparse
import dataclasses
import json
import os
import resource
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from attnmod.benchmarks.laboratory import arms as experiments
from attnmod.benchmarks.laboratory import search
from attnmod.benchmarks.laboratory.arms import Arm, Experiment
from attnmod.benchmarks.laboratory.report import GROUPS, as_markdown, gains, is_finished, summarise
from attnmod.benchmarks.laboratory.runs import PipelinePainter, Record, model_fingerprint, run
from attnmod.benchmarks.laboratory.tasks import draw_tasks
from attnmod.sampler.config import PRESETS, ModulationConfig

RESULTS = Path(__file__).with_name("results")
RECORDS = Path("generated") / "alignment"
EXPERIMENTS = ("steps", "search", "arms", "headline", "ablation", "guidance", "regions", "layers", "diagnosis", "sheet")
OWN_PROMPTS = ("search", "layers", "diagnosis", "sheet")  # whose prompts no option draws anew
SHEET_PROMPTS = 12
DIAGNOSED_PROMPTS = 48
VOTING_PROMPTS = 100


class Laboratory:
    """Runs experiments with one model, within one budget of time."""

    def __init__(self, options: argparse.Namespace, pipe: Any, model: str):
        self.options, self.pipe, self.model = options, pipe, model
        self.base = read_config(options.config)
        self.painter = PipelinePainter(pipe)
        self.deadline = None if options.budget is None else time.monotonic() + 60 * options.budget

    def run(self, experiment: Experiment, seed: int = 0) -> dict[str, Any]:
        """Make what is missing, and write what the records then say, if they say anything. Returns the summary."""
        options = self.options
        experiment = dataclasses.replace(
            experiment,
            prompts=options.prompts or experiment.prompts,
            repeats=options.repeats or experiment.repeats,
            arms=tuple(self._with_options(arm, experiment.name) for arm in experiment.arms),
        )
        tasks = draw_tasks(experiment.split, experiment.prompts, seed)
        records = [Record(options.records, self.model, arm, experiment.split, seed) for arm in experiment.arms]

        def tell(done: int, total: int) -> None:
            print(f"\r{experiment.name}: {done}/{total} pictures", end="", file=sys.stderr, flush=True)

        finished = run(
            self.painter,
            experiment.arms,
            tasks,
            records,
            repeats=experiment.repeats,
            batch=options.batch,
            deadline=self.deadline,
            told=tell,
        )
        print("" if finished else "  (out of time)", file=sys.stderr)
        summary = summarise(experiment, tasks, records, self._about(seed))
        if summary["pictures_per_arm"]:
            self._write(experiment.name, summary)
        else:
            print(f"{experiment.name}: no picture was made by every arm yet, so nothing is written")
        return summary

    def is_out_of_time(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _with_options(self, arm: Arm, experiment: str) -> Arm:
        """The arm with the steps and the guidance scale of the command line, unless the experiment is about them."""
        changes: dict[str, Any] = {}
        if self.options.steps is not None and experiment != "steps":
            changes["steps"] = self.options.steps
        if self.options.guidance_scale is not None and experiment != "guidance":
            changes["guidance_scale"] = self.options.guidance_scale
        return dataclasses.replace(arm, **changes)

    def search(self) -> None:
        """All three stages; each follows from the figures of the one before, so from all of its pictures only."""
        found = self._stage(search.single_factors(self.base, tuple(self.options.factors)))
        if found is None:
            return
        order = search.winners(found)
        if not order:
            print("no choice gained anything on the base")
            return
        combined = search.combinations(self.base, order)
        found = self._stage(combined)
        if found is None:
            return
        known = [arm for arm in combined.arms if arm.name in found and arm.name != "stock"]
        best = sorted(known, key=lambda arm: -found[arm.name])
        self._stage(search.confirmation(self.base, best), search.CONFIRMATION_SEED)

    def _stage(self, experiment: Experiment, seed: int = 0) -> dict[str, float] | None:
        """What each arm gained; None if time ran out before all had their pictures."""
        summary = self.run(experiment, seed)
        if is_finished(summary):
            return gains(summary)
        print(f"out of time in {experiment.name}: the search goes no further")
        return None

    def sheet(self) -> None:
        from attnmod.benchmarks.laboratory.sheet import draw_sheet

        count = self.options.prompts or SHEET_PROMPTS
        arm = self._with_options(Arm("modulated", self.base), "sheet")
        image = draw_sheet(self.pipe, arm, draw_tasks("test", count))
        path = self.options.results / "alignment-sheet.png"
        image.save(path)
        print(f"wrote {path}: the first {count} test prompts, first noise")

    def layers(self) -> None:
        """Each layer by itself, then the average that decides, as configured and with parts of it left out."""
        from attnmod.benchmarks.laboratory.diagnosis import votes_won

        averaged = dataclasses.replace(self.base, ownership="average")
        voters = {
            "": dataclasses.replace(self.base, ownership="layer"),
            "the average over the run": averaged,
            "the average, not smoothed": dataclasses.replace(averaged, average_smoothing=0.0),
            "the average, not balanced": dataclasses.replace(averaged, balanced=False),
            "the average, neither": dataclasses.replace(averaged, average_smoothing=0.0, balanced=False),
        }
        tasks = draw_tasks("validation", self.options.prompts or VOTING_PROMPTS)
        rows: dict[str, list[float]] = {}
        things, chance, done = 0, 0.0, []
        for name, config in voters.items():
            if config in done:  # the base has it so
                continue
            done.append(config)
            arm = self._with_options(Arm("votes", config), "layers")
            votes, things, chance = votes_won(self.pipe, arm, tasks, self.options.batch)
            rows |= {layer or name: shares for layer, shares in votes.items()}
        if not rows:
            several = f"of the first {len(tasks)} validation prompts none with several entities"
            raise ValueError(f"layers: {several} got a picture that shows one of them; ask for more")
        steps = len(next(iter(rows.values())))
        lines = [
            "### layers: which know who is where, by their own votes, while no mask is at work",
            "",
            f"Percent of the middle of a found object that its entity won, at each step; {things} objects of the first"
            f" {len(tasks)} validation prompts; chance is {100 * chance:.0f}; {self._about(0)['model_note']}.",
            f"Made by `{self.options.command}`.",
            "",
            "| layer | " + " | ".join(str(step + 1) for step in range(steps)) + " |",
            "| --- " * (steps + 1) + "|",
        ]
        for layer, shares in rows.items():
            lines.append(f"| {layer} | " + " | ".join(f"{100 * share:.0f}" for share in shares) + " |")
        text = "\n".join(lines) + "\n"
        print(text)
        self._save("alignment-layers.md", text)

    def diagnosis(self) -> None:
        from attnmod.benchmarks.laboratory.diagnosis import diagnose

        arm = self._with_options(Arm("modulated", self.base), "diagnosis")
        tasks = draw_tasks("validation", self.options.prompts or DIAGNOSED_PROMPTS)
        tasks = [task for task in tasks if task.things > 1]
        report = dataclasses.asdict(diagnose(self.pipe, arm, tasks, self.options.batch))
        print(f"{report['prompts']} prompts, {report['unread']} left out, whole prompts right {report['whole']:.2f}")
        names = [name for name, value in report.items() if isinstance(value, list) and value]
        print("step  " + "  ".join(names))
        for step in range(arm.steps):
            print(f"{step + 1:4}  " + "  ".join(f"{report[name][step]:{len(name)}.2f}" for name in names))
        summary = {**self._about(0), **arm.settings(), **report}
        self._save("alignment-diagnosis.json", json.dumps(summary, indent=1) + "\n")

    def _about(self, seed: int) -> dict[str, Any]:
        import torch

        note = f"model {self.model}" + (f", {self.options.note}" if self.options.note else "")
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "command": self.options.command,
            "model": self.model,
            "model_note": note,
            "tasks_seed": seed,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "peak_memory_mb": round(kilobytes / 1024),
            "batch": self.options.batch,
        }

    def _write(self, name: str, summary: dict[str, Any]) -> None:
        groups = list(GROUPS) if name == "headline" else ["2 to 4", "1"]
        text = as_markdown(summary, groups)
        print(text)
        self._save(f"alignment-{name}.json", json.dumps(summary, indent=1) + "\n")
        self._save(f"alignment-{name}.md", text)

    def _save(self, name: str, content: str) -> None:
        """Whole or not at all: a full disk spoils no earlier result."""
        path = self.options.results / name
        partial = path.with_suffix(".partial")
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, path)


def read_config(name: str | None) -> ModulationConfig:
    """A preset or a file; the defaults if left out."""
    if name is None:
        return ModulationConfig()
    return ModulationConfig.preset(name) if name in PRESETS else ModulationConfig.load(name)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a saved miniature (the built-in one)")
    parser.add_argument("--config", metavar="FILE", help="settings of the modulation, or a preset's name")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="begin nothing after so long")
    parser.add_argument("--prompts", type=int, help="instead of each experiment's own number")
    parser.add_argument("--repeats", type=int, help="pictures of each prompt, instead of each experiment's own number")
    parser.add_argument("--steps", type=int, help=f"of the denoising ({experiments.STEPS})")
    parser.add_argument("--guidance-scale", type=float, metavar="SCALE", help=f"({experiments.GUIDANCE:g})")
    parser.add_argument("--batch", type=int, default=8, help="pictures at once (8)")
    parser.add_argument("--arms", type=Path, metavar="FILE", help="of the experiment arms")
    parser.add_argument(
        "--task-seed", type=int, default=0, help=f"of the prompts, but for {', '.join(OWN_PROMPTS)} (0)"
    )
    parser.add_argument("--factors", nargs="*", default=[], help=f"of the search: {', '.join(search.FACTORS)} (all)")
    parser.add_argument("--device", default="auto", help="cpu, cuda (cuda if there is one)")
    parser.add_argument("--dtype", default="auto", help="float32, float16 or bfloat16 (float16 on cuda, else float32)")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="DIR", help=f"({RECORDS})")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where tables and pictures go")
    parser.add_argument("--note", default="", help="what to say of the model in the tables, such as its training")
    options = parser.parse_args(arguments)
    options.experiments = options.experiments or ["headline", "sheet"]
    if unknown := [name for name in options.experiments if name not in EXPERIMENTS]:
        parser.error(f"there is no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    if "arms" in options.experiments and options.arms is None:
        parser.error("the experiment arms needs --arms FILE")
    if unknown := [name for name in options.factors if name not in search.FACTORS]:
        parser.error(f"there is no factor {unknown[0]!r}; there are {', '.join(search.FACTORS)}")
    if options.task_seed and (deaf := [name for name in options.experiments if name in OWN_PROMPTS]):
        parser.error(f"--task-seed has no effect on {', '.join(deaf)}; name the other experiments alone")
    for name in ("prompts", "repeats", "steps", "batch"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be at least 1")
    given = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "-m", "benchmarks.alignment", *given])
    return options


def run_all(laboratory: Laboratory) -> None:
    """The experiments that the options name. Those without records, which could not go on, do not begin too late."""
    options = laboratory.options
    for name in EXPERIMENTS:
        if name not in options.experiments:
            continue
        if name in ("sheet", "layers", "diagnosis") and laboratory.is_out_of_time():
            print(f"{name}: out of time, not begun")
        elif name in OWN_PROMPTS:
            getattr(laboratory, name)()
        elif name == "arms":
            laboratory.run(experiments.from_file(laboratory.base, options.arms), options.task_seed)
        else:
            laboratory.run(getattr(experiments, name)(laboratory.base), options.task_seed)


def open_laboratory(options: argparse.Namespace) -> Laboratory:
    """
    Raises:
        FileNotFoundError, ValueError: no such model, device, number type or settings.
    """
    from attnmod.sampler.generate import Settings, load_pipeline

    read_config(options.config)  # before the model, which takes longer
    folder = options.model or Path(__file__).parents[1] / "sampler" / "data" / "miniature"
    weights = model_fingerprint(folder)
    pipe = load_pipeline(Settings(prompt="", model=str(folder), device=options.device, dtype=options.dtype))
    dtype, device = str(pipe.unet.dtype).removeprefix("torch."), pipe.unet.device.type
    options.results.mkdir(parents=True, exist_ok=True)
    return Laboratory(options, pipe, f"{weights} in {dtype} on {device}")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        run_all(open_laboratory(options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
