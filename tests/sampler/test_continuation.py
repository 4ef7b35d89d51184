"""One run over several conditioning tensors, several runs over one: owners follow the run, not the tensor."""

import doctest

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

import attnmod.sampler.state as state
from attnmod import ModulationConfig, modulate
from tests.handwired import COLOURS, wish_latents
from tests.sampler.test_ownership import AVERAGE, HALVES, PROMPT

CONFIG = ModulationConfig(**AVERAGE)
MIRRORED = [line[::-1] for line in HALVES]


def test_doctests():
    assert doctest.testmod(state).failed == 0


@pytest.fixture
def loop(handwired):
    """A loop of one's own: the middle of a red patch after each UNet call, [calls, 3]."""
    embeddings, _, pooled, _ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)

    @torch.no_grad()
    def call(timesteps, wishes=HALVES, anew=False):
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        latents = wish_latents(wishes)
        column = wishes[3].index("red")
        return torch.stack(
            [
                handwired.unet(
                    latents, timestep, embeddings.clone() if anew else embeddings, added_cond_kwargs=conditions
                ).sample[0, :3, 3, column]
                for timestep in timesteps
            ]
        )

    with modulate(handwired, CONFIG, maps=True) as handle:
        handle.set_prompt(PROMPT, embeddings)
        yield call, handle


def test_embeddings_made_anew_at_every_step_go_on(loop):
    call, handle = loop
    same = call((900, 600, 300))
    anew = call((900, 600, 300), anew=True)
    assert not torch.equal(same[0], same[1]), "nobody owns a patch in the first call"
    assert torch.equal(anew, same)
    assert handle.entity_map().tolist() == [[[0] * 4 + [1] * 4] * 8]
    assert handle.entity_map(step=0).shape == handle.entity_map(step=2).shape
    with pytest.raises(IndexError):
        handle.entity_map(step=3)


@pytest.mark.parametrize("anew", [False, True])
def test_a_run_that_begins_lower_is_a_run_of_its_own(loop, anew):
    """img2img after a whole run, with the embeddings that were kept: the last picture's owners are not its own."""
    call, handle = loop
    fresh = call((600, 300), MIRRORED, anew)
    call((900, 600, 300), HALVES, anew)
    assert torch.equal(call((600, 300), MIRRORED, anew), fresh)
    assert handle.entity_map().tolist() == [[[1] * 4 + [0] * 4] * 8]


def test_calls_that_repeat_a_timestep_are_one_run(loop):
    """As Heun's second order calls do."""
    call, handle = loop
    call((900, 600, 600, 300, 300))
    with pytest.raises(IndexError, match="had 5"):
        handle.entity_map(step=5)


def test_owners_outlive_the_end_of_guidance(handwired):
    def run(callback):
        seen = []
        with modulate(handwired, CONFIG, maps=True) as handle:
            hook = handwired.unet.register_forward_hook(lambda _unet, _args, out: seen.append(out[0][-1, :3, 3, 3]))
            try:
                handwired(
                    [PROMPT] * 2,
                    latents=wish_latents(HALVES).repeat(2, 1, 1, 1),
                    num_inference_steps=6,
                    guidance_scale=2.0,
                    output_type="latent",
                    callback_on_step_end=callback,
                    callback_on_step_end_tensor_inputs=["prompt_embeds", "add_text_embeds", "add_time_ids"],
                )
            finally:
                hook.remove()
            maps = [handle.entity_map(step=step) for step in range(6)]
        return seen, maps

    def cut_off(pipe, step, _timestep, tensors):
        """As SDXLCFGCutoffCallback does for one image."""
        if step == 2:
            pipe._guidance_scale = 0.0
            return {name: tensor.chunk(2)[1] for name, tensor in tensors.items()}
        return tensors

    seen, maps = run(cut_off)
    plain, _ = run(None)
    assert [one.shape for one in maps] == [(2, 8, 8)] * 6
    assert all(torch.equal(one, maps[1]) for one in maps[2:])
    for one, other in zip(seen[1:], plain[1:], strict=True):  # red stays red, with and without the other half
        assert torch.allclose(one / one.norm(), other / other.norm(), atol=1e-4)


def test_maps_outlive_what_others_do_with_the_unet(handwired):
    other = StableDiffusionXLPipeline(**handwired.components)
    latents = wish_latents(HALVES)
    options = dict(latents=latents, num_inference_steps=2, guidance_scale=1.0, output_type="latent")
    with modulate(handwired, CONFIG, maps=True) as handle:
        handwired(PROMPT, **options)
        before = handle.entity_map()
        other("a green cone", **options)
        assert torch.equal(handle.entity_map(), before)
        assert handle.heat_map("cube").shape == before.shape[1:]


def test_after_no_numbers_everything_is_as_before(handwired):
    options = dict(num_inference_steps=3, guidance_scale=1.0, output_type="latent")
    with modulate(handwired, CONFIG):
        fresh = handwired(PROMPT, latents=wish_latents(HALVES), **options).images
        handwired(PROMPT, latents=wish_latents(HALVES) * float("nan"), **options)
        assert torch.equal(handwired(PROMPT, latents=wish_latents(HALVES), **options).images, fresh)


def test_prompts_of_one_batch_have_owners_of_their_own(handwired):
    """Two prompts, two images each, guidance on: every patch ends in the colour of its own entity alone."""
    texts = [PROMPT, "a green cone and a red cube"]
    wishes = [HALVES, HALVES, *[[["green"] * 4 + ["red"] * 4] * 8] * 2]
    with modulate(handwired, CONFIG, maps=True) as handle:
        images = handwired(
            texts,
            latents=torch.cat([wish_latents(one) for one in wishes]),
            num_images_per_prompt=2,
            num_inference_steps=3,
            guidance_scale=2.0,
            output_type="latent",
        ).images
        assert handle.entity_map(step=-1).tolist() == [[[0] * 4 + [1] * 4] * 8] * 4
    for image, wished in zip(images, wishes, strict=True):
        for column in (3, 12):
            colour = torch.tensor(COLOURS[wished[3][column // 2]])
            seen = image[:3, 3, column]
            assert torch.allclose(seen / seen.norm(), colour / colour.norm(), atol=1e-3)
