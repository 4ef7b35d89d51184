"""Does the modulation make pictures follow their prompts? Counted in the little world, whose truth is known.

    python -m benchmarks.alignment [EXPERIMENT ...] [--model DIR] [--config FILE] [--budget MINUTES]

Experiments, in this order if several are named (headline and sheet if none is):

    steps       how few Euler steps give what many do (stock, validation split)
    search      the open choices, one at a time, then the winners together, then confirmed (validation split only)
    arms        those of --arms FILE, {"name": {"field": value}}, against stock (validation split)
    headline    stock against modulated: 500 test prompts of 1, 2, 3 and 4 entities by 4 seeds
    ablation    temperature, mask, reweighting: each alone, each pair, all three (200 prompts by 2 seeds)
    guidance    the guidance scale from 1 to 12, stock and modulated (200 by 2)
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
from attnmod.benchmarks.laboratory.report import GROUPS, as_markdown, gains, summarise
from attnmod.benchmarks.laboratory.runs import PipelinePainter, Record, model_fingerprint, run
from attnmod.benchmarks.laboratory.tasks import draw_tasks
from attnmod.sampler.config import PRESETS, ModulationConfig

RESULTS = Path(__file__).with_name("results")
RECORDS = Path("generated") / "alignment"
EXPERIMENTS = ("steps", "search", "arms", "headline", "ablation", "guidance", "layers", "diagnosis", "sheet")
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
        """Make what is missing, and write what the records then say. Returns the summary."""
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
        summary = summarise(experiment, records, self._about(seed))
        self._write(experiment.name, summary)
        return summary

    def _with_options(self, arm: Arm, experiment: str) -> Arm:
        """The arm with the steps and the guidance scale of the command line, unless the experiment is about them."""
        changes: dict[str, Any] = {}
        if self.options.steps is not None and experiment != "steps":
            changes["steps"] = self.options.steps
        if self.options.guidance_scale is not None and experiment != "guidance":
            changes["guidance_scale"] = self.options.guidance_scale
        return dataclasses.replace(arm, **changes)

    def search(self) -> None:
        """All three stages, as far as time goes; the later ones follow from the earlier ones' figures."""
        summary = self.run(search.single_factors(self.base, tuple(self.options.factors)))
        order = search.winners(gains(summary))
        if not order:
            print("no choice gained anything on the base")
            return
        combined = search.combinations(self.base, order)
        found = gains(self.run(combined))
        known = [arm for arm in combined.arms if arm.name in found and arm.name != "stock"]
        self.run(
            search.confirmation(self.base, sorted(known, key=lambda arm: -found[arm.name])), search.CONFIRMATION_SEED
        )

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
    parser.add_argument("--task-seed", type=int, default=0, help="of the prompts; another one draws others (0)")
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
    for name in ("prompts", "repeats", "steps", "batch"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be at least 1")
    given = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "-m", "benchmarks.alignment", *given])
    return options


def main() -> None:
    options = parse()
    from attnmod.sampler.generate import Settings, load_pipeline

    folder = options.model or Path(__file__).parents[1] / "sampler" / "data" / "miniature"
    pipe = load_pipeline(Settings(prompt="", model=str(folder), device=options.device, dtype=options.dtype))
    dtype, device = str(pipe.unet.dtype).removeprefix("torch."), pipe.unet.device.type
    model = f"{model_fingerprint(folder)} in {dtype} on {device}"
    options.results.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(options, pipe, model)
    for name in EXPERIMENTS:
        if name not in options.experiments:
            continue
        if name in ("search", "sheet", "layers", "diagnosis"):
            getattr(laboratory, name)()
        elif name == "arms":
            laboratory.run(experiments.from_file(laboratory.base, options.arms), options.task_seed)
        else:
            laboratory.run(getattr(experiments, name)(laboratory.base), options.task_seed)


if __name__ == "__main__":
    main()
