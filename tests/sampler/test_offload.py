"""CPU offloading, with the CPU standing in for the accelerator.

What this shows: weights that are elsewhere when the UNet is called, and brought in by accelerate's hooks, module by
module or as a whole. What it cannot show is the way to a real accelerator and back.
"""

import dataclasses
import warnings

import pytest
import torch

from attnmod import ModulationConfig, modulate
from attnmod.sampler.layers import find_layers
from attnmod.sampler.untrained import sdxl_shaped_pipeline

accelerate = pytest.importorskip("accelerate")

PROMPT = "a red cube and a blue sphere"
CONFIG = dataclasses.replace(ModulationConfig.preset("described"), temperature=0.5)


@pytest.fixture
def pipe():
    pipe = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32), sample_size=8)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, prompt=PROMPT):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(text embeddings|another tool).*")
        call = dict(num_inference_steps=2, output_type="latent", generator=torch.Generator().manual_seed(0))
        return pipe(prompt, **call).images


def offload_models(pipe):
    pipe.enable_model_cpu_offload(device="cpu")


def offload_modules(pipe):
    """As enable_sequential_cpu_offload does, whose device "cpu:0" accelerate does not take for the CPU."""
    accelerate.cpu_offload(pipe.unet, torch.device("cpu"), offload_buffers=False)


@pytest.mark.parametrize(("offload", "rest"), [(offload_models, "cpu"), (offload_modules, "meta")])
def test_offloading_before_and_after_attaching(pipe, offload, rest):
    stock = run(pipe)
    with modulate(pipe, CONFIG):
        expected = run(pipe)
        offload(pipe)
        assert torch.equal(run(pipe), expected)
    weight = next(iter(find_layers(pipe.unet)["cross"].values())).to_k.weight
    assert weight.device.type == rest
    assert torch.equal(run(pipe), stock)
    with modulate(pipe, CONFIG):
        assert torch.equal(run(pipe), expected)


def test_without_an_accelerator_diffusers_refuses_by_itself(pipe):
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    with modulate(pipe, CONFIG):
        for enable in (pipe.enable_model_cpu_offload, pipe.enable_sequential_cpu_offload):
            with pytest.raises(RuntimeError, match="requires accelerator"):
                enable()
