"""A painter whose mistakes are known, in the place of a pipeline."""

import dataclasses

import numpy as np

from attnmod.benchmarks.laboratory.arms import Arm
from attnmod.benchmarks.laboratory.runs import Record
from attnmod.benchmarks.miniature.world import COLOURS, render
from attnmod.sampler.config import ModulationConfig

STOCK, MODULATED = Arm("stock"), Arm("modulated", ModulationConfig())
ABOUT = {"command": "-", "model_note": "a painter"}


class Painter:
    """Renders what is asked for; arms named in `mistaken` get the first thing's colour wrong in every other task."""

    def __init__(self, mistaken=("stock",)):
        self.mistaken = mistaken
        self.asked: list[tuple[str, int, int]] = []

    def paint(self, arm, tasks, seeds):
        self.asked += [(arm.name, task.number, seed) for task, seed in zip(tasks, seeds, strict=True)]
        return np.stack([self._picture(arm, task, seed) for task, seed in zip(tasks, seeds, strict=True)])

    def _picture(self, arm, task, seed):
        scene = task.scene
        if arm.name in self.mistaken and task.number // 4 % 2:
            used = {thing.colour for thing in scene.things}
            wrong = next(colour for colour in COLOURS if colour not in used)
            scene = dataclasses.replace(
                scene, things=(dataclasses.replace(scene.things[0], colour=wrong), *scene.things[1:])
            )
        return render(scene, np.random.default_rng(seed)).pixels


def records_of(folder, arms, model="model"):
    return [Record(folder, model, arm, "test", 0) for arm in arms]


class Silent:
    """A pipeline that paints nothing."""

    def set_progress_bar_config(self, **_):
        pass
