"""Whatever goes wrong, nothing is left behind: a failed `modulate`, an error in the pipeline, a late removal."""

import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0, FusedAttnProcessor2_0

from attnmod import modulate
from attnmod.sampler import patch
from attnmod.sampler.layers import find_layers
from attnmod.sampler.patch import current_handle
from attnmod.sampler.processor import ModulatedProcessor
from attnmod.sampler.untrained import sdxl_shaped_pipeline
from tests.handwired import colour_latents
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close, run


class Injected(Exception):
    pass


class Bare:
    """The least that modulate needs of a pipeline."""

    def __init__(self, unet):
        self.unet = unet
        self.scheduler = SimpleNamespace(config={"num_train_timesteps": 4})

    def encode_prompt(self, prompt):
        raise NotImplementedError


@pytest.fixture(scope="module")
def bare():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=1,
            cross_attention_dim=8,
            norm_num_groups=8,
        )
    return Bare(unet)


def trace_of(pipe) -> dict:
    """All that modulate touches."""
    unet = pipe.unet
    return {
        "processors": {name: id(processor) for name, processor in unet.attn_processors.items()},
        "layers": {name: sorted(vars(layer)) for name, layer in unet.named_modules() if hasattr(layer, "processor")},
        "hooks": [*unet._forward_pre_hooks.items(), *unet._forward_hooks.items()],
        "hook options": [*unet._forward_pre_hooks_with_kwargs, *unet._forward_hooks_with_kwargs],
        "pipeline": {name: id(value) for name, value in vars(pipe).items()},
        "registered": current_handle(pipe),
    }


# What takes things off again is not broken into: the question is whether it comes to work.
WAY_BACK = {"remove", "take_out", "stop", "stand_aside", "own_processor"}
FILES = {str(Path(patch.__file__).with_name(f"{name}.py")) for name in ("patch", "installed", "encoding", "layers")}


def lines_of(act):
    """Every (file, line) of the sampler that runs, and how often."""
    seen = Counter()
    with_tracing(act, lambda place: seen.update([place]))
    return seen


def fail_at(act, place, time):
    """Run, and raise before the given line runs for the given time."""
    seen = Counter()

    def count(now):
        seen.update([now])
        if now == place and seen[now] == time:
            raise Injected

    with_tracing(act, count)


def with_tracing(act, at_line):
    def local(frame, event, argument):
        if event == "line":
            at_line((frame.f_code.co_filename, frame.f_lineno))
        return local

    def start(frame, event, argument):
        code = frame.f_code
        return local if code.co_filename in FILES and code.co_name not in WAY_BACK else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        act()
    finally:
        sys.settrace(before)


def test_a_modulate_that_fails_at_any_line_leaves_nothing_behind(bare):
    places = lines_of(lambda: modulate(bare))
    current_handle(bare).remove()
    assert len(places) > 50
    before = trace_of(bare)
    assert before["registered"] is None
    for place, times in places.items():
        for time in {1, times}:
            with pytest.raises(Injected):
                fail_at(lambda: modulate(bare), place, time)
            assert trace_of(bare) == before, place
    with modulate(bare) as handle:
        assert len(handle.self_attention_layers) == len(handle.cross_attention_layers) == 4


def test_a_replacement_or_an_update_that_fails_leaves_the_old_one_at_work(bare):
    with modulate(bare, MASK) as handle:
        acts = {"modulate": lambda: modulate(bare, "temperature"), "update": lambda: handle.update("temperature")}
        for name, act in acts.items():
            if name == "modulate":
                places = lines_of(lambda: modulate(bare, "temperature"))
                current_handle(bare).remove()
                handle._attach(MASK)
            else:
                places = lines_of(act)
                handle.update(MASK)
            for place, times in places.items():
                with pytest.raises(Injected):
                    fail_at(act, place, times)
                assert current_handle(bare) is handle, place
                assert handle.config == MASK
                ours = [layer.processor for layer in find_layers(bare.unet)["cross"].values()]
                assert all(processor.state is handle._state for processor in ours), place
                assert len(bare.unet._forward_pre_hooks) == len(bare.unet._forward_hooks) == 1, place
    assert {type(processor) for processor in bare.unet.attn_processors.values()} == {AttnProcessor2_0}
    assert not bare.unet._forward_pre_hooks
    assert "encode_prompt" not in vars(bare)


# -- while a pipeline runs


def fail_in(module, monkeypatch):
    def fail(*args, **kwargs):
        raise Injected

    monkeypatch.setattr(module, "forward", fail)


@pytest.mark.parametrize("part", ["text_encoder_2", "unet.up_blocks.0.attentions.1", "vae.decoder"])
def test_an_exception_inside_the_pipeline(handwired, monkeypatch, part):
    """The next run is as if nothing had happened, and after removal the pipeline is stock to the bit."""
    stock = run(handwired, PROMPT)
    component, _, inner = part.partition(".")
    with modulate(handwired, MASK, maps=True) as handle:
        with monkeypatch.context() as broken:
            fail_in(getattr(handwired, component).get_submodule(inner), broken)
            with pytest.raises(Injected):
                handwired("a green cone", num_inference_steps=1, height=32, width=32)
        assert close(run(handwired, PROMPT)[0], colour_latents(HALVES))
        assert handle.entity_map()[0, 0].tolist() == [0] * 4 + [1] * 4
    assert torch.equal(run(handwired, PROMPT), stock)


# -- processors that someone else has kept


def test_processors_put_back_after_removal_change_nothing(handwired):
    """A tool that takes all processors before its run and puts them back after it may do so too late for us."""
    stock = run(handwired, PROMPT, guidance=2.0)
    own = dict(handwired.unet.attn_processors)
    with modulate(handwired):
        run(handwired, PROMPT, guidance=2.0)
        kept = dict(handwired.unet.attn_processors)
    handwired.unet.set_attn_processor(dict(kept))
    assert torch.equal(run(handwired, PROMPT, guidance=2.0), stock)
    with modulate(handwired, MASK):  # and the next handle does not stand in for them
        assert close(run(handwired, PROMPT)[0], colour_latents(HALVES))
    assert handwired.unet.attn_processors == own


@pytest.fixture
def untrained():
    pipe = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32), sample_size=8)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_projections_fused_while_attached(untrained):
    """It puts in processors of its own: said once, and ours go on around them."""

    def latents():
        generator = torch.Generator().manual_seed(0)
        return untrained(PROMPT, num_inference_steps=2, output_type="latent", generator=generator).images

    with modulate(untrained):
        expected = latents()
        untrained.fuse_qkv_projections(vae=False)
        with pytest.warns(
            UserWarning, match=r"another tool has replaced.*in 8 layers.*modulation goes on around these"
        ):
            assert (latents() - expected).abs().max() < 1e-4
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert (latents() - expected).abs().max() < 1e-4
    assert {type(processor) for processor in untrained.unet.attn_processors.values()} == {FusedAttnProcessor2_0}


def test_projections_fused_while_attached_and_unfused_after_removal(untrained):
    handle = modulate(untrained)
    untrained.fuse_qkv_projections(vae=False)
    handle.remove()
    untrained.unfuse_qkv_projections(vae=False)
    assert not any(isinstance(processor, ModulatedProcessor) for processor in untrained.unet.attn_processors.values())
