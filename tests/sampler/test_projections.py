"""Keys and values of the text: projected once per run, never stale, under the right LoRA scale."""

import dataclasses

import pytest
import torch

from attnmod import ModulationConfig, modulate
from attnmod.sampler.layers import find_layers
from attnmod.sampler.untrained import sdxl_shaped_pipeline
from tests.sampler.test_compile import images

PROMPT = "a red cube and a blue sphere"


@pytest.fixture
def pipe():
    pipe = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 2), vae_channels=(32, 32), sample_size=8)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def cross_layers(pipe):
    return list(find_layers(pipe.unet)["cross"].values())


def test_once_per_run(pipe):
    layers = len(cross_layers(pipe))
    with modulate(pipe) as handle:
        assert handle.stats() == {"projection_bytes": 0, "projections_made": 0, "projections_saved": 0}
        images(pipe, PROMPT, num_inference_steps=5)
        assert handle.stats()["projections_made"] == 2 * layers
        assert handle.stats()["projections_saved"] == 2 * layers * 4
        one_run = handle.stats()["projection_bytes"]
        assert one_run == layers * 2 * (2 * 77 * 64) * 4  # key and value, two rows of 77 tokens, 64 channels, float32
        images(pipe, "a cat", num_inference_steps=5)
        assert handle.stats()["projections_made"] == 2 * 2 * layers
        assert handle.stats()["projection_bytes"] == one_run, "the memory of the last run is used again"


def test_the_stock_projections_run_once_only(pipe):
    calls = []
    for layer in cross_layers(pipe):
        layer.to_k.register_forward_hook(lambda *_: calls.append(1))
    images(pipe, PROMPT, num_inference_steps=4)
    assert len(calls) == 4 * len(cross_layers(pipe))
    calls.clear()
    with modulate(pipe):
        images(pipe, PROMPT, num_inference_steps=4)
    assert len(calls) == len(cross_layers(pipe))


def test_weights_changed_between_runs_are_seen(pipe):
    """Also where no version counter tells of it, and the embeddings are the very same tensor."""
    embeddings, negative, pooled, negative_pooled = pipe.encode_prompt(PROMPT)
    given = dict(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative,
        pooled_prompt_embeds=pooled,
        negative_pooled_prompt_embeds=negative_pooled,
        guidance_scale=1.0,
    )
    with modulate(pipe) as handle:
        handle.set_prompt(PROMPT, embeddings)
        before = images(pipe, None, **given)
        for layer in cross_layers(pipe):
            layer.to_k.weight.data *= 1.5
            layer.to_v.weight.data *= 0.5
        after = images(pipe, None, **given)
    with modulate(pipe) as handle:
        handle.set_prompt(PROMPT, embeddings)
        expected = images(pipe, None, **given)
    assert torch.equal(after, expected)
    assert not torch.allclose(after, before)


@torch.no_grad()
def test_a_hand_written_loop_with_the_same_embeddings(pipe):
    """Its runs are told apart by the timestep alone: it begins anew."""
    with modulate(pipe) as handle:
        embeddings, _, pooled, _ = pipe.encode_prompt(PROMPT)
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

        def run():
            return [pipe.unet(sample, t, embeddings, added_cond_kwargs=conditions).sample for t in (900, 500, 100)]

        first, second = run(), run()
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert handle.stats()["projections_made"] == 2 * 2 * len(cross_layers(pipe))
        for layer in cross_layers(pipe):
            layer.to_v.weight.data *= 0.5
        assert not torch.allclose(run()[0], first[0])


@pytest.fixture
def lora(pipe):
    """An adapter on every cross-attention projection, with weights that matter."""
    peft = pytest.importorskip("peft")
    pipe.unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=["attn2.to_k", "attn2.to_v"]), "first")
    pipe.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["attn2.to_k", "attn2.to_v"]), "second")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return pipe


def merged(pipe, adapter, scale):
    """The same pipeline with the adapter's product added to the weights: what a LoRA of this scale means."""
    weights = {}
    for layer in cross_layers(pipe):
        for part in (layer.to_k, layer.to_v):
            weights[part] = part.base_layer.weight.data.clone()
            part.base_layer.weight.data += scale * part.lora_B[adapter].weight @ part.lora_A[adapter].weight
    pipe.unet.disable_adapters()
    with modulate(pipe):
        picture = images(pipe, PROMPT)
    pipe.unet.enable_adapters()
    for part, weight in weights.items():
        part.base_layer.weight.data = weight
    return picture


def test_lora_scale_of_this_call_and_adapters_switched_between_calls(lora):
    expected = {
        (adapter, scale): merged(lora, adapter, scale)
        for adapter, scale in (("first", 1.0), ("first", 0.5), ("second", 1.0), ("first", 0.0))
    }
    with modulate(lora):
        for adapter, scale in (("first", 1.0), ("first", 0.5), ("second", 1.0), ("first", 0.0), ("first", 1.0)):
            lora.unet.set_adapter(adapter)
            picture = images(lora, PROMPT, cross_attention_kwargs={"scale": scale})
            assert (picture - expected[adapter, scale]).abs().max() < 1e-4, (adapter, scale)
    assert (expected["first", 1.0] - expected["first", 0.5]).abs().max() > 1e-3
    assert (expected["first", 1.0] - expected["second", 1.0]).abs().max() > 1e-3


@torch.no_grad()
def test_lora_scale_changed_in_mid_run(lora):
    embeddings, _, pooled, _ = lora.encode_prompt(PROMPT)
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def step(t, scale):
        call = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}}
        return lora.unet(sample, t, embeddings, cross_attention_kwargs={"scale": scale}, **call).sample

    def after(*first):
        with modulate(lora, dataclasses.replace(ModulationConfig.preset("mask"), balanced=False)) as handle:
            handle.set_prompt(PROMPT, embeddings)
            for t, scale in first:
                step(t, scale)
            return step(500, 0.5)

    # without balancing a step has no memory of the one before
    with_other_scale, with_same_scale = after((900, 1.0)), after((900, 0.5))
    assert (with_other_scale - with_same_scale).abs().max() < 1e-5
    assert (step(500, 1.0) - step(500, 0.5)).abs().max() > 1e-2


def test_weights_that_are_brought_in_for_the_call(pipe):
    """accelerate's offloading keeps the weights elsewhere and loads each module's when it runs."""
    accelerate = pytest.importorskip("accelerate")
    with modulate(pipe):
        expected = images(pipe, PROMPT)
    accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    assert cross_layers(pipe)[0].to_k.weight.device.type == "meta"
    with modulate(pipe):
        assert torch.equal(images(pipe, PROMPT), expected)


def test_a_model_that_is_brought_in_as_a_whole(pipe):
    """As model offloading does, by a hook around the UNet's forward: before it the weights are somewhere else."""
    hooks = pytest.importorskip("accelerate.hooks")
    weights = {name: parameter.data.clone() for name, parameter in pipe.unet.named_parameters()}

    class BringIn(hooks.ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            for name, parameter in module.named_parameters():
                parameter.data.copy_(weights[name])
            return args, kwargs

        def post_forward(self, module, output):
            for parameter in module.parameters():
                parameter.data.fill_(torch.nan)
            return output

    with modulate(pipe):
        expected = images(pipe, PROMPT)
    hooks.add_hook_to_module(pipe.unet, BringIn())
    with modulate(pipe):
        images(pipe, "a cat")  # leaves the weights somewhere else
        assert torch.equal(images(pipe, PROMPT), expected)


def test_rows_of_zeros_are_marked_as_texts_without_tokens(pipe):
    """SDXL's empty negative prompt: the kernels write zeros for such a row and read nothing."""
    with modulate(pipe, ModulationConfig.preset("mask")) as handle:
        picture = images(pipe, PROMPT)
        weights = handle._state.rows.log_weights
        assert weights[0].eq(-torch.inf).all()
        assert weights[1].isfinite().all()
    assert picture.isfinite().all()
