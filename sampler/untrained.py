"""A small pipeline of SDXL's own architecture with random weights, made on the spot.

Two text encoders with CLIP's real vocabulary, text-time conditioning, heads of 64 channels, self- and
cross-attention at two resolutions. It has learned nothing: its pictures are noise. It shows that everything runs,
on any machine, without a download.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

CLIP_BPE = Path(__file__).parent / "data" / "clip_bpe"
HEAD_DIM = 64
_TIME_ID_CHANNELS = 32
_NUM_TIME_IDS = 6  # original size, crop, target size


def sdxl_shaped_pipeline(
    *,
    channels: Sequence[int] = (64, 128, 128),
    transformer_layers: Sequence[int] = (1, 1, 2),
    text_channels: Sequence[int] = (64, 64),
    vae_channels: Sequence[int] = (32, 32, 64, 64),
    latent_channels: int = 4,
    norm_groups: int = 32,
    vae_norm_groups: int = 32,
    sample_size: int = 32,
    seed: int = 0,
    **scheduler_options: Any,
) -> StableDiffusionXLPipeline:
    """A StableDiffusionXLPipeline of SDXL's architecture in a small size, on the CPU in float32.

    Args:
        channels: of the UNet's levels, multiples of 64; as in SDXL the first has no attention.
        transformer_layers: transformer blocks per attention at each level.
        text_channels: of the two text encoders, multiples of 64.
        vae_channels: of the VAE's levels; n levels make it scale by 2^(n-1).
        latent_channels: of the latents.
        norm_groups, vae_norm_groups: groups of every GroupNorm in the UNet and in the VAE.
        sample_size: default height and width of the latents.
        seed: of the random weights; the global random state is left alone.
        scheduler_options: for EulerDiscreteScheduler, over SDXL's own.
    """
    levels = len(channels)
    unet_options: dict[str, Any] = dict(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        norm_num_groups=norm_groups,
        block_out_channels=tuple(channels),
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)),
        up_block_types=(*["CrossAttnUpBlock2D"] * (levels - 1), "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=list(transformer_layers),
        attention_head_dim=[width // HEAD_DIM for width in channels],  # by this name: the number of heads
        cross_attention_dim=sum(text_channels),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_ID_CHANNELS,
        projection_class_embeddings_input_dim=_NUM_TIME_IDS * _TIME_ID_CHANNELS + text_channels[1],
    )
    vae_options: dict[str, Any] = dict(
        block_out_channels=tuple(vae_channels),
        down_block_types=("DownEncoderBlock2D",) * len(vae_channels),
        up_block_types=("UpDecoderBlock2D",) * len(vae_channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=vae_norm_groups,
        mid_block_add_attention=False,
        scaling_factor=0.13025,
        force_upcast=False,
    )
    scheduler_options = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        **scheduler_options,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder_configs = [
            CLIPTextConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                projection_dim=width,
                num_attention_heads=width // HEAD_DIM,
                num_hidden_layers=2,
                hidden_act=activation,
                bos_token_id=49406,
                eos_token_id=49407,
            )
            for width, activation in zip(text_channels, ("quick_gelu", "gelu"), strict=True)
        ]
        unet = UNet2DConditionModel(**unet_options)
        vae = AutoencoderKL(**vae_options)
        text_encoder = CLIPTextModel(encoder_configs[0])
        text_encoder_2 = CLIPTextModelWithProjection(encoder_configs[1])
    parts: dict[str, Any] = dict(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        text_encoder_2=text_encoder_2.eval(),
        tokenizer=_clip_tokenizer(pad_token="<|endoftext|>"),
        tokenizer_2=_clip_tokenizer(pad_token="!"),  # as SDXL's second tokenizer does
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**scheduler_options),
    )
    return StableDiffusionXLPipeline(**parts, add_watermarker=False)


def _clip_tokenizer(pad_token: str) -> CLIPTokenizer:
    vocab, merges = str(CLIP_BPE / "vocab.json"), str(CLIP_BPE / "merges.txt")
    return CLIPTokenizer(vocab, merges, pad_token=pad_token, model_max_length=77)
