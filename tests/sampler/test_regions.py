"""Entities and regions given by hand, on the pipeline whose picture is its owner map."""

import dataclasses

import pytest
import torch
from PIL import Image

from attnmod import Curve, ModulationConfig, Prompt, modulate
from attnmod.sampler.regions import owners_at, read_masks
from tests.handwired import colour_latents, stock_mixture
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close, run

LEFT = torch.tensor([[1.0] * 4 + [0.0] * 4] * 8)
TOP = LEFT.T


def test_regions_replace_the_vote(handwired):
    """The patches want red on the left and blue on the right; the masks say red above and blue below."""
    with modulate(handwired, MASK, maps=True) as handle:
        handle.set_prompt(PROMPT, masks=[TOP, 1 - TOP])
        picture = run(handwired, PROMPT, steps=2, guidance=2.0)[0]
        assert handle.entity_map()[0].tolist() == [[0] * 8] * 4 + [[1] * 8] * 4
        assert close(picture, colour_latents([["red"] * 8] * 4 + [["blue"] * 8] * 4, 2.0))
        handle.set_prompt(PROMPT)  # the vote again
        assert close(run(handwired, PROMPT)[0], colour_latents(HALVES))


def test_uncovered_patches_are_nobodys(handwired):
    with modulate(handwired, MASK, maps=True) as handle:
        handle.set_prompt(PROMPT, masks=[LEFT, None])
        picture = run(handwired, PROMPT)[0]
        assert handle.entity_map()[0, 0].tolist() == [0] * 4 + [-1] * 4
    assert close(picture[:, 3, 12], stock_mixture("blue", ["red", "blue"]))


def test_masks_of_any_size_and_pictures_of_any_size(handwired):
    masks = [Image.new("L", (100, 60), 255), None]
    masks[0].paste(0, (50, 0, 100, 60))
    masks[1] = torch.ones(10, 10)  # below the first one: an overlap goes to the higher id
    with modulate(handwired, MASK, maps=True) as handle:
        handle.set_prompt(PROMPT, masks=list(reversed(masks)))
        for size in (8, 12):
            run(handwired, PROMPT, [["red"] * size] * 4)
            assert handle.entity_map()[0, 0].tolist() == [1] * (size // 2) + [0] * (size // 2)


def test_entities_by_hand(handwired):
    text = "red blue"
    with modulate(handwired, MASK, maps=True) as handle:
        handle.set_prompt(text, entities=[["blue"], [(0, 3)]])
        assert close(run(handwired, text)[0], colour_latents(HALVES))
        assert handle.entity_map()[0, 0].tolist() == [1] * 4 + [0] * 4


def test_in_a_batch_all_prompts_have_masks_or_none(handwired):
    other = "a blue sphere and a green cone"
    with modulate(handwired, MASK) as handle:
        handle.set_prompt(PROMPT, masks=[TOP, 1 - TOP])
        with pytest.raises(ValueError, match="some have masks"):
            run(handwired, [PROMPT, other], batch=2)
        handle.set_prompt(other, masks=[LEFT, 1 - LEFT])
        first, second = run(handwired, [PROMPT, other], batch=2)
    assert close(first, colour_latents([["red"] * 8] * 4 + [["blue"] * 8] * 4))
    assert close(second, colour_latents([["blue"] * 4 + ["green"] * 4] * 8))


def test_halves_of_a_patch_decide():
    masks = torch.zeros(2, 4, 4)
    masks[0, :, :3] = 1  # the right half of the right patches is open
    assert owners_at(masks, [0, 1], (2, 2)).tolist() == [0, 0, 0, 0]
    masks[0, :, 2] = 0.9
    assert owners_at(masks, [0, 1], (2, 2)).tolist() == [0, -1, 0, -1]
    masks[1, 0, 0] = masks[1, 0, 1] = 1
    assert owners_at(masks, [0, 1], (2, 2)).tolist() == [1, -1, 0, -1]
    assert owners_at(masks, [1], (2, 2)).tolist() == [0, -1, -1, -1], "slot 0 is entity 1"


@pytest.mark.parametrize(
    ("masks", "named"),
    [
        ([LEFT], r"1 masks for 2 entities \('a red cube', 'a blue sphere'\)"),
        ([None, None], "every mask is None"),
        ([LEFT, torch.zeros(3)], r"mask 1 has shape \(3,\)"),
        ([LEFT * 2, LEFT], "mask 0 has values from 0.0 to 2.0"),
        ([LEFT, LEFT * torch.nan], "mask 1 has values"),
    ],
)
def test_bad_masks_are_named(masks, named):
    prompt = Prompt.from_entities(PROMPT, [["a red cube"], ["a blue sphere"]])
    with pytest.raises(ValueError, match=named):
        read_masks(masks, prompt)


def test_a_mask_that_grows_is_whole_where_regions_are_given(handwired):
    """Votes are unsure in the first steps, regions given by hand are not."""
    late = dataclasses.replace(MASK, hidden_weight=Curve("linear", 1.0, 0.0, begin=1.0, stop=1.0))
    with modulate(handwired, late) as handle:
        voted = run(handwired, PROMPT)[0]
        assert close(voted[:, 3, 3], stock_mixture("red", ["red", "blue"]))
        handle.set_prompt(PROMPT, masks=[LEFT, 1 - LEFT])
        assert close(run(handwired, PROMPT)[0], colour_latents(HALVES))
    fading = dataclasses.replace(MASK, hidden_weight=Curve("linear", 0.0, 1.0, begin=0.0, stop=0.0))
    with modulate(handwired, fading) as handle:
        handle.set_prompt(PROMPT, masks=[LEFT, 1 - LEFT])
        assert close(run(handwired, PROMPT)[0][:, 3, 3], stock_mixture("red", ["red", "blue"]))


def test_attention_is_not_equalized_where_regions_are_given(handwired):
    """Nothing is observed that could be made equal."""
    text, wishes = "red and blue and blue", [["blue"] * 8] * 8  # blue is attended to more than red
    entities = [["red"], [(8, 12)]]
    config = dataclasses.replace(MASK, hidden_weight=0.5, ownership="average")

    def picture(masks, **settings):
        with modulate(handwired, dataclasses.replace(config, **settings)) as handle:
            handle.set_prompt(text, entities=entities, masks=masks)
            return run(handwired, text, wishes, steps=3)

    masks = [LEFT, 1 - LEFT]
    assert not torch.equal(picture(None), picture(None, equalize_entities=1.0))
    assert torch.equal(picture(masks), picture(masks, equalize_entities=1.0))


def test_what_does_not_go_together(handwired):
    with modulate(handwired, ModulationConfig()) as handle:
        with pytest.raises(TypeError, match="one prompt"):
            handle.set_prompt([PROMPT, "a cat"], masks=[LEFT, LEFT])
        with pytest.raises(TypeError, match="one text"):
            handle.set_prompt(Prompt.from_entities(PROMPT, []), entities=[["a red cube"]])
        with pytest.raises(ValueError, match="a dog"):
            handle.set_prompt(PROMPT, entities=[["a dog"]])
