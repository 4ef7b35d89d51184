"""Phases: each UNet call gets the curves' values at its own timestep, whatever scheduler or pipeline drives it."""

import warnings

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLImg2ImgPipeline,
)

from attnmod import Curve, ModulationConfig, modulate
from tests.sampler.test_pipelines import (
    PROMPT,
    base,  # noqa: F401  a fixture
    image_to_image,
    inpainting,
    parts,
    text_to_image,
)

# Strictly monotonous, so that a value tells the progress at which it was read.
CONFIG = ModulationConfig(
    temperature=Curve("linear", 0.5, 1.5),
    hidden_weight=Curve("cosine", 0.0, 1.0),
    global_weight=Curve("linear", 2.0, 0.5),
    detail_weight=Curve("sigmoid", 0.5, 2.0),
)


def record(pipe, prompt=PROMPT, config=CONFIG, **call):
    """(timestep, temperature, hidden weight, log weight of a detail) of the prompt's row, for each UNet call."""
    seen = []
    pipe.set_progress_bar_config(disable=True)
    with modulate(pipe, config) as handle:

        def look(unet, args):
            rows = handle._state.rows
            detail = rows.is_detail[-1].nonzero()[0]
            values = rows.temperature[-1], rows.hidden_weight[-1], rows.log_weights[-1, detail]
            seen.append((float(args[1]), *(value.item() for value in values)))

        hook = pipe.unet.register_forward_pre_hook(look)
        try:
            result = pipe(prompt, output_type="latent", generator=torch.Generator().manual_seed(0), **call).images
        finally:
            hook.remove()
    return seen, result


def check(seen):
    """Against the curves themselves, at u = 1 - t / 1000; the table is linear between whole timesteps."""
    assert seen
    for timestep, temperature, hidden_weight, log_detail in seen:
        u = 1 - timestep / 1000
        assert temperature == pytest.approx(CONFIG.temperature(u), abs=1e-5)
        assert hidden_weight == pytest.approx(CONFIG.hidden_weight(u), abs=1e-5)
        assert log_detail == pytest.approx(torch.tensor(CONFIG.detail_weight(u)).log().item(), abs=1e-4)
    return [round(1 - timestep / 1000, 3) for timestep, *_ in seen]


def test_four_steps_without_guidance(base):  # noqa: F811
    """As Turbo and Lightning run: every phase is met, although there are four calls only."""
    pipe, size = text_to_image(base)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    progress = check(record(pipe, num_inference_steps=4, guidance_scale=0.0, **size)[0])
    assert progress == [0.001, 0.251, 0.501, 0.751]


@pytest.mark.parametrize("make", [image_to_image, inpainting], ids=["img2img", "inpainting"])
@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_strength(base, make, strength):  # noqa: F811
    """A run that starts in the middle starts in the middle of the curves."""
    pipe, call = make(base)
    progress = check(record(pipe, num_inference_steps=10, **{**call, "strength": strength})[0])
    assert len(progress) == round(10 * strength)
    assert progress[0] == pytest.approx(1 - strength, abs=0.1)
    assert progress[-1] > 0.9
    assert progress == sorted(progress)


@pytest.mark.parametrize(
    ("scheduler", "options", "calls"),
    [
        (HeunDiscreteScheduler, {}, 7),
        (LCMScheduler, {"original_inference_steps": 50}, 4),
        (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, 4),
        (EulerDiscreteScheduler, {"use_karras_sigmas": True}, 4),
        (EulerDiscreteScheduler, {"timestep_spacing": "linspace"}, 4),
    ],
    ids=["Heun", "LCM", "DPM++ Karras", "Euler Karras", "fractional timesteps"],
)
def test_schedulers(base, scheduler, options, calls):  # noqa: F811
    """Heun calls the UNet twice at most steps; Karras' timesteps are uneven, others lie between whole ones."""
    pipe, size = text_to_image(base)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **options)
    progress = check(record(pipe, num_inference_steps=4, **size)[0])
    assert len(progress) == calls
    assert progress == sorted(progress)


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [(EulerDiscreteScheduler, {"timestep_type": "continuous"}), (EDMEulerScheduler, {})],
    ids=["Euler continuous", "EDM"],
)
def test_timesteps_that_are_no_places_in_the_training_schedule_are_told_of(base, scheduler, options):  # noqa: F811
    pipe, size = text_to_image(base)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction", **options)
    told = f"{scheduler.__name__} gives the UNet ln\\(sigma\\) / 4 for a timestep"
    with pytest.warns(UserWarning, match=told):
        seen, _ = record(pipe, num_inference_steps=2, **size)
    assert all(abs(timestep) < 3 for timestep, *_ in seen)
    constant = ModulationConfig(temperature=0.5, hidden_weight=0, global_weight=1, detail_weight=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        record(pipe, config=constant, num_inference_steps=2, **size)


def test_a_base_and_a_refiner_that_split_a_run(base):  # noqa: F811
    pipe, size = text_to_image(base)
    second = StableDiffusionXLImg2ImgPipeline(**parts(base))
    seen, latents = record(pipe, num_inference_steps=10, denoising_end=0.7, **size)
    first = check(seen)
    rest = check(record(second, image=latents, num_inference_steps=10, denoising_start=0.7)[0])
    whole = check(record(pipe, num_inference_steps=10, **size)[0])
    assert first + rest == whole
    assert len(first) == 7
