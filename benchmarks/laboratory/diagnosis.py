"""Why an arm fails: who owned which patch, step by step, and what the pictures then showed.

For each UNet call of a run, averaged over the prompts: the share of the patches that the strongest entity owned, the
share that nobody owned, how many entities owned (nearly) none; and at the end, for each thing that was found in the
picture, which part of its box its own entity owned, and for each that was lost, how much it had owned.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnmod.benchmarks.laboratory.arms import OFF, Arm
from attnmod.benchmarks.laboratory.layout import entity_ids
from attnmod.benchmarks.laboratory.runs import call
from attnmod.benchmarks.laboratory.tasks import Task
from attnmod.benchmarks.miniature.judge import judge, match
from attnmod.benchmarks.miniature.scorer import read_picture
from attnmod.benchmarks.miniature.world import SIZE

_ALMOST_NO_MASK = 0.9999  # of 1 the votes would not be counted
_STARVED = 0.02  # of the patches; a small object covers 0.03


@dataclass
class OwnershipReport:
    """Of one arm.

    strongest, nobody, starved: [steps] shares of the patches, of the patches, of the entities.
    own_box: [steps] mean share of a found thing's box that its entity owned; owned_lost, owned_found: share of the
    patches owned at each step by things that were lost, and by those found. whole: share of the prompts right.
    prompts: how many; unread: those whose entities the parser did not read as the scene's things, left out.
    """

    strongest: list[float]
    nobody: list[float]
    starved: list[float]
    own_box: list[float]
    owned_found: list[float]
    owned_lost: list[float]
    whole: float
    prompts: int
    unread: int


def diagnose(pipe: Any, arm: Arm, tasks: Sequence[Task], batch: int = 8) -> OwnershipReport:
    """Run the tasks with maps.

    Args:
        arm: with a mask; without one nobody owns anything.

    Raises:
        ValueError: the arm's mask never works, or there are no tasks.
    """
    if arm.config is None or not arm.config.cross_attention_layers or arm.config.hidden_weight.is_constantly(1.0):
        raise ValueError(f"diagnosis: the mask of the arm {arm.name!r} never works, so that nobody owns a patch")
    if not tasks:
        raise ValueError("diagnosis: there are no prompts of several entities among those asked for; ask for more")
    sums: dict[str, list[np.ndarray]] = {name: [] for name in ("strongest", "nobody", "starved")}
    boxes, found, lost = [], [], []
    whole, unread = [], 0
    for task, ids, picture, maps in _runs(pipe, arm, tasks, batch):
        if ids is None:
            unread += 1
            continue
        owner = maps[None]
        shares = np.stack([(owner == one).mean((1, 2)) for one in ids])  # [things, steps]
        sums["strongest"].append(shares.max(0))
        sums["nobody"].append((owner == -1).mean((1, 2)))
        sums["starved"].append((shares < _STARVED).mean(0))
        seen = read_picture(picture)
        whole.append(judge(task.scene, seen).whole)
        matched = match(task.scene.things, seen.objects)
        for index, one in enumerate(matched):
            if one is None:
                lost.append(shares[index])
            else:
                found.append(shares[index])
                boxes.append(_share_in_box(owner == ids[index], seen.objects[one].box))
    means = {name: np.mean(values, axis=0).tolist() if values else [] for name, values in sums.items()}
    return OwnershipReport(
        **means,
        own_box=np.mean(boxes, axis=0).tolist() if boxes else [],
        owned_found=np.mean(found, axis=0).tolist() if found else [],
        owned_lost=np.mean(lost, axis=0).tolist() if lost else [],
        whole=float(np.mean(whole)) if whole else 0.0,
        prompts=len(whole),
        unread=unread,
    )


def votes_won(
    pipe: Any, arm: Arm, tasks: Sequence[Task], batch: int = 8
) -> tuple[dict[str | None, list[float]], int, float]:
    """Who knows who is where, and from which step on, in pictures that the masks leave as they are.

    Args:
        arm: its steps, its guidance and how its config votes count. With ownership="layer" every layer answers for
            itself; with "average" all answer together.

    Returns:
        layer (None: all together) -> [steps] mean share of the middle of a found thing's box that its entity won
        there; the number of found things; and the share that chance would win. Of prompts with one entity, which
        wins everything, none counts.

    Raises:
        ValueError: the arm is stock.
    """
    if arm.config is None:
        raise ValueError(f"the arm {arm.name!r} is stock: there, nobody votes")
    config = dataclasses.replace(arm.config, **{**OFF, "hidden_weight": _ALMOST_NO_MASK, "owned_above": 0.0})
    won: dict[str | None, list[np.ndarray]] = {}
    chances: list[float] = []
    tasks = [task for task in tasks if task.things > 1]
    for task, ids, picture, maps in _runs(pipe, dataclasses.replace(arm, config=config), tasks, batch, by_layer=True):
        if ids is None:
            continue
        if config.ownership == "average":  # one map for all layers, coarser for some
            maps = {None: max(maps.values(), key=lambda owner: owner.shape[-1])}
        objects = read_picture(picture).objects
        for one, entity in zip(match(task.scene.things, objects), ids, strict=True):
            if one is None:
                continue
            chances.append(1 / task.things)
            for layer, owner in maps.items():
                won.setdefault(layer, []).append(_share_in_box(owner == entity, _middle(objects[one].box)))
    means = {layer: np.mean(shares, axis=0).tolist() for layer, shares in won.items()}
    return means, len(chances), float(np.mean(chances)) if chances else 0.0


def _runs(
    pipe: Any, arm: Arm, tasks: Sequence[Task], batch: int, by_layer: bool = False
) -> Iterator[tuple[Task, list[int] | None, np.ndarray, dict[Any, np.ndarray]]]:
    """Each task with the entities of its things (None: read otherwise), its picture, and who owned which patch.

    The last is layer -> int8 [steps, h, w]; not by layer, None -> of all layers together.
    """
    from attnmod.sampler.patch import modulate

    for first in range(0, len(tasks), batch):
        part = tasks[first : first + batch]
        with modulate(pipe, arm.config, maps=True) as handle:
            pictures = call(pipe, arm, part, [task.noise_seed(0) for task in part])
            maps = {
                layer: np.stack([handle.entity_map(layer=layer, step=step).numpy() for step in range(arm.steps)])
                for layer in (handle.cross_attention_layers if by_layer else (None,))
            }
            prompts = handle.prompts
        for place, task in enumerate(part):
            own = {layer: owner[:, place] for layer, owner in maps.items()}
            yield task, entity_ids(task, prompts[place]), pictures[place], own


def _middle(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """Three fifths of the box each way: what surrounds an object is no matter of its entity."""
    left, top, right, bottom = box
    across, down = (right - left) / 5, (bottom - top) / 5
    return left + across, top + down, right - across, bottom - down


def _share_in_box(owned: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """owned: bool [steps, h, w]; the share of the patches whose middles lie in the box (in pixels)."""
    height, width = owned.shape[1:]
    ys = (np.arange(height) + 0.5) * SIZE / height
    xs = (np.arange(width) + 0.5) * SIZE / width
    inside = ((ys >= box[1]) & (ys < box[3]))[:, None] & ((xs >= box[0]) & (xs < box[2]))[None]
    return owned[:, inside].mean(1) if inside.any() else np.zeros(owned.shape[0])
