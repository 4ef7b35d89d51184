"""One step of SDXL's UNet, stock against modulated, in turns: a run of the one, a run of the other, and so on.

The weights are random and made on the device: time does not depend on them. The two UNets are two modules over the same
weights in the same memory, so that neither is attached to, compiled or captured anew between turns. The modulated one
has every mechanism on, as by default; the text is what SDXL's pipeline hands over for one prompt: a row of zeros and a
row with two entities.

A run is driven as a pipeline drives it, by falling slices of one tensor of timesteps on the device. That is how
modulation knows that a run goes on: then the text is not projected again and the average of the owners is kept. A
constant timestep would begin a run at every step.

It needs diffusers, but neither transformers nor spaCy: the tokens are laid out by hand.
"""

import copy
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnmod.benchmarks.harness import Row, out_of_time
from attnmod.benchmarks.shapes import SDXL_UNET
from attnmod.benchmarks.timer import capture, percentiles

SMALL_UNET: dict[str, Any] = SDXL_UNET | dict(
    sample_size=16,
    block_out_channels=(64, 128, 128),
    layers_per_block=1,
    transformer_layers_per_block=[1, 1, 2],
    attention_head_dim=[1, 2, 2],
    cross_attention_dim=128,
    addition_time_embed_dim=32,
    projection_class_embeddings_input_dim=6 * 32 + 64,
)
_STEPS = 30  # of the longest run
_TEXT, _ENTITIES = "a red cube and a blue sphere", [["a red cube"], ["a blue sphere"]]
_OWNERS = (0, 0, 0, None, 1, 1, 1)  # of the words

# step(i) takes the i-th step of a run, 0 beginning one
Step = Callable[[int], Tensor]


class _Pipeline:
    """A UNet, and just enough of a pipeline for `modulate`."""

    tokenizer = tokenizer_2 = None

    def __init__(self, unet):
        self.unet = unet

    def encode_prompt(self, prompt):
        raise NotImplementedError("the embeddings are made up")


class Pair:
    """A stock UNet and a modulated one over the same weights, and the inputs of a guided call.

    Attributes:
        stock, modulated: the modules. handle: of the modulated one. shape: in words.
        inputs: of a call, but for its timestep.
        timesteps: falling, on the device.
    """

    def __init__(self, full: bool, device: torch.device, latents: int | None = None, **options: Any):
        """full: SDXL's own size, else one that a CPU runs, in which options of the UNet and latents take the place of
        what it has."""
        from diffusers import UNet2DConditionModel

        from attnmod import modulate

        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.shape = "sdxl 1024x1024 batch 2" if full else "small batch 2"
        with torch.device("meta"):  # initialised on a CPU it takes a minute, and twice the memory
            stock: Any = UNet2DConditionModel(**(SDXL_UNET if full else SMALL_UNET) | options).eval()
        torch.nn.Module.to(stock, self.dtype)  # diffusers' own warns of weights that were trained in another
        modulated = copy.deepcopy(stock)
        self.stock = _filled(stock.requires_grad_(False), device)
        modulated.load_state_dict(self.stock.state_dict(), assign=True)
        self.modulated = modulated.requires_grad_(False)
        self.inputs = _inputs(self.stock.config, device, self.dtype, latents or (128 if full else 16))
        self.timesteps = torch.linspace(999, 1, _STEPS, device=device)
        self.handle = modulate(_Pipeline(self.modulated))
        self.handle.set_prompt(_prompt(), self.inputs["encoder_hidden_states"][1:])

    def steps(self) -> dict[str, Step]:
        """Both, launched from Python."""
        return {"stock": self._eager(self.stock), "modulated": self._eager(self.modulated)}

    def captured(self) -> dict[str, Step]:
        """Both as CUDA graphs."""
        if self.device.type != "cuda":
            raise RuntimeError("CUDA graphs need CUDA")
        return {name: self._captured(unet) for name, unet in (("stock", self.stock), ("modulated", self.modulated))}

    def _eager(self, unet, timesteps: Tensor | None = None) -> Step:
        timesteps = self.timesteps if timesteps is None else timesteps

        @torch.no_grad()
        def step(i: int) -> Tensor:
            return unet(timestep=timesteps[i], **self.inputs, return_dict=False)[0]

        return step

    def _captured(self, unet) -> Step:
        """One slice is run, which begins a run and projects the text; the next one is captured, and from then on holds
        the timestep of whatever step is replayed."""
        timesteps = self.timesteps.clone()
        values, held, upcoming = timesteps.tolist(), timesteps[1], itertools.count()
        eager, outputs = self._eager(unet, timesteps), []
        graph = capture(lambda _: outputs.append(eager(next(upcoming))), 1)

        def step(i: int) -> Tensor:
            held.fill_(values[i])
            graph.replay()
            return outputs[1]

        return step


@dataclass
class Turn:
    """Times of one run, in ms.

    first: of the step that begins it, alone. steps: of the steps after it, one following the other. host: of a few
    more, each begun on an idle device: the processor's time until its last launch returned.
    """

    first: float
    steps: list[float]
    host: list[float]


def take_turn(step: Step, device: torch.device, steps: int, alone: int) -> Turn:
    """A run of 1 + steps + alone steps."""
    _, first = _alone(step, 0, device)
    following = _following(step, range(1, 1 + steps), device)
    host = [_alone(step, i, device)[0] for i in range(1 + steps, 1 + steps + alone)]
    return Turn(first, following, host)


def in_turns(
    steps: dict[str, Step], device: torch.device, *, rounds: int = 3, count: int = 10, alone: int = 3
) -> dict[str, list[Turn]]:
    """So many rounds, in each of which each has its turn; fewer where time runs out."""
    turns: dict[str, list[Turn]] = {name: [] for name in steps}
    for step in steps.values():
        step(0)
        step(1)
    for _ in range(rounds):
        if out_of_time() and any(turns.values()):
            break
        for name, step in steps.items():
            turns[name].append(take_turn(step, device, count, alone))
    return turns


def rows_of(turns: dict[str, list[Turn]], variant: str, pair: Pair) -> list[Row]:
    """A row for each: of all its steps but those that begin a run; its ratio to stock is in the note."""
    rows = []
    for name, taken in turns.items():
        times = percentiles([ms for turn in taken for ms in turn.steps])
        p20, p50, p80 = (round(value, 3) for value in times)
        host = round(statistics.median(ms for turn in taken for ms in turn.host), 3)
        first = statistics.median(turn.first for turn in taken)
        note = f"first step of a run {first:.2f} ms"
        if name != "stock":
            ratios = ratios_to_stock(turns, name)
            note += f"; {statistics.median(ratios):.3f} of stock, in turns {' '.join(f'{r:.3f}' for r in ratios)}"
        row = Row("unet step", name, pair.shape, str(pair.dtype).removeprefix("torch."), variant, p20, p50, p80)
        row.host, row.note = host, note
        rows.append(row)
    return rows


def ratios_to_stock(turns: dict[str, list[Turn]], name: str) -> list[float]:
    """Of the medians, turn by turn, so that a clock that drifts favours neither."""
    pairs = zip(turns[name], turns["stock"], strict=True)
    return [statistics.median(one.steps) / statistics.median(stock.steps) for one, stock in pairs]


def words_of(rows: list[Row]) -> str:
    """A line for a summary."""
    times = ", ".join(f"{row.provider} {row.p50:.2f} ms (host {row.host:.2f})" for row in rows)
    return f"{rows[0].op}, {rows[0].cache}: {times}; {rows[-1].note}"


def _alone(step: Step, i: int, device: torch.device) -> tuple[float, float]:
    """ms of this thread's processor until the last launch of a step has returned, and until the device is done.

    The processor's time, not the clock's: where other programs share it, waiting for it is no part of the step.
    """
    _wait(device)
    start, busy = time.perf_counter(), time.thread_time()
    step(i)
    busy = time.thread_time() - busy
    _wait(device)
    return busy * 1e3, (time.perf_counter() - start) * 1e3


def _following(step: Step, indices: range, device: torch.device) -> list[float]:
    """ms of steps that follow each other without waiting: on a GPU between events, so it is the slower of host and
    device that counts."""
    if device.type != "cuda":
        return [_alone(step, i, device)[1] for i in indices]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(indices) + 1)]
    marks[0].record()
    for i, mark in zip(indices, marks[1:], strict=True):
        step(i)
        mark.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in itertools.pairwise(marks)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def _filled(unet, device: torch.device):
    """A module from the meta device on this one, with weights about as large as PyTorch's own."""
    unet.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in unet.named_parameters():
        if parameter.ndim > 1:
            bound = parameter[0].numel() ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        else:  # norms do nothing, biases are zero
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return unet


def _prompt():
    """A prompt with two entities, a token for each of its words."""
    from attnmod import Prompt
    from attnmod.parser.prompt import Token

    tokens = [Token(0, "<bos>", "bos", (), 1.0)]
    for word, owner in zip(_TEXT.split(), _OWNERS, strict=True):
        kind, ids = ("global", ()) if owner is None else ("entity", (owner,))
        tokens.append(Token(len(tokens), word, kind, ids, 1.0))
    tokens += [Token(n, "<eos>", "eos" if n == len(tokens) else "pad", (), 1.0) for n in range(len(tokens), 77)]
    return Prompt.from_entities(_TEXT, _ENTITIES).with_tokens(tokens)


def _inputs(config, device: torch.device, dtype: torch.dtype, size: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(0)
    time_ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]] * 2, device=device, dtype=dtype)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    text = normal(2, 77, config.cross_attention_dim)
    text[0] = 0  # SDXL's empty negative prompt
    return {
        "sample": normal(2, config.in_channels, size, size),
        "encoder_hidden_states": text,
        "added_cond_kwargs": {"text_embeds": normal(2, pooled), "time_ids": time_ids},
    }
