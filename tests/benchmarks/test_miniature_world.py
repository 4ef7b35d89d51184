"""The little world: scenes, pictures and prompts say the same, and what is kept from training is kept."""

from itertools import product

import numpy as np
import pytest

from attnmod.benchmarks.miniature import world
from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.world import (
    COLOURS,
    GROUND_COLOURS,
    LIGHTS,
    SHAPES,
    TEXTURES,
    Scene,
    Thing,
    combination_split,
    draw_scene,
    relation_holds,
    render,
    scene_split,
)
from attnmod.parser.syntax import parse_prompts

PLURAL_ENDING = {"crosses": "cross"}


def scenes(count, split="train", things=None, seed=0):
    return [draw_scene(np.random.default_rng((seed, index)), split, things) for index in range(count)]


# -- splits


def test_one_combination_in_eight_is_for_the_test_and_one_for_validation():
    splits = [combination_split(*combination) for combination in product(COLOURS, TEXTURES, SHAPES)]
    assert {name: splits.count(name) for name in world.SPLITS} == {"train": 144, "validation": 24, "test": 24}


def test_every_pair_of_attributes_is_trained_on():
    trained = {c for c in product(COLOURS, TEXTURES, SHAPES) if combination_split(*c) == "train"}
    assert {(colour, texture) for colour, texture, _ in trained} == set(product(COLOURS, TEXTURES))
    assert {(colour, shape) for colour, _, shape in trained} == set(product(COLOURS, SHAPES))
    assert {(texture, shape) for _, texture, shape in trained} == set(product(TEXTURES, SHAPES))


@pytest.mark.parametrize("split", world.SPLITS)
def test_a_drawn_scene_belongs_to_its_split(split):
    for scene in scenes(150, split):
        assert scene_split(scene) == split
        assert sum(thing.count for thing in scene.things) <= world.MAX_OBJECTS
        assert (
            len({thing.colour for thing in scene.things}) == len({t.shape for t in scene.things}) == len(scene.things)
        )


def test_a_scene_of_several_splits_belongs_to_none():
    scene = Scene((Thing("circle", "red"), Thing("circle", "green")))
    assert [combination_split(thing.colour, "solid", thing.shape) for thing in scene.things] == ["train", "test"]
    assert scene_split(scene) is None


def test_what_can_be_said_is_said():
    drawn = scenes(800)
    assert {scene.light for scene in drawn} == {None, *LIGHTS}
    assert {scene.ground for scene in drawn} == {None, *world.GROUNDS}
    assert {scene.relation for scene in drawn} == {None, *world.RELATIONS}
    things = [thing for scene in drawn for thing in scene.things]
    assert {thing.count for thing in things} == {1, 2, 3, 4}
    assert {thing.size for thing in things} == {None, "small", "large"}
    assert {thing.texture for thing in things} == {None, *TEXTURES}
    assert {len(scene.things) for scene in drawn} == {1, 2, 3, 4}


def test_bad_arguments():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="split is 'dev'"):
        draw_scene(rng, "dev")
    with pytest.raises(ValueError, match="things is 5"):
        draw_scene(rng, things=5)


def test_a_scene_is_json():
    for scene in scenes(20):
        assert Scene.from_dict(scene.to_dict()) == scene


# -- pictures


def test_the_seed_decides_everything():
    def picture(seed):
        rng = np.random.default_rng(seed)
        scene = draw_scene(rng)
        return scene, write_prompt(scene, rng), render(scene, rng).pixels

    first, again, other = picture(3), picture(3), picture(4)
    assert first[:2] == again[:2]
    assert np.array_equal(first[2], again[2])
    assert not np.array_equal(first[2], other[2])


def test_every_object_is_there_and_visible():
    for index, scene in enumerate(scenes(120, things=None, seed=1)):
        picture = render(scene, np.random.default_rng(index))
        assert picture.pixels.shape == (64, 64, 3)
        assert picture.pixels.dtype == np.uint8
        expected = sorted(thing for thing, kind in enumerate(scene.things) for _ in range(kind.count))
        assert sorted(placed.thing for placed in picture.objects) == expected
        assert np.sum([placed.mask for placed in picture.objects], axis=0).max() <= 1, "masks are of what is visible"
        for placed in picture.objects:
            left, top, right, bottom = placed.box
            assert placed.mask[top:bottom, left:right].sum() == placed.mask.sum()
            kind = scene.things[placed.thing]
            whole = world._coverage(kind.shape, placed.centre, placed.radius)
            assert placed.mask.sum() > 0.9 * (whole >= 0.5).sum()
            assert not placed.mask[[0, -1]].any()
            assert abs(placed.radius / world.RADII[kind.drawn_size] - 1) <= 0.05


def test_objects_of_one_kind_lie_apart():
    for index in range(40):
        scene = Scene((Thing("circle", "red", count=4),))
        masks = [placed.mask for placed in render(scene, np.random.default_rng(index)).objects]
        for i, mask in enumerate(masks):
            beside = np.zeros_like(mask)
            beside[1:] |= mask[:-1]
            beside[:, 1:] |= mask[:, :-1]
            assert not any((beside & other).any() for other in masks[i + 1 :])


@pytest.mark.parametrize("relation", world.RELATIONS)
def test_a_relation_holds_in_the_picture(relation):
    scene = Scene((Thing("circle", "red", count=2), Thing("square", "blue")), relation=relation)
    for index in range(20):
        objects = render(scene, np.random.default_rng(index)).objects
        centre = {0: [], 1: []}
        for placed in objects:
            rows, columns = np.nonzero(placed.mask)
            centre[placed.thing].append((columns.mean(), rows.mean()))
        axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[relation]
        assert all(sign * (b[axis] - a[axis]) > 5 for a in centre[0] for b in centre[1])


def test_relations_by_example():
    assert relation_holds("left of", (10, 30), (30, 20))
    assert not relation_holds("right of", (10, 30), (30, 20))
    assert relation_holds("above", (10, 10), (30, 30))
    assert not relation_holds("below", (10, 25), (30, 20))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_the_pixels_have_the_colour_and_the_texture(colour, texture):
    picture = render(Scene((Thing("square", colour, texture, "large"),)), np.random.default_rng(0))
    inside = picture.pixels[picture.objects[0].mask].astype(float)
    shares = {"solid": 0.0, "striped": 0.5, "dotted": 0.32, "checked": 0.5}
    luminance = inside.sum(1) / sum(COLOURS[colour])
    assert np.mean(luminance < 0.72) == pytest.approx(shares[texture], abs=0.09)
    plain = np.median(inside[luminance > 0.9], axis=0)
    assert np.abs(plain - COLOURS[colour]).max() < 8


def test_light_and_ground_tell_themselves_apart():
    flat = {("", light): colour for light, colour in world.BACKGROUNDS.items()} | GROUND_COLOURS
    names = list(flat)
    for i, first in enumerate(names):
        for second in names[:i]:
            assert np.linalg.norm(np.subtract(flat[first], flat[second])) > 12, (first, second)
    for light in LIGHTS:
        picture = render(
            Scene((Thing("circle", "red", None, "small"),), light=light, ground="snow"), np.random.default_rng(1)
        )
        assert np.abs(picture.pixels[:4].mean((0, 1)) - world.BACKGROUNDS[light]).max() < 25
        assert np.abs(np.median(picture.pixels[-1], axis=0) - GROUND_COLOURS["snow", light]).max() < 6


# -- prompts


def test_a_prompt_says_what_is_in_the_scene():
    for index, scene in enumerate(scenes(200, seed=2)):
        words = write_prompt(scene, np.random.default_rng(index), loose=index % 2 == 0).replace(",", "").split()
        for thing in scene.things:
            said = [thing.colour, *filter(None, (thing.texture, thing.size))]
            assert all(word in words for word in said)
            assert {thing.shape, f"{thing.shape}s", f"{thing.shape}es"} & set(words)
        assert scene.relation is None or scene.relation in " ".join(words)
        assert sum(word in COLOURS for word in words) == len(scene.things)
        assert sum(word in TEXTURES for word in words) == sum(thing.texture is not None for thing in scene.things)
        assert (scene.ground in words) if scene.ground else not set(words) & set(world.GROUNDS)
        assert ("night" in words) == (scene.light == "night")
        assert ("dusk" in words) == (scene.light == "dusk")


def test_there_are_many_ways_to_say_it():
    scene = Scene((Thing("circle", "red", "striped"), Thing("square", "orange")), light="night", ground="snow")
    written = {write_prompt(scene, np.random.default_rng(index)) for index in range(60)}
    assert len(written) > 10
    assert all("an orange" in text or "that is orange" in text for text in written)


def test_the_project_s_parser_reads_them_as_they_are_meant():
    wanted = scenes(80, things=None, seed=4)
    texts = [write_prompt(scene, np.random.default_rng(index)) for index, scene in enumerate(wanted)]
    right = 0
    for scene, prompt in zip(wanted, parse_prompts(texts), strict=True):
        things = [
            (thing.shape, thing.count, {word for word in (thing.size, thing.texture, thing.colour) if word})
            for thing in scene.things
        ]
        numbers = {"a", "an", "two", "three", "four"}
        read = [
            (
                PLURAL_ENDING.get(e.head, e.head if e.head == "cross" else e.head.rstrip("s")),
                e.count,
                set(e.attributes) - numbers,
            )
            for e in prompt.entities
        ]
        right += things == read
    assert right >= 0.9 * len(texts), f"{right} of {len(texts)}"
