"""The miniature's parts: SDXL's own classes from diffusers and transformers, in a small size, untrained.

As in SDXL: two CLIP text encoders whose last layers but one are joined for the cross-attention, the second's pooled
output and the micro-conditioning added to the time embedding, a UNet with linear projections, a KL autoencoder, an
Euler scheduler. Unlike it: every level of the UNet attends (its latents are 16x16), the prediction is of v, and the
schedule goes further into noise and starts at its end ("trailing"), so that nothing of a picture's mean colour is left
there.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.world import SIZE
from attnmod.sampler.untrained import CLIP_BPE

PROMPT_TOKENS = 77
TRAIN_TIMESTEPS = 1000
_TIME_ID_CHANNELS = 32
_NUM_TIME_IDS = 6  # original size, crop, target size
_BYTE_TOKENS = 512  # every byte, alone and at a word's end


def make_tokenizer(merges: int, pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer with the first merges of its vocabulary.

    Raises:
        ValueError: merges is not in 0 to CLIP's own number.
    """
    vocabulary = json.loads((CLIP_BPE / "vocab.json").read_text(encoding="utf-8"))
    lines = (CLIP_BPE / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    if not 0 <= merges <= len(pairs):
        raise ValueError(f"merges is {merges}; it must lie in 0 to {len(pairs)}")
    kept = {token: index for token, index in vocabulary.items() if index < _BYTE_TOKENS + merges}
    for token in ("<|startoftext|>", "<|endoftext|>"):
        kept[token] = len(kept)
    return CLIPTokenizer(kept, pairs[:merges], pad_token=pad_token, model_max_length=PROMPT_TOKENS)


def make_pipeline(config: MiniatureConfig) -> StableDiffusionXLPipeline:
    """The untrained pipeline, in float32 on the CPU; its weights follow from the seed alone."""
    tokenizer = make_tokenizer(config.merges, pad_token="<|endoftext|>")
    tokenizer_2 = make_tokenizer(config.merges, pad_token="!")  # as SDXL's second tokenizer does
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = make_vae(config)
        text_encoder = CLIPTextModel(_text_config(config, tokenizer, "quick_gelu"))
        text_encoder_2 = CLIPTextModelWithProjection(_text_config(config, tokenizer, "gelu"))
        unet = _make_unet(config)
    scheduler = EulerDiscreteScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    parts: dict[str, Any] = dict(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        text_encoder_2=text_encoder_2.eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet.eval(),
        scheduler=scheduler,
    )
    return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=True, add_watermarker=False)


def make_vae(config: MiniatureConfig) -> AutoencoderKL:
    levels = len(config.vae_channels)
    return AutoencoderKL(
        block_out_channels=config.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=min(16, *config.vae_channels),
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
        sample_size=SIZE,
    )


def save_pipeline(pipe: StableDiffusionXLPipeline, folder: Path) -> int:
    """Write the pipeline as fp16 safetensors; returns the folder's size in bytes."""
    pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in Path(folder).glob("text_encoder*/config.json"):
        # transformers loads in the dtype noted here, diffusers in float32: left alone, the parts would not fit together
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**settings, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
    for path in Path(folder).glob("tokenizer*/tokenizer.json"):  # half of it is indentation
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _text_config(config: MiniatureConfig, tokenizer: CLIPTokenizer, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.text_width,
        intermediate_size=4 * config.text_width,
        projection_dim=config.text_width,
        num_attention_heads=config.text_width // config.head_dim,
        num_hidden_layers=config.text_layers,
        max_position_embeddings=PROMPT_TOKENS,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _make_unet(config: MiniatureConfig) -> UNet2DConditionModel:
    levels = len(config.channels)
    options: dict[str, Any] = dict(
        sample_size=SIZE // 2 ** (len(config.vae_channels) - 1),
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=config.layers_per_block,
        transformer_layers_per_block=list(config.transformer_layers),
        attention_head_dim=[width // config.head_dim for width in config.channels],  # by this name: number of heads
        cross_attention_dim=2 * config.text_width,
        norm_num_groups=config.head_dim,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_ID_CHANNELS,
        projection_class_embeddings_input_dim=_NUM_TIME_IDS * _TIME_ID_CHANNELS + config.text_width,
    )
    return UNet2DConditionModel(**options)
