"""Regions for a task's entities, as a person could draw them: which part of the picture is whose.

What masks can do at their best is seen with them: no vote can be wrong.
"""

import numpy as np

from attnmod.benchmarks.laboratory.tasks import Task
from attnmod.benchmarks.miniature.world import SIZE, render
from attnmod.parser.prompt import Prompt


def entity_ids(task: Task, prompt: Prompt) -> list[int] | None:
    """The entity of each of the scene's things, or None where one was read as something else."""
    ids = []
    for thing in task.scene.things:
        names = (thing.shape, f"{thing.shape}s", f"{thing.shape}es")
        matching = [entity.id for entity in prompt.entities if entity.head in names]
        if len(matching) != 1:
            return None
        ids.append(matching[0])
    return ids


def regions(task: Task, prompt: Prompt) -> list[np.ndarray | None]:
    """A region for each entity of the prompt, float32 [64, 64] of zeros and ones; together they fill the picture.

    The scene is placed at random, as its relation asks; a pixel belongs to the thing that it is nearest to, in radii of
    its objects. Where the prompt was read otherwise than the scene, the first entity has everything.
    """
    masks: list[np.ndarray | None] = [None] * len(prompt.entities)
    ids = entity_ids(task, prompt)
    if ids is None:
        masks[0] = np.ones((SIZE, SIZE), np.float32)
        return masks
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    distance = np.full((len(ids), SIZE, SIZE), np.inf)
    for one in render(task.scene, np.random.default_rng(task.number)).objects:
        away = np.hypot(x - one.centre[0], y - one.centre[1]) / one.radius
        distance[one.thing] = np.minimum(distance[one.thing], away)
    nearest = distance.argmin(0)
    for thing, entity in enumerate(ids):
        masks[entity] = (nearest == thing).astype(np.float32)
    return masks
