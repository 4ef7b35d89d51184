"""From the text to the pixels, on a pipeline whose picture can be worked out by hand (see tests/handwired.py)."""

import dataclasses

import pytest
import torch

from attnmod import Curve, ModulationConfig, Prompt, align_tokens, modulate
from tests.handwired import COLOURS, STRENGTH, colour_latents, stock_mixture, wish_latents

# Far below the difference between any two pictures here; above what float32 loses in a dozen layers.
TOLERANCE = 1e-4
MASK = ModulationConfig.preset("mask")
PROMPT = "a red cube and a blue sphere"
HALVES = [["red"] * 4 + ["blue"] * 4] * 8


def run(pipe, prompt, wishes=HALVES, *, steps=1, guidance=1.0, batch=1, **call):
    """The RGB latents [n, 3, h, w] of a run whose patches want these colours."""
    latents = wish_latents(wishes, batch)
    height, width = (2 * size for size in latents.shape[-2:])
    result = pipe(
        prompt,
        latents=latents,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
        **call,
    )
    return result.images[:, :3]


def close(actual, expected):
    return (actual - expected).abs().max().item() <= TOLERANCE


def test_the_stock_pipeline_mixes_the_colours(handwired):
    picture = run(handwired, PROMPT)[0]
    assert close(picture[:, 3, 3], stock_mixture("red", ["red", "blue"]))
    assert close(picture[:, 3, 12], stock_mixture("blue", ["red", "blue"]))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_modulated_the_picture_is_the_owner_map(handwired, steps, guidance):
    with modulate(handwired, MASK, maps=True) as handle:
        picture = run(handwired, PROMPT, steps=steps, guidance=guidance)[0]
        owners = handle.entity_map()
    assert close(picture, colour_latents(HALVES, guidance))
    assert owners.tolist() == [[[0] * 4 + [1] * 4] * 8]


def test_heat_maps(handwired):
    """Every head, layer and step agrees here, so each share is 0 or 1."""
    with modulate(handwired, MASK, maps=True) as handle:
        run(handwired, [PROMPT, "a blue sphere"], steps=2, batch=2)
        for name in (0, "a red cube", "cube"):
            assert handle.heat_map(name).tolist() == [[1.0] * 4 + [0.0] * 4] * 8
        assert handle.heat_map("sphere", image=1).eq(1).all()
        with pytest.raises(ValueError, match=r"no entity 'cone'; it has 0 'a red cube', 1 'a blue sphere'"):
            handle.heat_map("cone")


@torch.no_grad()
def test_a_map_is_of_the_last_run_alone(handwired):
    """Also where a loop of the user's own runs the very same embeddings again."""
    with modulate(handwired, MASK, maps=True) as handle:
        embeddings, _, pooled, _ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        for wishes in (HALVES, [line[::-1] for line in HALVES]):
            for timestep in (900, 500, 100):
                handwired.unet(wish_latents(wishes), timestep, embeddings, added_cond_kwargs=conditions)
        assert handle.heat_map("cube").tolist() == [[0.0] * 4 + [1.0] * 4] * 8


@pytest.mark.parametrize("preset", ["described", "mask"])
def test_the_pixels_too(handwired, preset):
    with modulate(handwired, preset):
        image = handwired(
            PROMPT, latents=wish_latents(HALVES), num_inference_steps=2, guidance_scale=4.0, output_type="np"
        ).images[0]
    red, blue = image[5, 5], image[5, 25]
    assert red == pytest.approx([1.0, 0.5, 0.5], abs=1e-3)
    assert blue == pytest.approx([0.5, 0.5, 1.0], abs=1e-3)


@pytest.mark.parametrize(
    ("prompt", "colours"),
    [
        ("a blue sphere and a red cube", ["blue", "red"]),
        ("a green cone, a red cube and a blue sphere", ["green", "red", "blue"]),
        ("two red birds above a green hill", ["red", "green"]),
        ("A  RED cube -- and (a blue sphere)!", ["red", "blue"]),
    ],
)
def test_prompts(handwired, prompt, colours):
    wishes = [[colours[(x + y) % len(colours)] for x in range(8)] for y in range(8)]
    with modulate(handwired, MASK, maps=True) as handle:
        picture = run(handwired, prompt, wishes, steps=2)[0]
        owners = handle.entity_map()[0]
        names = [entity.text for entity in handle.prompts[0].entities]
    assert close(picture, colour_latents(wishes))
    for y in range(8):
        for x in range(8):
            assert wishes[y][x] in names[owners[y, x]].lower()


def test_a_negative_prompt_stays_plain(handwired):
    guidance, wanted = 2.0, "red"
    with modulate(handwired, MASK):
        picture = run(handwired, PROMPT, guidance=guidance, negative_prompt="a green cone and a blue sphere")[0]
    negative = stock_mixture(wanted, ["green", "blue"])
    pure = STRENGTH * torch.tensor(COLOURS[wanted])
    assert close(picture[:, 3, 3], negative + guidance * (pure - negative))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_of_different_prompts_with_two_images_each(handwired, guidance):
    prompts = ["a red cube and a blue sphere", "a blue sphere", "a green cone, a blue sphere and a red cube"]
    wishes = [["red"] * 2 + ["green"] * 2 + ["blue"] * 4] * 8
    with modulate(handwired, MASK, maps=True) as handle:
        pictures = run(handwired, prompts, wishes, guidance=guidance, batch=6, num_images_per_prompt=2)
        owners = handle.entity_map()
    assert owners.shape == (6, 8, 8)
    assert torch.equal(pictures[0::2], pictures[1::2])
    assert close(pictures[2], colour_latents([["blue"] * 8] * 8, guidance))
    assert close(pictures[4], colour_latents(wishes, guidance))
    # nobody offers green in the first prompt: those patches go to the first of two equal votes, and show it pure
    assert close(pictures[0], colour_latents([["red"] * 4 + ["blue"] * 4] * 8, guidance))
    assert owners[4, 0].tolist() == [2, 2, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("height", "width"), [(4, 12), (12, 8), (6, 10)])
def test_any_width_and_height(handwired, height, width):
    wishes = [["red" if x < width // 2 else "blue" for x in range(width)] for _ in range(height)]
    with modulate(handwired, MASK, maps=True) as handle:
        picture = run(handwired, PROMPT, wishes)[0]
        assert handle.entity_map().shape == (1, height, width)
    assert close(picture, colour_latents(wishes))


def test_a_nested_entity_is_seen_by_its_parent_too(handwired):
    """Patches that want blue belong to the child and see blue alone; the parent's see both colours."""
    prompt = Prompt.from_entities(
        "a red robot with a blue hat and a green cone",
        [["a red robot with a blue hat"], ["a blue hat"], ["a green cone"]],
    )
    assert [entity.parent for entity in prompt.entities] == [None, 0, None]
    wishes = [["red"] * 3 + ["blue"] * 3 + ["green"] * 2] * 8
    with modulate(handwired, MASK, maps=True) as handle:
        handle.set_prompt(prompt)
        picture = run(handwired, prompt.text, wishes)[0]
        assert handle.entity_map()[0, 0].tolist() == [0] * 3 + [1] * 3 + [2] * 2
    assert close(picture[:, 0, 0], stock_mixture("red", ["red", "blue"]))
    assert close(picture[:, 0, 6], STRENGTH * torch.tensor(COLOURS["blue"]))
    assert close(picture[:, 0, 14], STRENGTH * torch.tensor(COLOURS["green"]))


@pytest.mark.parametrize("hidden", [0.25, 1.0])
def test_a_soft_mask_lets_the_rest_through(handwired, hidden):
    config = dataclasses.replace(MASK, hidden_weight=hidden, balanced=False)
    with modulate(handwired, config):
        picture = run(handwired, PROMPT)[0]
    own, other = (STRENGTH * torch.tensor(COLOURS[name]) for name in ("red", "blue"))
    share = stock_mixture("red", ["red", "blue"])[0] / STRENGTH  # of red, unmodulated
    expected = (share * own + hidden * (1 - share) * other) / (share + hidden * (1 - share))
    assert close(picture[:, 3, 3], expected)


@torch.no_grad()
def test_curves_follow_the_timestep_of_the_call(handwired):
    """A mask that ends in the middle of the noise schedule: early runs show the owner, late ones the mixture."""
    config = dataclasses.replace(MASK, hidden_weight=Curve("linear", 0.0, 1.0, begin=0.5, stop=0.5), balanced=False)
    pure, mixed = STRENGTH * torch.tensor(COLOURS["red"]), stock_mixture("red", ["red", "blue"])
    with modulate(handwired, config):
        for timestep, expected in ((900, pure), (501, pure), (499, mixed), (10, mixed)):
            embeddings, _, pooled, _ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)
            sample = handwired.unet(
                wish_latents(HALVES),
                timestep,
                encoder_hidden_states=embeddings,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": torch.zeros(1, 6)},
            ).sample
            assert close(sample[0, :3, 3, 3], expected), timestep


def test_a_token_weight_counts_in_the_softmax(handwired):
    """Blue at weight 3 counts three times; the weight of details, the same for both colours, cancels."""
    prompt = Prompt.from_entities(PROMPT, [["a red cube"], ["a blue sphere"]])
    prompt = align_tokens(prompt, handwired.tokenizer)
    tokens = [dataclasses.replace(token, weight=3.0 if token.text == "blue" else 1.0) for token in prompt.tokens]
    prompt = dataclasses.replace(prompt, tokens=tuple(tokens))
    with modulate(
        handwired, ModulationConfig(temperature=1, hidden_weight=1, global_weight=1, detail_weight=2)
    ) as handle:
        handle.set_prompt(prompt)
        picture = run(handwired, prompt.text)[0]
    red = stock_mixture("red", ["red", "blue"])[0] / STRENGTH
    red = red / (red + 3 * (1 - red))
    assert close(picture[:, 3, 3], STRENGTH * torch.tensor([red, 0, 1 - red]))


def test_a_detail_weight_shifts_from_the_scene_to_the_details(handwired):
    """Red is a global word here, blue a detail of weight 4."""
    prompt = Prompt.from_entities("red light on a blue sphere", [["a blue sphere"]])
    with modulate(
        handwired, ModulationConfig(temperature=1, hidden_weight=1, global_weight=1, detail_weight=4)
    ) as handle:
        handle.set_prompt(prompt)
        picture = run(handwired, prompt.text)[0]
    red = stock_mixture("red", ["red", "blue"])[0] / STRENGTH
    red = red / (red + 4 * (1 - red))
    assert close(picture[:, 3, 3], STRENGTH * torch.tensor([red, 0, 1 - red]))


def test_an_unowned_background_sees_every_token(handwired):
    """With the global words voting, patches that no entity stands out in show the stock mixture."""
    config = dataclasses.replace(MASK, balanced=False, unowned_background=True)
    text = "a red cube and a blue sphere on green"
    prompt = Prompt.from_entities(text, [["a red cube"], ["a blue sphere"]])  # green belongs to nobody
    wishes = [["red"] * 4 + ["green"] * 4] * 8
    with modulate(handwired, config, maps=True) as handle:
        handle.set_prompt(prompt)
        picture = run(handwired, text, wishes)[0]
        assert handle.entity_map()[0, 0].tolist() == [0] * 4 + [-1] * 4
    assert close(picture[:, 3, 12], stock_mixture("green", ["red", "blue", "green"]))


@pytest.mark.parametrize("prompt", ["", "   ", "!!!", "x" * 10_000, "красный куб", "赤い立方体と青い球"])
def test_odd_prompts_run(handwired, prompt):
    with modulate(handwired, maps=True) as handle:
        picture = run(handwired, prompt)
        owners = handle.entity_map()
    assert owners.shape[0] == 1
    if not handle.prompts[0].entities:
        assert owners.eq(-1).all()
    assert picture.isfinite().all()
