"""IP-Adapter: the pictures count as they do in diffusers, the text is modulated; loaded and unloaded at any time."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from attnmod import ModulationConfig, modulate
from attnmod.sampler.ip_adapter import IPAdapterCrossAttentionProcessor
from attnmod.sampler.layers import find_layers
from attnmod.sampler.processor import CrossAttentionProcessor, ModulatedProcessor, SelfAttentionProcessor
from attnmod.sampler.untrained import sdxl_shaped_pipeline

PROMPT = "a red cube and a blue sphere"
CONFIG = dataclasses.replace(ModulationConfig.preset("described"), temperature=0.5)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
TOKENS, VISION = 4, 32


@pytest.fixture(scope="module")
def _pipe():
    base = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32), sample_size=16)
    vision = CLIPVisionConfig(
        hidden_size=VISION,
        intermediate_size=64,
        projection_dim=VISION,
        num_attention_heads=2,
        num_hidden_layers=1,
        image_size=32,
        patch_size=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CLIPVisionModelWithProjection(vision).eval()
    size = {"height": 32, "width": 32}
    extractor = CLIPImageProcessor(size=size, crop_size=size)
    parts = {**base.components, "image_encoder": encoder, "feature_extractor": extractor}
    pipe = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(_pipe):
    """Without an adapter, before and after each test."""
    encoder, extractor = _pipe.image_encoder, _pipe.feature_extractor
    yield _pipe
    _pipe.unload_ip_adapter()
    _pipe.image_encoder, _pipe.feature_extractor = encoder, extractor
    assert {type(processor) for processor in _pipe.unet.attn_processors.values()} == {AttnProcessor2_0}
    assert "encode_prompt" not in vars(_pipe)


def weights(unet, seed=0):
    """An IP-Adapter with random weights, as its files have it: numbered by every second layer."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator) * 0.1

    text = unet.config.cross_attention_dim
    adapter = {}
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for i, name in enumerate(names):
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            adapter[f"{2 * i + 1}.{part}.weight"] = random(width, text) * 10
    projection = {
        "proj.weight": random(TOKENS * text, VISION),
        "proj.bias": random(TOKENS * text),
        "norm.weight": torch.ones(text),
        "norm.bias": torch.zeros(text),
    }
    return {"image_proj": projection, "ip_adapter": adapter}


def load(pipe, adapters=1):
    states = [weights(pipe.unet, seed) for seed in range(adapters)]
    pipe.load_ip_adapter(states, subfolder=[""] * adapters, weight_name=[""] * adapters, image_encoder_folder=None)


def embeddings(adapters=1, pictures=1):
    """Of pictures, unconditional ones first, as the pipeline takes them."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, pictures, VISION, generator=generator) for _ in range(adapters)]


def run(pipe, expect=None, **call):
    call = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), "output_type": "latent", **call}
    with warnings.catch_warnings():
        if expect is None:
            warnings.filterwarnings("error", message=".*(text embeddings|attention mask|another tool).*")
            return pipe(PROMPT, **call).images
        with pytest.warns(UserWarning, match=expect):
            return pipe(PROMPT, **call).images


def test_neutral_settings_give_the_stock_image_to_the_bit(pipe):
    load(pipe)
    stock = run(pipe, ip_adapter_image=PICTURE)
    with modulate(pipe, "neutral"):
        assert torch.equal(run(pipe, ip_adapter_image=PICTURE), stock)


def test_the_text_is_modulated_and_the_picture_counts(pipe):
    with modulate(pipe, CONFIG):
        without = run(pipe)
    load(pipe)
    stock = run(pipe, ip_adapter_image=PICTURE)
    with modulate(pipe, CONFIG, maps=True) as handle:
        modulated = run(pipe, ip_adapter_image=PICTURE)
        assert handle.entity_map().ge(0).all()
        assert (modulated - stock).abs().max() > 1e-3
        assert (modulated - without).abs().max() > 1e-3
        pipe.set_ip_adapter_scale(0.0)
        assert torch.equal(run(pipe, ip_adapter_image=PICTURE), without)
        pipe.set_ip_adapter_scale(1.0)
    assert torch.equal(run(pipe, ip_adapter_image=PICTURE), stock)


HALF = torch.tensor([[1.0] * 16 + [0.0] * 16] * 32)
MASKS = [torch.stack([HALF, 1 - HALF])[None]]  # [1, pictures, height, width]
CASES = {
    "one": (1, 1, 0.7, None),
    "several pictures": (1, 2, 0.7, None),
    "two adapters": (2, 1, [0.4, 0.9], None),
    "one of two is off": (2, 1, [0.0, 0.9], None),
    "by block": (1, 1, {"up": {"block_0": [0.0, 0.8]}}, None),
    "masks": (1, 2, 0.7, MASKS),
    "masks with scales": (1, 2, [[0.3, 0.8]], MASKS),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_the_pictures_add_is_what_they_add_in_diffusers(pipe, case):
    """In each layer the output is W (text + pictures) + b: its difference to that without pictures is W pictures."""
    adapters, pictures, scale, masks = case
    load(pipe, adapters)
    given = dict(ip_adapter_image_embeds=embeddings(adapters, pictures), num_inference_steps=1)
    layers = find_layers(pipe.unet)["cross"]
    inputs, outputs = {}, {}

    def record(name):
        def hook(layer, args, kwargs, output):
            inputs.setdefault(name, (args, kwargs))
            outputs[name] = output

        return hook

    def contributions():
        """name -> what the pictures add, for the inputs that the first call of all saw."""
        added = {}
        for name, layer in layers.items():
            args, kwargs = inputs[name]
            kwargs = {**kwargs, "ip_adapter_masks": masks}
            pipe.set_ip_adapter_scale(scale)
            on = layer(*args, **kwargs)
            pipe.set_ip_adapter_scale([0.0] * adapters)
            added[name] = on - layer(*args, **kwargs)
        return added

    hooks = [layer.register_forward_hook(record(name), with_kwargs=True) for name, layer in layers.items()]
    run(pipe, **given)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        expected = contributions()
    with modulate(pipe, CONFIG):
        run(pipe, **given)  # names the rows
        with torch.no_grad():
            actual = contributions()
            assert all(type(layer.processor) is IPAdapterCrossAttentionProcessor for layer in layers.values())
    assert sum(part.abs().max() > 1e-2 for part in expected.values()) >= 1
    for name, part in expected.items():
        assert (actual[name] - part).abs().max() < 1e-4, name


def test_masks_through_the_pipeline(pipe):
    load(pipe)
    given = dict(ip_adapter_image_embeds=embeddings(1, 2), cross_attention_kwargs={"ip_adapter_masks": MASKS})
    stock = run(pipe, **given)
    with modulate(pipe, CONFIG):
        assert (run(pipe, **given) - stock).abs().max() > 1e-3
        with pytest.raises(ValueError, match="2 pictures, 1 masks"):
            run(pipe, **{**given, "cross_attention_kwargs": {"ip_adapter_masks": [MASKS[0][:, :1]]}})
    assert torch.equal(run(pipe, **given), stock)


@pytest.mark.parametrize("preset", ["default", "mask", "temperature"])
def test_loaded_and_unloaded_while_attached(pipe, preset):
    stock = run(pipe)
    load(pipe)
    with_pictures = run(pipe, ip_adapter_image=PICTURE)
    with modulate(pipe, preset):
        expected = run(pipe, ip_adapter_image=PICTURE)
    encoder, extractor = pipe.image_encoder, pipe.feature_extractor
    pipe.unload_ip_adapter()
    pipe.image_encoder, pipe.feature_extractor = encoder, extractor

    with modulate(pipe, preset):
        without = run(pipe)
        load(pipe)
        told = "another tool has replaced attention processors.*modulation goes on"
        assert torch.equal(run(pipe, told, ip_adapter_image=PICTURE), expected)
        assert torch.equal(run(pipe, ip_adapter_image=PICTURE), expected)  # told once
        pipe.unload_ip_adapter()
        pipe.image_encoder, pipe.feature_extractor = encoder, extractor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.equal(run(pipe), without)
        load(pipe)
    # nothing was called since loading: diffusers has made processors of our class, and they are gone too
    assert not any(isinstance(processor, ModulatedProcessor) for processor in pipe.unet.attn_processors.values())
    assert torch.equal(run(pipe, ip_adapter_image=PICTURE), with_pictures)
    pipe.unload_ip_adapter()
    pipe.image_encoder, pipe.feature_extractor = encoder, extractor
    assert torch.equal(run(pipe), stock)


def test_the_adapter_keeps_its_place_among_the_modules(pipe):
    """So that moving, offloading and saving reach its weights."""
    load(pipe)
    keys, processors = list(pipe.unet.state_dict()), dict(pipe.unet.attn_processors)
    with modulate(pipe, CONFIG):
        assert list(pipe.unet.state_dict()) == keys
        pipe.to(torch.bfloat16)
        assert run(pipe, ip_adapter_image=PICTURE).isfinite().all()
        pipe.to(torch.float32)
    assert pipe.unet.attn_processors == processors
    assert any(isinstance(processor, IPAdapterAttnProcessor2_0) for processor in processors.values())


def test_processors_can_be_made_without_arguments(pipe):
    """As diffusers makes them, by class; such a one computes what diffusers' own does."""
    states = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 77, 128, generator=torch.Generator().manual_seed(1))
    layers = {kind: next(iter(found.values())) for kind, found in find_layers(pipe.unet).items()}
    for make, layer, *given in (
        (SelfAttentionProcessor, layers["self"]),
        (CrossAttentionProcessor, layers["cross"], text),
        (IPAdapterCrossAttentionProcessor, layers["cross"], text),
    ):
        with torch.no_grad():
            assert torch.equal(make()(layer, states, *given), AttnProcessor2_0()(layer, states, *given))
