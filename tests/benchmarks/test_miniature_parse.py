"""The prompts of the little world, whose meaning is known: the parser reads every one of them."""

import numpy as np
import pytest

from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.world import draw_scene
from attnmod.parser.describe import outline
from attnmod.parser.syntax import parse_prompts

LIGHTS = {"day": {"day", "daylight"}, "dusk": {"dusk"}, "night": {"night"}}


def said_things(scene):
    """(noun, count, attributes) of each thing, as a prompt says them."""
    for thing in scene.things:
        noun = thing.shape + ("es" if thing.shape == "cross" else "s") * (thing.count > 1)
        yield noun, thing.count, {word for word in (thing.size, thing.texture, thing.colour) if word}


def is_read_right(scene, prompt):
    # "on snow" is a thing to the parser, "in the snow" the scene: both are sound readings of a ground
    grounds = [entity for entity in prompt.entities if entity.head == scene.ground]
    things = [entity for entity in prompt.entities if entity.head != scene.ground]
    found = [(entity.head, entity.count, set(entity.attributes)) for entity in things]
    kinds = {kind: " ".join(one.text for one in prompt.globals if one.kind == kind) for kind in ("scene", "relation")}
    scenery = set(kinds["scene"].split())
    return (
        found == list(said_things(scene))
        and all(entity.parent is None and not entity.negated for entity in prompt.entities)
        and (scene.light is None or bool(LIGHTS[scene.light] & scenery))
        and (scene.ground is None or scene.ground in scenery or len(grounds) == 1)
        and (scene.relation is None or scene.relation in kinds["relation"])
        and {phrase.kind for phrase in prompt.globals} <= {"scene", "relation", "style"}
        and not prompt.warnings
    )


@pytest.mark.parametrize("loose", [False, True])
def test_every_prompt_is_read_as_it_is_meant(loose):
    rng = np.random.default_rng(5)
    scenes = [draw_scene(rng, things=number % 4 + 1) for number in range(300)]
    prompts = parse_prompts([write_prompt(scene, rng, loose=loose) for scene in scenes])
    wrong = [
        (prompt.text, outline(prompt))
        for scene, prompt in zip(scenes, prompts, strict=True)
        if not is_read_right(scene, prompt)
    ]
    assert wrong == []


def test_the_check_can_fail():
    rng = np.random.default_rng(5)
    scenes = [draw_scene(rng, things=2) for _ in range(20)]
    prompts = parse_prompts([write_prompt(scene, rng) for scene in scenes])
    others = [*scenes[1:], scenes[0]]
    assert not any(is_read_right(scene, prompt) for scene, prompt in zip(others, prompts, strict=True))
