"""One step of SDXL's UNet, stock against modulated: eager, compiled by its repeated blocks, and in a CUDA graph.

The weights are random and made on the device: time does not depend on them. Both UNets are the same object, driven in
the same way; the modulated one has every mechanism on, two rows (unconditional and conditional) and two entities.
It needs diffusers but neither transformers nor spaCy: the tokens are laid out by hand.
"""

from collections.abc import Callable
from typing import Any

import torch

from attnmod.benchmarks.harness import OUT_OF_TIME, Row, out_of_time, time_calls
from attnmod.benchmarks.shapes import SDXL_UNET

_SMALL_UNET: dict[str, Any] = SDXL_UNET | dict(
    sample_size=16,
    block_out_channels=(64, 128, 128),
    layers_per_block=1,
    transformer_layers_per_block=[1, 1, 2],
    attention_head_dim=[1, 2, 2],
    cross_attention_dim=128,
    addition_time_embed_dim=32,
    projection_class_embeddings_input_dim=6 * 32 + 64,
)
_TEXT, _ENTITIES = "a red cube and a blue sphere", [["a red cube"], ["a blue sphere"]]
_OWNERS = (0, 0, 0, None, 1, 1, 1)  # of the words


class _Pipeline:
    """A UNet, and just enough of a pipeline for `modulate`."""

    tokenizer = tokenizer_2 = None

    def __init__(self, unet):
        self.unet = unet

    def encode_prompt(self, prompt):
        raise NotImplementedError("the embeddings are made up")


def run(full: bool, variants: tuple[str, ...] = ("eager", "graph", "compiled")) -> list[Row]:
    """Rows for stock and modulated in each variant; full is SDXL's own size. Compiled comes last: blocks stay so."""
    from diffusers import UNet2DConditionModel

    from attnmod import modulate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        unet: Any = UNet2DConditionModel(**(SDXL_UNET if full else _SMALL_UNET)).eval()
    unet.to(dtype=dtype)
    pipe = _Pipeline(unet)
    inputs = _inputs(unet, device, dtype, 128 if full else 16)
    size = "sdxl 1024x1024 batch 2" if full else "small batch 2"
    rows, eager = [], {}
    for variant in variants:
        for provider in ("stock", "modulated"):
            row = Row(
                "unet step", provider, size, str(dtype).removeprefix("torch."), variant, None, None, None, None, None
            )
            rows.append(row)
            if out_of_time():
                row.note = OUT_OF_TIME
                continue
            handle = None
            try:
                if provider == "modulated":
                    handle = modulate(pipe)
                    handle.set_prompt(_prompts(), inputs["encoder_hidden_states"])
                call = _driven(unet, inputs, variant, device)
                out = call(0).double()
                against = eager.setdefault(provider, out) if variant != "eager" else eager.setdefault("stock", out)
                eager.setdefault(provider, out)
                difference = ((out - against).norm() / against.norm()).item()
                if variant == "eager" and handle and difference == 0:
                    raise RuntimeError("modulation changed nothing")
                row.note = f"differs by {difference:.2g} from {'stock' if variant == 'eager' else 'eager'}"
                row.p20, row.p50, row.p80 = time_calls(call, device, cold=False, budget_ms=1500 if full else 20)
            except Exception as error:  # a variant that does not run is a result
                row.note = f"not run: {type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
            finally:
                if handle:
                    handle.remove()
    return rows


def _prompts() -> list:
    """The empty prompt and one with two entities, with a token for each word of it."""
    from attnmod import Prompt
    from attnmod.parser.prompt import Token

    prompts = []
    for text, entities, owners in (("", [], ()), (_TEXT, _ENTITIES, _OWNERS)):
        tokens = [Token(0, "<bos>", "bos", (), 1.0)]
        for word, owner in zip(text.split(), owners, strict=True):
            kind, ids = ("global", ()) if owner is None else ("entity", (owner,))
            tokens.append(Token(len(tokens), word, kind, ids, 1.0))
        tokens += [Token(n, "<eos>", "eos" if n == len(tokens) else "pad", (), 1.0) for n in range(len(tokens), 77)]
        prompts.append(Prompt.from_entities(text, entities).with_tokens(tokens))
    return prompts


def _inputs(unet, device, dtype, size: int) -> dict:
    generator = torch.Generator(device).manual_seed(0)
    config = unet.config
    time_ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]] * 2, device=device, dtype=dtype)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

    def normal(*shape):
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    return {
        "sample": normal(2, config.in_channels, size, size),
        "timestep": torch.tensor(500.0, device=device),
        "encoder_hidden_states": normal(2, 77, config.cross_attention_dim),
        "added_cond_kwargs": {"text_embeds": normal(2, pooled), "time_ids": time_ids},
    }


def _driven(unet, inputs: dict, variant: str, device: torch.device) -> Callable[[int], torch.Tensor]:
    @torch.no_grad()
    def step(_: int = 0):
        return unet(**inputs, return_dict=False)[0]

    if variant == "compiled":
        torch._dynamo.reset()
        unet.compile_repeated_blocks(backend="inductor" if device.type == "cuda" else "eager")
    if variant == "graph":
        if device.type != "cuda":
            raise RuntimeError("CUDA graphs need CUDA")
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()

        def replay(_: int) -> torch.Tensor:
            graph.replay()
            return out

        return replay
    for _ in range(2):
        step()
    return step
