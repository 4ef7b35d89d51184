"""What modulation costs a whole UNet: stock against attached and neutral, everything on, and materialised maps.

    python -m benchmarks.bench_unet                        # a small UNet on this CPU
    python -m benchmarks.bench_unet --model sdxl --device cuda --dtype float16    # SDXL's own, random weights

A provider's figure is the time of one denoising step in a run of --steps, everything the caller pays included:
matching the rows, projecting the text, setting the step's values. The providers take turns in one process, and the
ratios are taken turn by turn, so that a machine whose speed drifts does not favour one of them. "maps" is how like
systems work: an eager processor that writes the attention maps to memory and edits them there (the same mask).
"""

import argparse
import contextlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import attnmod
from attnmod import ModulationConfig, Prompt, align_tokens, modulate
from attnmod.benchmarks.shapes import SDXL_UNET
from attnmod.kernels.ops import cross_attention, self_attention
from attnmod.sampler.conditioning import condition_rows
from attnmod.sampler.layers import find_layers
from attnmod.sampler.untrained import sdxl_shaped_pipeline

RESULTS = Path(__file__).parent / "results"
ENTITIES = [["a boy wearing a red hat"], ["a red hat"], ["two striped cats"]]
TEXT = "a boy wearing a red hat in front of two striped cats at night"

# name -> (UNet options, latents each way); None takes the small pipeline's UNet
MODELS: dict[str, tuple[dict[str, Any] | None, int]] = {
    "small": (None, 32),
    "sdxl": (SDXL_UNET, 128),
}


class Denoiser:
    """A UNet with the inputs of a guided call, and just enough of a pipeline for `modulate`."""

    def __init__(self, model: str, device: str, dtype: torch.dtype):
        options, size = MODELS[model]
        pipe = sdxl_shaped_pipeline()
        if options is not None:
            with torch.device(device):
                pipe.register_modules(unet=UNet2DConditionModel(**options).eval())
        self.unet: Any = pipe.unet.to(device=device, dtype=dtype)
        self.tokenizer, self.scheduler = pipe.tokenizer, pipe.scheduler
        config = self.unet.config
        generator = torch.Generator().manual_seed(0)
        self.sample = torch.randn(2, 4, size, size, generator=generator).to(device, dtype)
        text = torch.randn(1, 77, config.cross_attention_dim, generator=generator).to(device, dtype)
        self.embeddings = torch.cat([torch.zeros_like(text), text])  # SDXL's empty negative prompt is zeros
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        self.conditions = {
            "text_embeds": torch.zeros(2, pooled, device=device, dtype=dtype),
            "time_ids": torch.zeros(2, 6, device=device, dtype=dtype),
        }

    def encode_prompt(self, prompt):
        raise NotImplementedError("the embeddings are made up")

    @torch.no_grad()
    def run(self, steps: int) -> None:
        """As a pipeline does: a conditioning tensor of this run's own, and falling timesteps on the device."""
        embeddings = self.embeddings.clone()
        for t in torch.linspace(999, 1, steps, device=self.sample.device):
            self.unet(self.sample, t, embeddings, added_cond_kwargs=self.conditions, return_dict=False)


@contextlib.contextmanager
def modulated(denoiser: Denoiser, config: ModulationConfig) -> Iterator[None]:
    with modulate(denoiser, config) as handle:
        handle.set_prompt(prompt(denoiser), denoiser.embeddings[1:])
        yield


def prompt(denoiser: Denoiser) -> Prompt:
    return align_tokens(Prompt.from_entities(TEXT, ENTITIES), denoiser.tokenizer)


class _MaterialisedMaps:
    """The same temperature and mask by an eager processor that holds every attention map in memory."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in projected)
        if encoder_hidden_states is None:
            out = self_attention(q, k, v, temperature=torch.tensor([1.0, 0.8], device=q.device), backend="eager")
        else:
            bits, hidden = self.rows.entity_bits, 1.0 - self.rows.has_entities.float()
            out = cross_attention(q, k, v, entity_bits=bits, hidden_weight=hidden, share_heads=True, backend="eager")
            assert isinstance(out, torch.Tensor)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


@contextlib.contextmanager
def materialised(denoiser: Denoiser) -> Iterator[None]:
    config = ModulationConfig.preset("described")
    rows = condition_rows([None, prompt(denoiser)], 77, config, denoiser.sample.device)
    layers: list[Any] = [layer for kind in find_layers(denoiser.unet).values() for layer in kind.values()]
    before = [layer.processor for layer in layers]
    for layer in layers:
        layer.processor = _MaterialisedMaps(rows)
    try:
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor


def measure(denoiser: Denoiser, steps: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per step of every provider in every round."""
    providers: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
        "stock": contextlib.nullcontext,
        "neutral": lambda: modulated(denoiser, ModulationConfig.preset("neutral")),
        "temperature": lambda: modulated(denoiser, ModulationConfig.preset("temperature")),
        "mask": lambda: modulated(denoiser, ModulationConfig.preset("mask")),
        "everything on": lambda: modulated(denoiser, ModulationConfig()),
        "maps": lambda: materialised(denoiser),
    }
    times: dict[str, list[float]] = {name: [] for name in providers}
    for round_ in range(rounds + 1):
        for name, provider in providers.items():
            with provider():
                _wait(denoiser.sample.device)
                start = time.perf_counter()
                denoiser.run(steps)
                _wait(denoiser.sample.device)
            if round_ > 0:  # the first round warms up
                times[name].append((time.perf_counter() - start) / steps * 1e3)
    return times


def summary(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows = []
    for name, values in times.items():
        ratios = [value / stock for value, stock in zip(values, times["stock"], strict=True)]
        low, _, _, high = statistics.quantiles(values, n=5)
        rows.append(
            {
                "provider": name,
                "p20_ms": round(low, 3),
                "p50_ms": round(statistics.median(values), 3),
                "p80_ms": round(high, 3),
                "ratio_to_stock": round(statistics.median(ratios), 3),
            }
        )
    return rows


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.bench_unet", description="What modulation costs a whole UNet.")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file (results/unet-MODEL-DEVICE.json)")
    options = parser.parse_args(arguments)
    denoiser = Denoiser(options.model, options.device, getattr(torch, options.dtype))
    rows = summary(measure(denoiser, options.steps, options.rounds))
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    report = {
        "benchmark": "unet",
        "model": options.model,
        "latents": list(denoiser.sample.shape),
        "dtype": options.dtype,
        "steps": options.steps,
        "rounds": options.rounds,
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "attnmod": attnmod.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    out = options.out or RESULTS / f"unet-{options.model}-{options.device.split(':')[0]}.json"
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{'provider':15} {'p20':>9} {'p50':>9} {'p80':>9}  ms per step     of stock")
    for row in rows:
        times = f"{row['p20_ms']:9.2f} {row['p50_ms']:9.2f} {row['p80_ms']:9.2f}"
        print(f"{row['provider']:15} {times} {row['ratio_to_stock']:25.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
