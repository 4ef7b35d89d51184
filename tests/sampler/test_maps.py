import pytest
import torch
from PIL import Image

from attnmod import Prompt, align_tokens, modulate
from attnmod.sampler.conditioning import condition_rows
from attnmod.sampler.config import ModulationConfig
from attnmod.sampler.maps import (
    REMEMBERED_CALLS,
    OwnershipRecord,
    draw_entity_map,
    draw_strip,
    evenly,
)
from attnmod.sampler.ownership import halved
from attnmod.sampler.palette import ENTITY_COLOURS, NOBODYS_COLOUR, entity_colour


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
    assert overlay.size[0] == 256, "four times as large, for the legend"
    assert overlay.size[1] > 128 + 3 * 12, "three lines of legend"
    for x, entity in ((32, 0), (160, 1), (240, -1)):
        expected = [(100 + channel) / 2 for channel in entity_colour(entity)]
        assert overlay.getpixel((x, 40)) == pytest.approx(expected, abs=1)
    legend = overlay.crop((0, 128, *overlay.size))
    found = {colour for _, colour in legend.getcolors(100_000)}
    assert {entity_colour(0), entity_colour(1), entity_colour(-1)} <= found


def test_a_legend_too_long_for_the_picture_is_cut():
    text = "a " + "very " * 40 + "long dog"
    prompt = Prompt.from_entities(text, [[text]])
    overlay = draw_entity_map(Image.new("RGB", (1024, 64)), torch.zeros(4, 4, dtype=torch.int8), prompt)
    assert overlay.width == 1024


# -- what is remembered


@pytest.fixture
def record(tokenizer):
    """Of an unconditional row and two images with the prompt; latents are 4 x 4, attention works on 4 x 4 and 2 x 2."""
    text = "a red cube and a blue sphere"
    prompt = align_tokens(Prompt.from_entities(text, [["a red cube"], ["a blue sphere"]]), tokenizer)
    return OwnershipRecord(condition_rows([None, prompt, prompt], 77, ModulationConfig(), "cpu"), levels=(0, 1))


def call(record, fine: int, coarse: int, begins: bool = False, patches: int = 16) -> None:
    """A step in which two fine layers say one owner everywhere and a coarse one says another."""
    whole = torch.ones(3, patches, dtype=torch.int8)
    owners = {0: {"up.a": whole * fine, "up.b": whole * fine}, 1: {"mid.a": whole[:, : patches // 4] * coarse}}
    side = int(patches**0.5)
    record.add(torch.full((3,), begins), owners, (side, side))


def test_layers_and_steps_are_kept_apart(record):
    call(record, fine=0, coarse=1, begins=True)
    call(record, fine=1, coarse=1)
    assert record.entity_map(step=0).eq(0).all()
    assert record.entity_map().eq(1).all(), "four of six say so"
    assert record.clarity_map() == pytest.approx(torch.full((2, 4, 4), 4 / 6))
    assert record.entity_map(layer="mid.*", step=0).tolist() == [[[1, 1], [1, 1]]] * 2
    assert record.share_of(1, 0, layer="up.a") == pytest.approx(torch.full((4, 4), 0.5))
    assert record.share_of(0, 1, step=-1) == pytest.approx(torch.ones(4, 4))


def test_nobody_counts_too(record):
    """Owned in one step of three, a patch is mostly nobody's; in two of four an entity wins the tie."""
    for owner in (-1, -1, 0):
        call(record, fine=owner, coarse=owner, begins=record.num_steps() == 0)
    assert record.entity_map().eq(-1).all()
    assert record.clarity_map() == pytest.approx(torch.full((2, 4, 4), 1 / 3))
    assert record.share_of(0, 0) == pytest.approx(torch.full((4, 4), 1 / 3))
    call(record, fine=0, coarse=0)
    assert record.entity_map().eq(0).all()


def test_a_run_begins_anew_and_is_not_endless(record):
    call(record, fine=0, coarse=0, begins=True)
    call(record, fine=1, coarse=1, begins=True)
    assert record.num_steps() == 1
    assert record.entity_map().eq(1).all()
    for _ in range(2 * REMEMBERED_CALLS):
        call(record, fine=0, coarse=0)
    assert record.num_steps() == REMEMBERED_CALLS
    assert record.bytes == REMEMBERED_CALLS * 3 * (2 * 16 + 4), "one byte for each row, patch and layer"


def test_another_size_begins_anew(record):
    call(record, fine=0, coarse=0, begins=True)
    call(record, fine=1, coarse=1, patches=64)
    assert record.entity_map().shape == (2, 8, 8)
    assert record.num_steps() == 1


def test_what_is_not_there_is_named(record):
    call(record, fine=0, coarse=0, begins=True)
    with pytest.raises(ValueError, match=r"no layer matches 'down.*mid.a, up.a, up.b"):
        record.entity_map(layer="down.*")
    with pytest.raises(IndexError, match="no step 1; the last run had 1"):
        record.entity_map(step=1)


def test_heads_that_voted_apart(record):
    """Two of three heads say 1."""
    heads = torch.tensor([1, 0, 1], dtype=torch.int8)[None, :, None].expand(3, 3, 16)
    record.add(torch.tensor([True] * 3), {0: {"up.a": heads}}, (4, 4))
    assert record.entity_map().eq(1).all()


@pytest.mark.parametrize(("total", "wanted", "expected"), [(5, 1, [4]), (1, 8, [0]), (50, 3, [0, 24, 49])])
def test_evenly(total, wanted, expected):
    assert evenly(total, wanted) == expected


def test_a_strip_shows_every_step(record):
    prompt = record.prompts[0]
    maps = [torch.full((4, 8), owner, dtype=torch.int8) for owner in (-1, 0, 1)]
    strip = draw_strip(maps, [0, 4, 9], prompt, height=64)
    found = [colour for x in (40, 180, 320) for colour in [strip.getpixel((x, 40))]]
    assert found == [entity_colour(owner) for owner in (-1, 0, 1)]


def test_maps_of_a_run(handwired):
    from tests.handwired import wish_latents

    latents = wish_latents([["red"] * 4 + ["blue"] * 4] * 8)
    with modulate(handwired, "described", maps=True) as handle:
        handwired("a red cube and a blue sphere", latents=latents, num_inference_steps=3, output_type="latent")
        for layer in (None, handle.cross_attention_layers[0], "mid_block.*"):
            for step in (None, 0, -1):
                assert handle.entity_map(layer=layer, step=step).tolist() == [[[0] * 4 + [1] * 4] * 8]
        assert handle.clarity_map().eq(1).all()
        strip = handle.map_strip(columns=2)
        with pytest.raises(IndexError, match="no step 3"):
            handle.heat_map("cube", step=3)
    assert {entity_colour(0), entity_colour(1)} <= {colour for _, colour in strip.convert("RGB").getcolors(100_000)}
