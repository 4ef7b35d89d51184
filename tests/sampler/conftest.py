"""Pipelines that several tests use. They are made once: every test must leave them as it found them."""

import pytest
import torch

from attnmod.parser.align import load_tokenizer
from attnmod.sampler.untrained import CLIP_BPE
from tests.handwired import handwired_pipeline


def _processors(pipe) -> list[int]:
    return [id(processor) for processor in pipe.unet.attn_processors.values()]


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(CLIP_BPE)


@pytest.fixture(scope="session")
def _shared_handwired():
    return handwired_pipeline()


@pytest.fixture
def handwired(_shared_handwired):
    """The hand-wired pipeline; checks afterwards that nothing was left on it."""
    pipe = _shared_handwired
    processors, attributes = _processors(pipe), set(vars(pipe))
    weights = [parameter.clone() for parameter in pipe.unet.parameters()]
    yield pipe
    assert _processors(pipe) == processors
    assert set(vars(pipe)) - attributes <= set(pipe.__class__.__init__.__annotations__) | _RUN_ATTRIBUTES
    assert not pipe.unet._forward_pre_hooks
    assert not pipe.unet._forward_hooks
    assert all(torch.equal(now, before) for now, before in zip(pipe.unet.parameters(), weights, strict=True))


# What a StableDiffusionXLPipeline notes on itself while it runs.
_RUN_ATTRIBUTES = {
    "_guidance_scale",
    "_guidance_rescale",
    "_clip_skip",
    "_cross_attention_kwargs",
    "_denoising_end",
    "_interrupt",
    "_num_timesteps",
    "_progress_bar_config",
    "_lora_scale",
}
