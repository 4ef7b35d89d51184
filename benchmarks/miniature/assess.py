"""How often the miniature, as it is, draws what it was asked for, and what it gets wrong.

    python -m benchmarks.miniature.assess [--model DIR] [--prompts N] [--split test]

N prompts for a single object and of each number of things, one picture each, stock sampling, read by the scorer.
A thing is what one noun phrase asks for: "three red rings" are one thing and three objects.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionXLPipeline
from tqdm import tqdm

from attnmod.benchmarks.miniature.export import DEFAULT_FOLDER
from attnmod.benchmarks.miniature.judge import ALL_CATEGORIES, MISTAKES, Verdict, judge
from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.scorer import read_picture
from attnmod.benchmarks.miniature.sheet import draw_samples
from attnmod.benchmarks.miniature.world import SPLITS, Scene, draw_scene

GROUPS = ("single", "1", "2", "3", "4")  # a single object; so many things, each of any number
_AT_ONCE = 8


def assess(
    pipe, prompts: int, split: str, steps: int, guidance_scale: float, groups=GROUPS
) -> dict[str, list[Verdict]]:
    """A verdict for each picture, by the group of its prompt."""
    verdicts: dict[str, list[Verdict]] = {}
    for group in groups:
        rngs = [np.random.default_rng((11, GROUPS.index(group), index)) for index in range(prompts)]
        scenes = [_draw(rng, split, group) for rng in rngs]
        texts = [write_prompt(scene, rng) for scene, rng in zip(scenes, rngs, strict=True)]
        verdicts[group] = []
        for first in tqdm(range(0, prompts, _AT_ONCE), desc=f"things: {group}"):
            pictures = draw_samples(
                pipe, texts[first : first + _AT_ONCE], steps=steps, guidance_scale=guidance_scale, seed=first
            )
            some = scenes[first : first + _AT_ONCE]
            verdicts[group] += [judge(scene, read_picture(p)) for scene, p in zip(some, pictures, strict=True)]
    return verdicts


def _draw(rng: np.random.Generator, split: str, group: str) -> Scene:
    while True:
        scene = draw_scene(rng, split, 1 if group == "single" else int(group))
        if group != "single" or scene.things[0].count == 1:
            return scene


def summarise(verdicts: dict[str, list[Verdict]]) -> dict[str, dict]:
    """By group: the share of right pictures in every category, and mistakes per picture."""
    summary = {}
    for group, judged in verdicts.items():
        shares: dict[str, float | None] = {}
        for category in ALL_CATEGORIES:
            asked = [right for v in judged if (right := v.categories[category]) is not None]
            shares[category] = sum(asked) / len(asked) if asked else None
        shares["whole prompt"] = sum(v.whole for v in judged) / len(judged)
        mistakes = Counter({name: sum(getattr(v, name) for v in judged) for name in MISTAKES})
        summary[group] = {"pictures": len(judged), "right": shares, "mistakes": dict(mistakes)}
    return summary


def as_table(summary: dict[str, dict]) -> str:
    """Markdown: a row for each group."""
    categories = [*ALL_CATEGORIES, "whole prompt"]
    lines = ["| things | pictures | " + " | ".join(categories) + " | " + " | ".join(MISTAKES) + " |"]
    lines.append("| ---: " * (2 + len(categories) + len(MISTAKES)) + "|")
    for group, row in summary.items():
        shares = ["-" if row["right"][c] is None else f"{row['right'][c]:.2f}" for c in categories]
        mistakes = [str(row["mistakes"][name]) for name in MISTAKES]
        lines.append(f"| {group} | {row['pictures']} | " + " | ".join([*shares, *mistakes]) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.miniature.assess", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_FOLDER, metavar="DIR")
    parser.add_argument("--prompts", type=int, default=100, help="of each group (100)")
    parser.add_argument("--things", nargs="+", choices=GROUPS, default=GROUPS, help="groups (all)")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=5.0, metavar="SCALE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there, too")
    options = parser.parse_args(arguments)
    for name in ("prompts", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; it must be at least 1")
    if not (options.model / "model_index.json").is_file():
        parser.error(f"--model is {options.model}, where no model_index.json lies: it is no saved miniature")
    pipe = StableDiffusionXLPipeline.from_pretrained(options.model, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    summary = summarise(
        assess(pipe, options.prompts, options.split, options.steps, options.guidance_scale, options.things)
    )
    print(as_table(summary))
    if options.json is not None:
        settings = {name: getattr(options, name) for name in ("prompts", "split", "steps", "guidance_scale")}
        options.json.write_text(json.dumps({**settings, "things": summary}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
