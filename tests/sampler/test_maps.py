import pytest
import torch
from PIL import Image

from attnmod import Prompt
from attnmod.sampler.maps import ENTITY_COLOURS, NOBODYS_COLOUR, draw_entity_map, entity_colour, halved


@pytest.mark.parametrize(
    ("latents", "times", "expected"),
    [((128, 128), 1, (64, 64)), ((104, 152), 2, (26, 38)), ((33, 20), 1, (17, 10)), ((33, 20), 2, (9, 5))],
)
def test_halved(latents, times, expected):
    assert halved(latents, times) == expected


def test_colours_tell_many_entities_apart():
    colours = [entity_colour(entity) for entity in range(-1, 24)]
    assert len(set(colours)) == 25
    assert colours[0] == NOBODYS_COLOUR
    assert colours[1 : 1 + len(ENTITY_COLOURS)] == list(ENTITY_COLOURS)


def test_the_overlay_tints_each_patch_and_names_each_entity():
    prompt = Prompt.from_entities("a red cube and a blue sphere", [["a red cube"], ["a blue sphere"]])
    image = Image.new("RGB", (64, 32), (100, 100, 100))
    owners = torch.tensor([[0, 0, 1, -1], [0, 0, 1, -1]], dtype=torch.int8)
    overlay = draw_entity_map(image, owners, prompt, opacity=0.5)
    assert overlay.size[0] == 64
    assert overlay.size[1] > 32 + 3 * 12, "three lines of legend"
    for x, entity in ((8, 0), (40, 1), (60, -1)):
        expected = [(100 + channel) / 2 for channel in entity_colour(entity)]
        assert overlay.getpixel((x, 10)) == pytest.approx(expected, abs=1)
    legend = overlay.crop((0, 32, *overlay.size))
    found = {colour for _, colour in legend.getcolors(100_000)}
    assert {entity_colour(0), entity_colour(1), entity_colour(-1)} <= found


def test_a_legend_too_long_for_the_picture_is_cut():
    text = "a " + "very " * 40 + "long dog"
    prompt = Prompt.from_entities(text, [[text]])
    overlay = draw_entity_map(Image.new("RGB", (64, 64)), torch.zeros(4, 4, dtype=torch.int8), prompt)
    assert overlay.width == 64
