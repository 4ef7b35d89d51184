"""Which pipelines it works with. Each runs on a small model; what matters is that rows find their prompts."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPAGPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image

from attnmod import ModulationConfig, modulate
from attnmod.sampler.untrained import sdxl_shaped_pipeline

DESCRIBED = dataclasses.replace(ModulationConfig.preset("described"), temperature=0.5)
PROMPT = "a red cube and a blue sphere"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
HALF = Image.fromarray(np.repeat(np.array([[0] * 32 + [255] * 32], dtype=np.uint8), 64, axis=0))
SIZE = dict(width=64, height=64)


@pytest.fixture(scope="module")
def base():
    pipe = sdxl_shaped_pipeline(
        channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32, 32, 32), sample_size=8
    )
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    return pipe


def parts(base, **changed):
    return {**base.components, "scheduler": EulerDiscreteScheduler.from_config(base.scheduler.config), **changed}


def text_to_image(base):
    return StableDiffusionXLPipeline(**parts(base)), SIZE


def heun(base):
    return StableDiffusionXLPipeline(
        **parts(base, scheduler=HeunDiscreteScheduler.from_config(base.scheduler.config))
    ), SIZE


def image_to_image(base):
    return StableDiffusionXLImg2ImgPipeline(**parts(base)), dict(image=PICTURE, strength=0.6)


def inpainting(base):
    return StableDiffusionXLInpaintPipeline(**parts(base)), dict(image=PICTURE, mask_image=HALF, strength=0.9, **SIZE)


def controlnet(base):
    control = ControlNetModel.from_unet(base.unet).eval()
    return StableDiffusionXLControlNetPipeline(**parts(base), controlnet=control), dict(image=PICTURE, **SIZE)


def refiner(base):
    """SDXL's refiner has the second text encoder only, and an aesthetic score in place of the target size."""
    unet = UNet2DConditionModel.from_config(
        {**base.unet.config, "cross_attention_dim": 64, "projection_class_embeddings_input_dim": 5 * 32 + 64}
    ).eval()
    pipe = StableDiffusionXLImg2ImgPipeline(
        **parts(base, text_encoder=None, tokenizer=None, unet=unet), requires_aesthetics_score=True
    )
    return pipe, dict(image=PICTURE, strength=0.5)


def with_one_text_encoder(base, scheduler=None, **unet):
    """No second text encoder, no text-time conditioning."""
    config = {"addition_embed_type": None, "projection_class_embeddings_input_dim": None, "cross_attention_dim": 64}
    pipe = StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=UNet2DConditionModel.from_config({**base.unet.config, **config, **unet}).eval(),
        scheduler=EulerDiscreteScheduler.from_config(base.scheduler.config, **(scheduler or {})),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe, SIZE


def stable_diffusion_1(base):
    """Eight heads everywhere as in 1.5: head dims 8 and 8 here."""
    return with_one_text_encoder(base, attention_head_dim=8, use_linear_projection=False)


def stable_diffusion_2(base):
    """As 2.1: heads of 64 channels, linear projections, attention in float32, a model that predicts v."""
    return with_one_text_encoder(base, {"prediction_type": "v_prediction"}, upcast_attention=True)


PIPELINES = [
    text_to_image,
    heun,
    image_to_image,
    inpainting,
    controlnet,
    refiner,
    stable_diffusion_1,
    stable_diffusion_2,
]


@pytest.mark.parametrize("make", PIPELINES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pipeline(base, make, guidance):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe, options = make(base)
    pipe.set_progress_bar_config(disable=True)

    def run(prompt=PROMPT):
        generator = torch.Generator().manual_seed(0)
        call = dict(num_inference_steps=4, guidance_scale=guidance, generator=generator, output_type="np")
        return pipe(prompt, **call, **options).images

    stock = run()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(text embeddings|attention mask|another tool).*")
        with modulate(pipe, DESCRIBED, maps=True) as handle:
            modulated = run()
            owners = handle.entity_map()
            prompts = handle._state.rows.prompts
    assert owners.shape[0] == 1
    assert owners.ge(0).all(), "every patch was given to one of the two entities"
    assert [prompt.text for prompt in prompts if prompt] == [PROMPT]
    assert np.abs(modulated - stock).max() > 1e-3
    assert np.array_equal(run(), stock)


def test_perturbed_attention_guidance(base):
    """Three rows a prompt: unconditional, conditional, perturbed. PAG puts its own processors into its layers."""
    pipe = StableDiffusionXLPAGPipeline(**parts(base), pag_applied_layers=["mid"])
    pipe.set_progress_bar_config(disable=True)
    call = dict(num_inference_steps=2, output_type="np", pag_scale=2.0, **SIZE)
    stock = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call).images
    with modulate(pipe) as handle:
        with pytest.warns(UserWarning, match="another tool has replaced attention processors"):
            modulated = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call).images
        assert [prompt is not None for prompt in handle._state.rows.prompts] == [False, True, True]
    assert np.abs(modulated - stock).max() > 1e-3
    assert np.array_equal(pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call).images, stock)


def test_a_base_and_a_refiner_that_split_a_run(base):
    """Progress is read off the timestep: the second half of a run gets the second half of the curves."""
    pipe, _ = text_to_image(base)
    second = StableDiffusionXLImg2ImgPipeline(**{**parts(base), "unet": base.unet})
    for one in (pipe, second):
        one.set_progress_bar_config(disable=True)
    seen = []
    with modulate(pipe, "temperature") as handle:
        record = base.unet.register_forward_pre_hook(lambda *_: seen.append(handle._state.rows.temperature[-1].item()))
        latents = pipe(PROMPT, num_inference_steps=10, denoising_end=0.5, output_type="latent", **SIZE).images
        record.remove()
    first_half = seen.copy()
    seen.clear()
    with modulate(second, "temperature") as handle:
        record = base.unet.register_forward_pre_hook(lambda *_: seen.append(handle._state.rows.temperature[-1].item()))
        second(PROMPT, image=latents, num_inference_steps=10, denoising_start=0.5, output_type="latent")
        record.remove()
    whole = first_half + seen
    assert len(first_half) == len(seen) == 5
    assert whole == sorted(whole)
    assert whole[0] == pytest.approx(0.9)
    assert whole[-1] == pytest.approx(1.0)
