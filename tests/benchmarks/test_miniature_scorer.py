"""The scorer of the little world on pictures whose truth is known, and the judge on scenes with known mistakes."""

import dataclasses

import numpy as np
import pytest

from attnmod.benchmarks.miniature import scorer
from attnmod.benchmarks.miniature.judge import judge, match
from attnmod.benchmarks.miniature.scorer import BARE, SeenObject, SeenPicture, compare, degrade, read_picture, rendered
from attnmod.benchmarks.miniature.world import COLOURS, GROUNDS, LIGHTS, SHAPES, TEXTURES, Scene, Thing, render


def picture_of(scene: Scene, seed: int = 0) -> np.ndarray:
    return render(scene, np.random.default_rng(seed)).pixels


# -- reading


@pytest.mark.parametrize(
    ("blur", "noise", "least"), [(0.0, 0.0, 0.99), (0.7, 0.05, 0.97)], ids=["rendered", "degraded"]
)
def test_reads_at_least_as_well_as_promised(blur, noise, least):
    counts = {}
    rng = np.random.default_rng(1)
    for things in range(1, 5):
        for scene, picture in rendered(25, things, seed=5):
            pixels = degrade(picture.pixels, blur, noise, rng) if blur else picture.pixels
            for (category, right), count in compare(read_picture(pixels), scene, picture).items():
                counts.setdefault(category, {True: 0, False: 0})[right] += count
    assert set(counts) == {*scorer.OBJECT_CATEGORIES, *scorer.PICTURE_CATEGORIES}
    for category, count in counts.items():
        assert count[True] >= least * (count[True] + count[False]), (category, count)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("texture", TEXTURES)
def test_every_shape_in_every_texture(shape, texture):
    for number, colour in enumerate(COLOURS):
        size = ("small", "medium", "large")[number % 3]
        (seen,) = read_picture(picture_of(Scene((Thing(shape, colour, texture, size),)), number)).objects
        assert (seen.shape, seen.colour, seen.texture, seen.size) == (shape, colour, texture, size)


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("ground", [None, *GROUNDS])
def test_light_and_ground(light, ground):
    seen = read_picture(picture_of(Scene((Thing("star", "purple"),), light=light, ground=ground)))
    assert (seen.light, seen.ground) == (light, ground or BARE)


def test_what_is_no_picture_of_the_world_is_not_named():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert all(one.shape is None for one in read_picture(noise).objects)
    black = read_picture(np.zeros((64, 64, 3), np.uint8))
    assert (black.light, black.ground) == (None, None)


def test_an_empty_picture_has_no_objects():
    image = np.full((64, 64, 3), 210, np.uint8)
    assert read_picture(image).objects == ()


def test_a_shape_that_is_none_of_the_six_is_not_named():
    picture = picture_of(Scene((Thing("circle", "red", size="large"),)))
    picture[:] = (206, 214, 222)
    picture[10:50, 10:16] = COLOURS["red"]  # an L
    picture[44:50, 10:50] = COLOURS["red"]
    (seen,) = read_picture(picture).objects
    assert seen.colour == "red"
    assert seen.shape is None
    assert seen.size is None


def test_what_another_object_cuts_in_two_is_one():
    picture = np.full((64, 64, 3), (206, 214, 222), np.uint8)
    y, x = np.mgrid[:64, :64] + 0.5
    picture[np.hypot(x - 32, y - 32) < 15.5] = COLOURS["red"]
    picture[12:52, 38:42] = COLOURS["blue"]
    red = [one for one in read_picture(picture).objects if one.colour == "red"]
    assert [(one.shape, one.size) for one in red] == [("circle", "large")]


def test_a_texture_that_is_none_of_the_four_is_not_named():
    picture = picture_of(Scene((Thing("circle", "red"),)))
    picture[:] = (206, 214, 222)
    shade = np.linspace(0.42, 1, 30)[None, :, None]  # darker to the left
    picture[20:50, 20:50] = (shade * COLOURS["red"]).astype(np.uint8)
    (seen,) = read_picture(picture).objects
    assert (seen.shape, seen.colour, seen.texture) == ("square", "red", None)


def test_another_size_of_picture_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        read_picture(np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        read_picture(np.zeros((64, 64, 3), np.float32))


def test_compare_counts_what_is_missing():
    scene, picture = next(rendered(1, 2, seed=3))
    seen = read_picture(picture.pixels)
    counts = compare(dataclasses.replace(seen, objects=seen.objects[1:]), scene, picture)
    assert counts["number", False] == 1
    assert counts["shape", False] == 1
    assert counts["shape", True] == len(picture.objects) - 1


# -- judging


def seen_as(thing: Thing, centre=(32.0, 32.0), **changes) -> SeenObject:
    """A seen object that is what the thing asks for, but for the changes."""
    values = dict(shape=thing.shape, colour=thing.colour, texture=thing.drawn_texture, size=thing.drawn_size)
    box = (0, 0, 1, 1)
    return SeenObject(**{**values, **changes}, centre=centre, radius=11.0, box=box, area=300, fit=0.9)


RED_CIRCLE, BLUE_SQUARE = Thing("circle", "red"), Thing("square", "blue")
TWO = Scene((RED_CIRCLE, BLUE_SQUARE))


def shown(*objects: SeenObject, light: str | None = "day", ground: str | None = BARE) -> SeenPicture:
    return SeenPicture(objects, light, ground)


def test_what_was_asked_for_is_right():
    verdict = judge(TWO, shown(seen_as(BLUE_SQUARE), seen_as(RED_CIRCLE)))
    assert verdict.whole
    assert verdict.categories == {
        "colour": True,
        "content": True,
        "number": None,
        "texture": None,
        "time": None,
        "location": None,
        "size": None,
    }
    assert (verdict.lost, verdict.extra, verdict.fused, verdict.leaked) == (0, 0, 0, 0)


def test_swapped_colours_leak_twice():
    verdict = judge(TWO, shown(seen_as(RED_CIRCLE, colour="blue"), seen_as(BLUE_SQUARE, colour="red")))
    assert verdict.categories["colour"] is False
    assert verdict.categories["content"] is True
    assert verdict.leaks == ("0 colour blue", "1 colour red")
    assert not verdict.whole


def test_a_foreign_colour_that_nobody_asked_for_is_wrong_and_leaks_nothing():
    verdict = judge(TWO, shown(seen_as(RED_CIRCLE, colour="green"), seen_as(BLUE_SQUARE)))
    assert verdict.categories["colour"] is False
    assert verdict.leaked == 0


def test_a_texture_leaks_onto_a_thing_that_leaves_it_open():
    scene = Scene((dataclasses.replace(RED_CIRCLE, texture="striped"), BLUE_SQUARE))
    verdict = judge(scene, shown(seen_as(scene.things[0]), seen_as(BLUE_SQUARE, texture="striped")))
    assert verdict.leaks == ("1 texture striped",)
    assert verdict.categories["texture"] is True  # of the one that was asked for
    plain = judge(scene, shown(seen_as(scene.things[0], texture="solid"), seen_as(BLUE_SQUARE)))
    assert plain.leaked == 0  # solid was said of nothing
    assert plain.categories["texture"] is False


def test_lost_and_fused():
    lost = judge(TWO, shown(seen_as(RED_CIRCLE)))
    assert (lost.lost, lost.fused, lost.extra) == (1, 0, 0)
    assert lost.categories["content"] is False
    assert lost.categories["colour"] is False
    fused = judge(TWO, shown(seen_as(RED_CIRCLE, shape=None)))
    assert (fused.lost, fused.fused) == (1, 1)


def test_too_many_is_not_whole():
    verdict = judge(TWO, shown(seen_as(RED_CIRCLE), seen_as(BLUE_SQUARE), seen_as(BLUE_SQUARE)))
    assert verdict.extra == 1
    assert not verdict.whole
    assert False not in verdict.categories.values()


def test_layout_is_what_is_there_and_where():
    asked = seen_as(RED_CIRCLE), seen_as(BLUE_SQUARE)
    swapped = seen_as(RED_CIRCLE, colour="blue"), seen_as(BLUE_SQUARE, colour="red")
    assert judge(TWO, shown(*asked)).layout
    assert judge(TWO, shown(*swapped)).layout, "only attributes are wrong"
    assert not judge(TWO, shown(asked[0])).layout
    assert not judge(TWO, shown(*asked, asked[1])).layout
    beside = dataclasses.replace(TWO, relation="left of")
    placed = [dataclasses.replace(one, centre=(x, 32.0)) for one, x in zip(asked, (48.0, 16.0), strict=True)]
    assert not judge(beside, shown(*placed)).layout
    assert judge(dataclasses.replace(TWO, relation="right of"), shown(*placed)).layout


def test_what_could_not_be_told_is_wrong():
    verdict = judge(TWO, shown(seen_as(RED_CIRCLE, colour=None), seen_as(BLUE_SQUARE)))
    assert verdict.categories["colour"] is False
    night = judge(dataclasses.replace(TWO, light="night"), shown(seen_as(RED_CIRCLE), seen_as(BLUE_SQUARE), light=None))
    assert night.categories["time"] is False


@pytest.mark.parametrize(("drawn", "right"), [(1, False), (2, True), (3, False)])
def test_number(drawn, right):
    scene = Scene((dataclasses.replace(RED_CIRCLE, count=2), BLUE_SQUARE))
    verdict = judge(scene, shown(seen_as(BLUE_SQUARE), *[seen_as(RED_CIRCLE)] * drawn))
    assert verdict.categories["number"] is right
    assert verdict.whole is right


@pytest.mark.parametrize(
    ("relation", "first", "right"),
    [
        ("left of", (20, 32), True),
        ("left of", (30, 32), False),  # hardly
        ("right of", (20, 32), False),
        ("right of", (50, 32), True),
        ("above", (32, 20), True),
        ("below", (32, 20), False),
    ],
)
def test_relation(relation, first, right):
    scene = dataclasses.replace(TWO, relation=relation)
    verdict = judge(scene, shown(seen_as(RED_CIRCLE, centre=first), seen_as(BLUE_SQUARE)))
    assert verdict.categories["location"] is right


def test_ground():
    scene = dataclasses.replace(TWO, ground="snow")
    objects = seen_as(RED_CIRCLE), seen_as(BLUE_SQUARE)
    assert judge(scene, shown(*objects, ground="snow")).categories["location"] is True
    assert judge(scene, shown(*objects)).categories["location"] is False


def test_the_matching_is_the_best_of_all_and_not_the_first():
    """Taken in turn, the red circle would take the red square, and the blue circle would be lost."""
    asked = (Thing("circle", "red"), Thing("square", "red"))
    objects = (seen_as(asked[1], texture="striped"), seen_as(asked[0], colour="blue"))
    assert match(asked, objects) == [1, 0]


def test_one_seen_object_is_matched_once():
    assert match((RED_CIRCLE, RED_CIRCLE), (seen_as(RED_CIRCLE),)).count(0) == 1


def test_objects_that_share_nothing_are_not_matched():
    assert match((RED_CIRCLE,), (seen_as(BLUE_SQUARE),)) == [None]


def test_rendered_scenes_are_right():
    """Renderer, scorer and judge together: what is drawn as asked is judged to be so."""
    verdicts = [
        judge(scene, read_picture(picture.pixels)) for n in range(1, 5) for scene, picture in rendered(10, n, seed=9)
    ]
    assert sum(verdict.whole for verdict in verdicts) >= 39
