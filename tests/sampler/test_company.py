"""Other tools on the same pipeline: what works together, and what is refused with a message."""

import dataclasses
import warnings

import pytest
import torch

from attnmod import ModulationConfig, modulate
from attnmod.sampler.untrained import sdxl_shaped_pipeline

PROMPT = "a red cube and a blue sphere"
CONFIG = dataclasses.replace(ModulationConfig.preset("described"), temperature=0.5)


@pytest.fixture
def pipe():
    pipe = sdxl_shaped_pipeline(
        channels=(64, 64, 64), transformer_layers=(1, 1, 1), vae_channels=(32, 32), sample_size=16
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, prompt=PROMPT, **call):
    call = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(0), "output_type": "latent", **call}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(text embeddings|attention mask|another tool).*")
        return pipe(prompt, **call).images


def works_beside(pipe, attach, detach, run=run):
    """Modulation changes what the tool makes, in either order of attaching, and leaves the tool as it was."""
    plain = run(pipe)
    attach()
    stock = run(pipe)
    with modulate(pipe, CONFIG, maps=True) as handle:
        modulated = run(pipe)
        assert handle.entity_map().shape[0] == 1
    assert (modulated - stock).abs().max() > 1e-3
    assert torch.equal(run(pipe), stock)
    detach()
    with modulate(pipe, CONFIG):
        attach()
        assert torch.equal(run(pipe), modulated)
        detach()
    assert torch.equal(run(pipe), plain)


def test_freeu(pipe):
    works_beside(pipe, lambda: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4), pipe.disable_freeu)


def test_tomesd(pipe):
    tomesd = pytest.importorskip("tomesd")
    works_beside(pipe, lambda: tomesd.apply_patch(pipe, ratio=0.5, use_rand=False), lambda: tomesd.remove_patch(pipe))


@pytest.mark.parametrize("config", ["described", "default"])
def test_tomesd_that_merges_the_patches_that_attend_to_the_text(pipe, config):
    """Merged patches vote by their layers, and have no place in a map."""
    tomesd = pytest.importorskip("tomesd")
    config = dataclasses.replace(ModulationConfig.preset(config), hidden_weight=0.0)
    tomesd.apply_patch(pipe, ratio=0.5, use_rand=False, merge_crossattn=True, max_downsample=2)
    with modulate(pipe, config, maps=True) as handle, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*merged the patches.*")
        masked = pipe(PROMPT, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="latent")
        layers = {name for call in handle._state.record._calls for names, _ in call.owners.values() for name in names}
        assert handle.entity_map().shape == (1, 8, 8)
    assert torch.isfinite(masked.images).all()
    assert len(layers) < len(handle.cross_attention_layers)


def test_deepcache(pipe):
    deepcache = pytest.importorskip("DeepCache")
    helper = deepcache.DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    works_beside(pipe, helper.enable, helper.disable)


def test_compel(pipe):
    """Its embeddings are its own: they run plain until they are named."""
    compel = pytest.importorskip("compel")
    embeds = compel.CompelForSDXL(pipe)("a (red)1.4 cube and a blue sphere")
    given = dict(
        prompt_embeds=embeds.embeds,
        pooled_prompt_embeds=embeds.pooled_embeds,
        negative_prompt_embeds=embeds.negative_embeds,
        negative_pooled_prompt_embeds=embeds.negative_pooled_embeds,
    )
    stock = run(pipe, None, **given)
    with modulate(pipe, CONFIG) as handle:
        with pytest.raises(UserWarning, match="set_prompt"):
            run(pipe, None, **given)
        handle.set_prompt(PROMPT, embeds.embeds)
        modulated = run(pipe, None, **given, guidance_scale=1.0)
    assert (modulated - stock).abs().max() > 1e-3


def test_textual_inversion_of_several_vectors(pipe):
    """The pipeline rewrites the text before it is tokenised; the entity gets all of the concept's tokens."""
    vectors = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion({"<gadget>": vectors}, tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)
    pipe.load_textual_inversion({"<gadget>": vectors}, tokenizer=pipe.tokenizer_2, text_encoder=pipe.text_encoder_2)
    with modulate(pipe, CONFIG) as handle:
        handle.set_prompt("a <gadget> and a blue sphere", entities=[["a <gadget>"], ["a blue sphere"]])
        run(pipe, "a <gadget> and a blue sphere")
        tokens = handle.prompts[0].tokens
    assert [token.entities for token in tokens[1:9]] == [(0,)] * 4 + [()] + [(1,)] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moved_to_another_dtype_while_attached(pipe, dtype):
    with modulate(pipe, CONFIG) as handle:
        run(pipe)
        pipe.to(dtype)
        latents = run(pipe)
        assert latents.dtype == dtype
        assert latents.isfinite().all()
        assert handle.stats()["projections_made"] > 0


def test_slicing_and_other_processors_put_in_later_are_told_of(pipe):
    with modulate(pipe, CONFIG):
        pipe.enable_attention_slicing()
        with pytest.raises(UserWarning, match="another tool has replaced"):
            run(pipe)


def test_processors_of_another_tool_are_refused(pipe):
    pipe.enable_attention_slicing()
    with pytest.raises(ValueError, match="SlicedAttnProcessor of another tool"):
        modulate(pipe)
