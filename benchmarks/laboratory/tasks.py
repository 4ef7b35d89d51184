"""What is asked of a pipeline: prompts with their truth, from the combinations that no training has seen."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.world import MAX_OBJECTS, SPLITS, Scene, draw_scene, render


@dataclass(frozen=True)
class Task:
    """One prompt.

    Attributes:
        number: its place in the list; the noise of its pictures follows from it.
        prompt: the text.
        scene: what it asks for.
    """

    number: int
    prompt: str
    scene: Scene

    @property
    def things(self) -> int:
        """Entities asked for, 1 to 4."""
        return len(self.scene.things)

    def noise_seed(self, repeat: int) -> int:
        """Of the picture's noise; the same for every arm."""
        return 1_000 * self.number + repeat


def draw_tasks(split: str, count: int, seed: int = 0) -> list[Task]:
    """Different prompts of a split, as many of 1, 2, 3 and 4 entities, in turn: any first part is balanced, too.

    A longer list begins with the shorter one. Every prompt can be drawn as a picture: what has no place on 64 x 64
    pixels is asked of nobody.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed are {', '.join(SPLITS)}")
    rngs = [np.random.default_rng([seed, SPLITS.index(split), things]) for things in range(1, MAX_OBJECTS + 1)]
    tasks: list[Task] = []
    prompts: set[str] = set()
    while len(tasks) < count:
        things = len(tasks) % MAX_OBJECTS + 1
        rng = rngs[things - 1]
        scene = draw_scene(rng, split, things)
        prompt = write_prompt(scene, rng)
        if prompt in prompts or not _can_be_drawn(scene):
            continue
        prompts.add(prompt)
        tasks.append(Task(len(tasks), prompt, scene))
    return tasks


def _can_be_drawn(scene: Scene) -> bool:
    try:
        render(scene, np.random.default_rng(0))
    except ValueError:
        return False
    return True


def fingerprint(values: object) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
