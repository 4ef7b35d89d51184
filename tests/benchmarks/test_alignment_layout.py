"""Regions that are given: whose part of the picture is whose."""

import numpy as np

from attnmod import parse_prompt
from attnmod.benchmarks.laboratory import arms as experiments
from attnmod.benchmarks.laboratory.arms import Arm
from attnmod.benchmarks.laboratory.layout import entity_ids, regions
from attnmod.benchmarks.laboratory.tasks import draw_tasks
from attnmod.benchmarks.miniature.world import SIZE
from attnmod.sampler.config import ModulationConfig


def test_regions_share_the_picture_and_stand_as_the_relation_asks():
    seen = 0
    for task in draw_tasks("validation", 40):
        prompt = parse_prompt(task.prompt)
        masks = regions(task, prompt)
        ids = entity_ids(task, prompt)
        assert sum(mask for mask in masks if mask is not None).tolist() == [[1.0] * SIZE] * SIZE
        if ids is None or task.scene.relation not in ("left of", "right of"):
            continue
        seen += 1
        first, second = (np.nonzero(masks[entity])[1].mean() for entity in ids)
        assert (first < second) == (task.scene.relation == "left of")
    assert seen > 2


def test_a_prompt_read_otherwise_gives_all_to_its_first_entity():
    task = draw_tasks("validation", 3)[2]
    masks = regions(task, parse_prompt("a cat and a dog"))
    assert masks[0].min() == 1
    assert masks[1] is None


def test_pictures_with_regions_are_recorded_apart():
    config = ModulationConfig()
    assert Arm("a", config).fingerprint != Arm("a", config, regions=True).fingerprint
    stock, modulated, *given = experiments.regions(config).arms
    assert stock.config is None
    assert modulated.config == config
    assert all(arm.regions and arm.config.hidden_weight.is_constantly(0.0) for arm in given)
    assert len({arm.fingerprint for arm in given}) == len(given)
