"""Pipelines that are refused, each with a message that says what is wanted."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel

from attnmod import modulate
from tests.sampler.test_failures import Bare, trace_of

SMALL: dict[str, Any] = dict(block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=8, norm_num_groups=8)


def unet(**options):
    with torch.device("meta"):
        return UNet2DConditionModel(**{**SMALL, "attention_head_dim": 4, **options})


def kolors():
    """The text is projected once more inside the UNet."""
    blocks: dict[str, Any] = dict(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D",) * 2
    )
    return unet(**blocks, encoder_hid_dim=16, encoder_hid_dim_type="text_proj")


def kandinsky_2():
    return unet(
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=16,
        encoder_hid_dim_type="image_proj",
    )


def deepfloyd():
    """Attention with the text as added keys, in blocks of its own."""
    return unet(
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )


def no_attention():
    return unet(
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, mid_block_type="UNetMidBlock2D"
    )


def video():
    with torch.device("meta"):
        blocks: dict[str, Any] = dict(
            down_block_types=("CrossAttnDownBlockMotion",) * 2, up_block_types=("CrossAttnUpBlockMotion",) * 2
        )
        return UNetMotionModel(**SMALL, **blocks, num_attention_heads=4, motion_num_attention_heads=4)


CASES = {
    kolors: "encoder_hid_dim_type 'text_proj': its layers do not read the text embeddings themselves",
    kandinsky_2: "encoder_hid_dim_type 'image_proj'",
    deepfloyd: "no transformer block with cross-attention",
    no_attention: "no transformer block with cross-attention",
    video: "the UNet is a UNetMotionModel",
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_unets_of_other_kinds(make):
    pipe = Bare(make())
    before = trace_of(pipe)
    with pytest.raises(ValueError, match=f"{CASES[make]}.*modulate works on UNet2DConditionModel as SDXL"):
        modulate(pipe)
    assert trace_of(pipe) == before


def test_pipelines_without_a_unet():
    """Transformers in its place (SD 3, Flux), or prompts that are encoded by a pipeline of their own (Kandinsky)."""

    class WithTransformer:
        transformer = torch.nn.Linear(2, 2)

        def encode_prompt(self, prompt):
            raise NotImplementedError

    class WithoutEncoder:
        unet = torch.nn.Linear(2, 2)

    for pipe in (WithTransformer(), WithoutEncoder()):
        wanted = "a diffusers pipeline with a UNet and encode_prompt"
        with pytest.raises(TypeError, match=f"{wanted}.*{type(pipe).__name__}"):
            modulate(pipe)
