"""Every pipeline with every tool: each pair runs on a small model, attached after the tool and removed again."""

import copy
import dataclasses
import warnings

import pytest
import torch

from attnmod import ModulationConfig, modulate
from tests.sampler.test_ip_adapter import VISION, weights
from tests.sampler.test_offload import offload_models, offload_modules
from tests.sampler.test_pipelines import (
    base,  # noqa: F401  a fixture
    controlnet,
    image_to_image,
    inpainting,
    refiner,
    stable_diffusion_1,
    stable_diffusion_2,
    text_to_image,
)

PROMPT = "a red cube and a blue sphere"
CONFIG = dataclasses.replace(ModulationConfig.preset("described"), temperature=0.5)
PIPELINES = {
    text_to_image: "SDXL text-to-image",
    image_to_image: "SDXL img2img",
    inpainting: "SDXL inpainting",
    controlnet: "SDXL ControlNet",
    refiner: "SDXL refiner",
    stable_diffusion_1: "SD 1.5",
    stable_diffusion_2: "SD 2.1",
}


def lora(pipe):
    """An adapter on every projection; its scale is set by the call."""
    peft = pytest.importorskip("peft")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))
    return {"cross_attention_kwargs": {"scale": 0.7}}


def ip_adapter(pipe):
    pipe.load_ip_adapter([weights(pipe.unet)], subfolder=[""], weight_name=[""], image_encoder_folder=None)
    return {"ip_adapter_image_embeds": [torch.ones(2, 1, VISION)]}


def freeu(pipe):
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)


def fused_qkv(pipe):
    pipe.unet.fuse_qkv_projections()


def tomesd(pipe):
    pytest.importorskip("tomesd").apply_patch(pipe, ratio=0.5, use_rand=False)


def deepcache(pipe):
    helper = pytest.importorskip("DeepCache").DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()


def moved_to_bf16(pipe):
    pipe.to(torch.bfloat16)


TOOLS = {
    lora: "LoRA (peft), scaled by the call",
    ip_adapter: "IP-Adapter",
    freeu: "FreeU",
    fused_qkv: "fused QKV",
    tomesd: "tomesd",
    deepcache: "DeepCache",
    offload_models: "model offload",
    offload_modules: "sequential offload",
    moved_to_bf16: "pipe.to(bf16)",
}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
@pytest.mark.parametrize("make", PIPELINES, ids=lambda make: make.__name__)
def test_pair(base, make, tool):  # noqa: F811
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe, call = make(base)
        # A tool may do what it likes to the models: they are this test's own.
        for name, part in pipe.components.items():
            if isinstance(part, torch.nn.Module) and name in OWN.get(tool, ("unet",)):
                setattr(pipe, name, copy.deepcopy(part))
        pipe.set_progress_bar_config(disable=True)
        given = tool(pipe) or {}

    def run():
        call_now = dict(num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="latent")
        return pipe(PROMPT, **call_now, **call, **given).images

    stock = run()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(text embeddings|attention mask|another tool).*")
        with modulate(pipe, CONFIG, maps=True) as handle:
            modulated = run()
            owned = handle.entity_map().ge(0).float().mean()
    assert owned > 0.5
    assert modulated.isfinite().all()
    assert (modulated - stock).abs().max() > 1e-3
    assert torch.equal(run(), stock)


EVERYTHING = ("unet", "vae", "text_encoder", "text_encoder_2", "controlnet")
OWN = {moved_to_bf16: EVERYTHING, offload_models: EVERYTHING}
