"""A prompt drawn as on paper."""

import numpy as np
import pytest

from attnmod.parser.syntax import parse_prompt
from attnmod.sampler.palette import entity_colour, entity_ink
from attnmod.sampler.prompt_picture import draw_prompt

FIRST, SECOND = entity_colour(0), entity_colour(1)


def rows_of(image, colour):
    """Rows with a long run of exactly this colour: underlines."""
    same = (np.asarray(image) == colour).all(axis=-1)
    return np.flatnonzero(same.sum(axis=1) > 60)


def test_entities_are_underlined_and_the_owner_below_its_part():
    image = draw_prompt(parse_prompt("a girl wearing a very large red hat"))
    owner, part = rows_of(image, FIRST), rows_of(image, SECOND)
    assert len(owner) >= 3
    assert len(part) >= 3
    assert owner.max() > part.max()


def test_parts_are_linked_to_their_owner():
    linked = np.asarray(draw_prompt(parse_prompt("a girl wearing a hat")))
    apart = np.asarray(draw_prompt(parse_prompt("a girl next to a hat")))
    above = slice(0, 50)  # over the first line's text
    assert (linked[above] == SECOND).all(axis=-1).sum() > 100
    assert (apart[above] == SECOND).all(axis=-1).sum() == 0


def test_a_negated_entity_is_struck_through():
    image = draw_prompt(parse_prompt("no bright elephants"))
    assert 0 < rows_of(image, FIRST).max() < 75
    assert rows_of(draw_prompt(parse_prompt("bright elephants")), FIRST).max() > 80


def test_long_prompts_wrap_and_stay_inside():
    short, long = draw_prompt(parse_prompt("a cat")), draw_prompt(parse_prompt("a cat in a hat, " * 40), width=600)
    assert long.size[0] == 600
    assert long.size[1] > 5 * short.size[1]
    assert (np.asarray(long)[:, -4:] == 255).all(axis=-1).mean() > 0.9


@pytest.mark.parametrize("text", ["", "\n\n", "猫 🚗 \ud800", "x" * 500, "a red hat " * 500, "\x00"])
def test_any_text_can_be_drawn(text):
    assert draw_prompt(parse_prompt(text), width=300).size[0] == 300


def test_same_prompt_same_picture():
    prompt = parse_prompt("a girl with blue eyes")
    assert draw_prompt(prompt).tobytes() == draw_prompt(prompt).tobytes()


def test_too_narrow():
    with pytest.raises(ValueError, match="width is 10"):
        draw_prompt(parse_prompt("a cat"), width=10)


def test_the_colours_are_those_of_the_entity_map():
    """maps.entity_colour is the function that tints the map and draws its legend."""
    from attnmod.sampler import maps, palette

    assert maps.entity_colour is palette.entity_colour
    image = np.asarray(draw_prompt(parse_prompt("a girl wearing a hat next to a car")))
    for entity in range(3):
        assert (image == entity_colour(entity)).all(axis=-1).sum() > 60


def test_letters_can_be_read_on_white():
    for entity in range(40):
        red, green, blue = entity_ink(entity)
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue <= 0.41 * 255
    assert len({entity_ink(entity) for entity in range(8)}) == 8
    assert entity_ink(4) == entity_colour(4)  # dark enough as it is
