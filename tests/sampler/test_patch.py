"""Attaching, neutrality to the bit, and leaving no trace."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from attnmod import ModulationConfig, modulate
from attnmod.benchmarks.shapes import SDXL_UNET
from attnmod.kernels import reference
from attnmod.sampler.layers import find_layers
from attnmod.sampler.patch import current_handle
from attnmod.sampler.untrained import sdxl_shaped_pipeline
from tests.handwired import colour_latents, wish_latents
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close, run


class Bare:
    """The least that modulate needs of a pipeline."""

    def __init__(self, unet):
        self.unet = unet

    def encode_prompt(self, prompt):
        raise NotImplementedError


@pytest.fixture(scope="module")
def untrained():
    """Random weights: every layer does something."""
    pipe = sdxl_shaped_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe, prompt=PROMPT, **call):
    call = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(0), **call}
    return pipe(prompt, width=128, height=128, output_type="pt", **call).images


def test_all_layers_of_sdxl_are_found():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_UNET)
    layers = find_layers(unet)
    assert {kind: len(found) for kind, found in layers.items()} == {"self": 70, "cross": 70}
    with modulate(Bare(unet)) as handle:
        assert len(handle.self_attention_layers) == len(handle.cross_attention_layers) == 70
        replaced = sum(type(p).__module__.startswith("attnmod") for p in unet.attn_processors.values())
    assert replaced == 140
    assert {type(processor) for processor in unet.attn_processors.values()} == {AttnProcessor2_0}


# -- neutral


@pytest.mark.parametrize("prompt", [PROMPT, ["a cat", "a red dog and a cat"]])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_neutral_settings_give_stock_images_to_the_bit(untrained, prompt, guidance):
    stock = picture(untrained, prompt, guidance_scale=guidance)
    with modulate(untrained, "neutral"):
        assert torch.equal(picture(untrained, prompt, guidance_scale=guidance), stock)


def test_an_empty_prompt_gives_stock_images_to_the_bit(untrained):
    stock = picture(untrained, "")
    with modulate(untrained) as handle:
        assert torch.equal(picture(untrained, ""), stock)
        assert not handle._state.self_attention_active, "decided on the host: the pipeline's own processors ran"
        assert not handle._state.cross_attention_active


def test_a_mechanism_that_is_off_leaves_its_layers_alone(untrained):
    with modulate(untrained, "mask"):
        layers = find_layers(untrained.unet)
        assert {type(layer.processor) for layer in layers["self"].values()} == {AttnProcessor2_0}
        assert {type(layer.processor).__name__ for layer in layers["cross"].values()} == {"CrossAttentionProcessor"}


@pytest.mark.parametrize("preset", ["temperature", "mask", "default"])
def test_modulation_changes_the_image_and_the_same_seed_repeats_it(untrained, preset):
    stock = picture(untrained)
    with modulate(untrained, preset):
        first, second = picture(untrained), picture(untrained)
    assert torch.equal(first, second)
    assert (first - stock).abs().max() > 1e-3
    with modulate(untrained, preset, maps=True):
        assert torch.equal(picture(untrained), first), "counting owners must not change the image"


def test_a_row_does_not_depend_on_its_neighbours(untrained):
    """The prompt alone, and as one of two: the same image up to the rounding of other batch sizes."""
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with modulate(untrained):
        alone = picture(untrained, PROMPT, latents=latents[:1])
        pair = picture(untrained, [PROMPT, "three green birds, a cat and a dog"], latents=latents)
    assert (pair[0] - alone[0]).abs().max() < 1e-4


# -- the temperature, against processors that spell it out


class SpelledOut:
    """softmax(q k^T scale / tau) v for the rows from `first` on, written down as the definition has it."""

    def __init__(self, tau, first):
        self.tau, self.first = tau, first

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        q, k, v = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        tau = torch.ones(len(q))
        tau[self.first :] = self.tau
        return attn.to_out[0](reference.self_attention(q, k, v, temperature=tau).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("rows", "first"), [("conditional", 1), ("all", 0)])
def test_temperature_reaches_the_rows_it_is_meant_for(untrained, rows, first):
    config = ModulationConfig(temperature=0.4, temperature_rows=rows, hidden_weight=1, global_weight=1, detail_weight=1)
    with modulate(untrained, config):
        modulated = picture(untrained)
    layers = find_layers(untrained.unet)["self"].values()
    before = [layer.processor for layer in layers]
    for layer in layers:
        layer.processor = SpelledOut(0.4, first)
    expected = picture(untrained)
    for layer, processor in zip(layers, before, strict=True):
        layer.processor = processor
    assert (modulated - expected).abs().max() < 1e-4
    assert (picture(untrained) - expected).abs().max() > 1e-3


# -- no trace


def test_everything_is_put_back(handwired):
    stock = run(handwired, PROMPT, steps=2, guidance=3.0)
    handle = modulate(handwired, maps=True)
    assert current_handle(handwired) is handle
    run(handwired, PROMPT, steps=2, guidance=3.0)
    handle.remove()
    handle.remove()
    assert current_handle(handwired) is None
    assert "encode_prompt" not in vars(handwired)
    assert torch.equal(run(handwired, PROMPT, steps=2, guidance=3.0), stock)


def test_also_when_the_pipeline_raises(handwired):
    def fail(*_):
        raise RuntimeError("the user's own error")

    stock = run(handwired, PROMPT)
    with pytest.raises(RuntimeError, match="the user's own error"), modulate(handwired):
        run(handwired, PROMPT, steps=2, callback_on_step_end=fail)
    assert torch.equal(run(handwired, PROMPT), stock)


def test_a_handle_outlives_a_failed_run(handwired):
    def fail(*_):
        raise RuntimeError("stop")

    with modulate(handwired, MASK):
        expected = run(handwired, PROMPT, steps=3)
        with pytest.raises(RuntimeError, match="stop"):
            run(handwired, "a green cone", steps=3, callback_on_step_end=fail)
        assert torch.equal(run(handwired, PROMPT, steps=3), expected)


def test_an_encode_prompt_of_the_users_own_comes_back(handwired):
    original = handwired.encode_prompt
    handwired.encode_prompt = lambda *args, **kwargs: original(*args, **kwargs)
    own = handwired.encode_prompt
    try:
        with modulate(handwired, MASK):
            picture = run(handwired, PROMPT)[0]
        assert close(picture, colour_latents(HALVES))
        assert handwired.encode_prompt is own
    finally:
        del handwired.encode_prompt


def test_processors_that_another_tool_put_in_stay(handwired):
    handle = modulate(handwired, MASK)
    layer = next(iter(find_layers(handwired.unet)["cross"].values()))
    ours, theirs = layer.processor, AttnProcessor()
    layer.processor = theirs
    with pytest.warns(UserWarning, match="another tool has replaced"):
        run(handwired, PROMPT)
    handle.remove()
    assert layer.processor is theirs
    layer.processor = ours.original


def test_attaching_again_replaces(handwired):
    first = modulate(handwired, MASK)
    with modulate(handwired, "temperature") as second:
        assert current_handle(handwired) is second
        with pytest.raises(RuntimeError, match="removed"):
            first.update("mask")
        first.remove()  # does nothing: it is removed
        assert current_handle(handwired) is second


def test_two_pipelines_do_not_fight_over_one_unet(handwired):
    other = StableDiffusionXLPipeline(**handwired.components)
    with modulate(handwired, MASK), pytest.raises(ValueError, match="another pipeline"):
        modulate(other)
    with modulate(other, MASK):
        pass


def test_update_changes_the_settings_or_keeps_the_old_ones(handwired):
    stock = run(handwired, PROMPT)
    with modulate(handwired, MASK) as handle:
        masked = run(handwired, PROMPT)
        handle.update("neutral")
        assert torch.equal(run(handwired, PROMPT), stock)
        handle.update(MASK)
        assert torch.equal(run(handwired, PROMPT), masked)
        with pytest.raises(ValueError, match="match none"):
            handle.update(ModulationConfig(cross_attention_layers=("nowhere.*",)))
        assert handle.config == MASK
        assert torch.equal(run(handwired, PROMPT), masked)


# -- layers


def test_layers_by_pattern(handwired):
    config = ModulationConfig(self_attention_layers=(), cross_attention_layers=("mid_block.*", "*.attentions.1.*"))
    with modulate(handwired, config) as handle:
        assert handle.self_attention_layers == ()
        assert handle.cross_attention_layers == (
            "up_blocks.0.attentions.1.transformer_blocks.0.attn2",
            "mid_block.attentions.0.transformer_blocks.0.attn2",
        )


def test_patterns_are_anchored(handwired):
    with pytest.raises(ValueError, match=r"attentions\.1.*match none of the UNet's 4 cross-attention layers"):
        modulate(handwired, ModulationConfig(cross_attention_layers=("attentions.1",)))


# -- bad input


def test_something_else_than_a_pipeline():
    for wrong in (None, torch.nn.Linear(2, 2), object()):
        with pytest.raises(TypeError, match="modulate needs a diffusers pipeline"):
            modulate(wrong)


def test_a_wrong_config(handwired):
    with pytest.raises(TypeError, match="dict"):
        modulate(handwired, {"temperature": 1})
    with pytest.raises(ValueError, match="'fast'"):
        modulate(handwired, "fast")


def test_a_processor_of_another_tool_is_named(handwired):
    class Foreign(AttnProcessor2_0):
        pass

    layer = next(iter(find_layers(handwired.unet)["self"].values()))
    before, layer.processor = layer.processor, Foreign()
    try:
        with pytest.raises(ValueError, match=r"attn1 has the processor Foreign of another tool"):
            modulate(handwired)
    finally:
        layer.processor = before


def test_an_attention_mask_is_not_ignored_silently(handwired):
    with modulate(handwired, MASK), torch.no_grad():
        embeddings, _, pooled, _ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        call = dict(encoder_attention_mask=torch.ones(1, 77), added_cond_kwargs=conditions)
        with pytest.warns(UserWarning, match="attention mask"):
            handwired.unet(wish_latents(HALVES), 500, embeddings, **call)


def test_entity_map_says_what_it_needs(handwired):
    with modulate(handwired, MASK) as handle, pytest.raises(RuntimeError, match="maps=True"):
        handle.entity_map()
    with modulate(handwired, MASK, maps=True) as handle, pytest.raises(RuntimeError, match="no modulated run"):
        handle.entity_map()


def test_fused_projections(untrained):
    with modulate(untrained):
        expected = picture(untrained)
    untrained.fuse_qkv_projections(vae=False)
    try:
        with modulate(untrained):
            assert (picture(untrained) - expected).abs().max() < 1e-4
    finally:
        untrained.unfuse_qkv_projections(vae=False)
