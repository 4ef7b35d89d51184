"""Modular pipelines: blocks encode the text, and a guider calls the UNet once for each condition."""

import copy
import warnings

import pytest
import torch
from diffusers import ClassifierFreeGuidance, StableDiffusionXLModularPipeline
from diffusers.modular_pipelines.stable_diffusion_xl import StableDiffusionXLAutoBlocks

from attnmod import modulate
from attnmod.sampler.encoding import prompt_encoders
from tests.handwired import COLOURS, STRENGTH, colour_latents, stock_mixture, wish_latents
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close


@pytest.fixture
def modular(handwired):
    return modular_pipeline(handwired)


def modular_pipeline(base):
    return with_components_of(base, StableDiffusionXLModularPipeline(StableDiffusionXLAutoBlocks()))


def with_components_of(base, pipe):
    names = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
    pipe.update_components(**{name: base.components[name] for name in names})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, prompt, *, steps=1, guidance=1.0, **call):
    """The RGB latents of a run whose patches want HALVES, as test_handwired.run has it."""
    pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=guidance))
    latents = wish_latents(HALVES, call.pop("batch", 1))
    height, width = (2 * size for size in latents.shape[-2:])
    size = dict(height=height, width=width, num_inference_steps=steps)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(text embeddings|another tool).*")
        return pipe(prompt=prompt, latents=latents, output="latents", **size, **call)[:, :3]


@pytest.mark.parametrize(("steps", "guidance"), [(1, 1.0), (2, 3.0)])
def test_the_picture_is_the_owner_map(modular, guidance, steps):
    stock = run(modular, PROMPT, steps=steps, guidance=guidance)
    with modulate(modular, MASK, maps=True) as handle:
        picture = run(modular, PROMPT, steps=steps, guidance=guidance)[0]
        assert handle.entity_map().tolist() == [[[0] * 4 + [1] * 4] * 8]
        assert [entity.text for entity in handle.prompts[0].entities] == ["a red cube", "a blue sphere"]
    assert close(picture, colour_latents(HALVES, guidance))
    assert torch.equal(run(modular, PROMPT, steps=steps, guidance=guidance), stock)
    assert not close(stock[0], picture)


def test_rows(modular):
    """A negative prompt, several prompts, and several images of each."""
    guidance, wanted = 2.0, STRENGTH * torch.tensor(COLOURS["red"])
    with modulate(modular, MASK):
        picture = run(modular, PROMPT, guidance=guidance, negative_prompt="a green cone and a blue sphere")[0]
        negative = stock_mixture("red", ["green", "blue"])
        assert close(picture[:, 3, 3], negative + guidance * (wanted - negative))
        prompts = [PROMPT, "a blue sphere"]
        pictures = run(modular, prompts, guidance=guidance, num_images_per_prompt=2, batch=4)
        for picture in pictures[:2]:
            assert close(picture, colour_latents(HALVES, guidance))
        for picture in pictures[2:]:
            assert close(picture, colour_latents([["blue"] * 8] * 8, guidance))


def test_the_usual_pipeline_on_the_same_unet_runs_plain(handwired, modular):
    other = dict(num_inference_steps=1, output_type="latent", latents=wish_latents(HALVES), height=32, width=32)
    stock = handwired(PROMPT, **other).images
    with modulate(modular, MASK):
        run(modular, PROMPT)
        assert torch.equal(handwired(PROMPT, **other).images, stock)
    with modulate(handwired, MASK):
        handwired(PROMPT, **other)
        assert close(run(modular, PROMPT)[0, :, 3, 3], stock_mixture("red", ["red", "blue"]))


def test_nothing_is_left_on_the_blocks(modular):
    (encoder,) = prompt_encoders(modular)
    before = dict(vars(encoder))
    with modulate(modular, MASK):
        assert "encode_prompt" in vars(encoder)
        copy.deepcopy(modular.blocks)  # copies no handle, and no model with it
    assert vars(encoder) == before


def test_blocks_that_serve_two_pipelines(handwired):
    """They are told of for the pipeline that works, and named for the one that is modulated."""
    blocks = StableDiffusionXLAutoBlocks()
    first, second = (with_components_of(handwired, StableDiffusionXLModularPipeline(blocks)) for _ in range(2))
    with modulate(first, MASK) as handle:
        assert close(run(first, PROMPT)[0], colour_latents(HALVES))
        prompts = handle.prompts
        assert close(run(second, PROMPT)[0, :, 3, 3], stock_mixture("red", ["red", "blue"]))
        assert handle.prompts is prompts


def test_components_have_to_be_loaded_first():
    with pytest.raises(TypeError, match="modular one with its components loaded, not StableDiffusionXLModularPipeline"):
        modulate(StableDiffusionXLModularPipeline(StableDiffusionXLAutoBlocks()))
