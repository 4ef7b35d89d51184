"""Train the miniature: its autoencoder first, then its UNet and text encoders together.

    python -m benchmarks.miniature.train --run FOLDER [--steps N] [--device cuda] [--begin-with sampler/data/miniature]

Everything lies in the folder: drawn pictures, latents, autoencoder, checkpoint, loss curve, sample sheets. Started
again it goes on where it stopped, to the bit as if it had not: every draw is a function of seed and step.

The loss is that of v-prediction (Salimans and Ho, arXiv 2202.00512) with the weight of low noise capped, as in the
min-SNR weighting of Hang et al. (arXiv 2303.09556), and every noise weighted by about one over the error that is left
there, as Karras et al. do with a learned weight (arXiv 2312.02696, section 2.2); see `MiniatureConfig`.
"""

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from tqdm import tqdm

from attnmod.benchmarks.miniature.autoencoder import (
    encode_pictures,
    fold_normalisation,
    normalise,
    reconstruction_error,
    refined_decoder,
    require_autoencoder,
    trained_autoencoder,
)
from attnmod.benchmarks.miniature.beginning import keep_beginning, load_beginning
from attnmod.benchmarks.miniature.checkpoint import CHECKPOINT, TrainingState, load_checkpoint, save_checkpoint
from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.data import training_set
from attnmod.benchmarks.miniature.model import TRAIN_TIMESTEPS, make_pipeline
from attnmod.benchmarks.miniature.world import SIZE

TRAINED_PARTS = ("unet", "text_encoder", "text_encoder_2")
# original size, crop, target size: what the pipeline passes of itself
MICRO_CONDITIONING = (SIZE, SIZE, 0, 0, SIZE, SIZE)
_EMA_WARMUP = 10


class Trainer:
    """The UNet and the text encoders, their optimizer and their averaged weights.

    Args:
        pipe: whose parts are trained in place.
        latents: float16 [N, C, h, w], normalised.
        tokens: int16 [N, captions, 77], of the first tokenizer; the second's padding is put in here.
        config: of the training.
        mixed: compute in bfloat16 where autocast does.
    """

    def __init__(self, pipe, latents: np.ndarray, tokens: np.ndarray, config: MiniatureConfig, mixed: bool = True):
        self.pipe, self.config, self.mixed = pipe, config, mixed
        self.latents, self.tokens = latents, tokens
        self.device = pipe.unet.device
        self.step = 0
        self.is_whole = True  # not while a step changes the weights: such a state is of no step
        self.losses: list[float] = []
        self.weights = trained_weights(pipe)
        self.averaged = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        signal = pipe.scheduler.alphas_cumprod.to(self.device, torch.float32)
        self.signal, self.noise = signal.sqrt(), (1 - signal).sqrt()
        snr = signal / (1 - signal)
        self.loss_weight = (1 + snr / config.snr_fade).clamp(max=config.fade_most)
        self.loss_weight *= (config.snr_cap / (snr + 1)).clamp(max=1)
        for part in TRAINED_PARTS:
            getattr(pipe, part).train().requires_grad_(True)
        if self.device.type == "cpu":  # there the fused attention's backward pass takes twice as long
            pipe.unet.set_attn_processor(AttnProcessor())
            pipe.text_encoder.set_attn_implementation("eager")
            pipe.text_encoder_2.set_attn_implementation("eager")

    def advance(self) -> float:
        """One step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        latents, tokens, keep = self._batch()
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        count = len(latents)
        spread = (torch.arange(count) + torch.rand(count, generator=random)) / count
        times = (spread * TRAIN_TIMESTEPS).long().to(self.device)
        noise = torch.randn(latents.shape, generator=random).to(self.device)
        signal, scale = self.signal[times, None, None, None], self.noise[times, None, None, None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            embeddings, pooled = self._encode(tokens, keep)
            conditions = {"text_embeds": pooled, "time_ids": torch.tensor([MICRO_CONDITIONING] * count).to(latents)}
            noisy = signal * latents + scale * noise
            predicted = self.pipe.unet(noisy, times, embeddings, added_cond_kwargs=conditions).sample
        velocity = signal * noise - scale * latents
        errors = (predicted.float() - velocity).square().mean((1, 2, 3))
        loss = (self.loss_weight[times] * errors).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.config.clip_norm)
        value = loss.item()
        self.is_whole = False
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (_EMA_WARMUP + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.values()), list(self.weights.values()), 1 - decay)
        self.step += 1
        self.losses.append(value)
        self.is_whole = True
        return value

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents, tokens, and which prompts are kept (float [B], zero for guidance), as seed and step decide."""
        size, count = self.config.batch, len(self.latents)
        places = range(self.step * size, (self.step + 1) * size)
        epochs = {place // count for place in places}
        orders = {epoch: np.random.default_rng((self.config.seed, 2, epoch)).permutation(count) for epoch in epochs}
        chosen = np.array([orders[place // count][place % count] for place in places])
        random = np.random.default_rng((self.config.seed, 3, self.step))
        tokens = self.tokens[chosen, random.integers(self.tokens.shape[1], size=size)]
        keep = random.random(size) >= self.config.text_dropout
        return (
            torch.from_numpy(self.latents[chosen]).to(self.device, torch.float32),
            torch.from_numpy(tokens).to(self.device, torch.long),
            torch.from_numpy(keep).to(self.device, torch.float32),
        )

    def _encode(self, tokens: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What SDXL's `encode_prompt` gives: embeddings [B, 77, 2 width] and the pooled one [B, width]."""
        first = self.pipe.text_encoder(tokens, output_hidden_states=True)
        second = self.pipe.text_encoder_2(
            repadded(tokens, self.pipe.tokenizer, self.pipe.tokenizer_2), output_hidden_states=True
        )
        embeddings = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return embeddings * keep[:, None, None], second.text_embeds * keep[:, None]

    def state(self) -> TrainingState:
        moments = {
            name: (self.optimizer.state[weight]["exp_avg"], self.optimizer.state[weight]["exp_avg_sq"])
            for name, weight in self.weights.items()
            if weight in self.optimizer.state
        }
        return TrainingState(self.step, self.weights, self.averaged, moments, self.losses)

    def restore(self, state: TrainingState) -> None:
        """Go on from a state."""
        self.step, self.losses = state.step, list(state.losses)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state.weights[name])
                self.averaged[name].copy_(state.averaged[name])
                if name in state.moments:
                    first, second = (moment.to(self.device).clone() for moment in state.moments[name])
                    count = torch.tensor(float(state.step), device=self.device)
                    self.optimizer.state[weight] = {"step": count, "exp_avg": first, "exp_avg_sq": second}


def trained_weights(pipe: StableDiffusionXLPipeline) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained after the autoencoder, by part and name."""
    return {
        f"{part}.{name}": weight for part in TRAINED_PARTS for name, weight in getattr(pipe, part).named_parameters()
    }


def repadded(tokens: torch.Tensor, tokenizer, other) -> torch.Tensor:
    """Tokens of a tokenizer that pads with the end token, padded as the other pads."""
    after_end = (tokens == tokenizer.eos_token_id).cumsum(1) > 1
    return tokens.masked_fill(after_end, other.pad_token_id)


def learning_rate(step: int, config: MiniatureConfig) -> float:
    """Warm-up, a constant, and from `decay_from` of the steps on a cosine to a fiftieth."""
    rise = min(1.0, (step + 1) / max(config.warmup, 1))
    start = config.decay_from * config.steps
    decayed = min(1.0, max(0.0, (step - start) / max(config.steps - start, 1)))
    return config.learning_rate * rise * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * decayed)))


def prepare(config: MiniatureConfig, folder: Path, device: torch.device):
    """A pipeline with a trained autoencoder, and the latents and tokens to train the rest on."""
    pipe = make_pipeline(config).to(device)
    if config.begins_with:
        load_beginning(pipe, folder, config.begins_with)  # what does not fit is told of before hours of work
    pixels, tokens = training_set(config, folder, pipe.tokenizer)
    if config.begins_with:  # its autoencoder encodes to normalised latents already
        latents = encode_pictures(pipe.vae, pixels, config, folder)
    else:
        trained_autoencoder(pipe.vae, pixels, config, folder)
        encoded = encode_pictures(pipe.vae, pixels, config, folder)
        refined_decoder(pipe.vae, pixels, encoded, config, folder)
        latents, mean, deviation = normalise(encoded)
        fold_normalisation(pipe.vae, mean, deviation)
    return pipe, latents, tokens, reconstruction_error(pipe.vae, pixels[-200:])


class Interruption:
    """SIGINT and SIGTERM, taken as a wish that the training reads between two steps; a second one interrupts at once.

    So does the first while nothing reads it: where `is_read` is False. Used as a context in the main thread; afterwards
    the signals do what they did before.
    """

    def __init__(self) -> None:
        self.is_read = self.is_wished = False

    def __enter__(self) -> "Interruption":
        # also where a shell lets a background job ignore the first of them
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_wished or not self.is_read:
            raise KeyboardInterrupt
        self.is_wished = True


def train(
    config: MiniatureConfig,
    folder: Path,
    device: torch.device,
    checkpoint_minutes: float = 5.0,
    interruption: Interruption | None = None,
) -> Trainer:
    """Train to the last step, from the folder's checkpoint if there is one.

    Raises:
        KeyboardInterrupt: somebody wished so. The last whole step is in the checkpoint, unless a second wish, or one
            that did not wait for the step's end, left nothing but the checkpoint before.
        FileNotFoundError: there is a checkpoint, but not the autoencoder that it was trained with.
        ValueError: the checkpoint is damaged or of other settings.
        OSError: the last checkpoint could not be written.
    """
    interruption = interruption or Interruption()
    path = folder / CHECKPOINT
    resumed = None
    if path.exists():  # before hours of work, not after
        resumed, settings = load_checkpoint(path, config)
        require_autoencoder(settings, folder)
        if resumed.step > config.steps:
            print(f"{path} has {resumed.step} steps already, more than the {config.steps} asked for: nothing to train")
    pipe, latents, tokens, error = prepare(config, folder, device)
    trainer = Trainer(pipe, latents, tokens, config)
    if resumed is not None:
        trainer.restore(resumed)
    parameters = sum(weight.numel() for weight in trainer.weights.values())
    print(f"autoencoder: error {error:.2f} of 255. Weights to train: {parameters / 1e6:.2f} M. Step {trainer.step}")
    saved_at, saved = time.monotonic(), trainer.step
    interruption.is_read = True
    try:
        with tqdm(total=config.steps, initial=trainer.step, desc="miniature", mininterval=5) as bar:
            while trainer.step < config.steps:
                if interruption.is_wished:
                    raise KeyboardInterrupt
                trainer.advance()
                bar.update()
                bar.set_postfix(loss=f"{np.mean(trainer.losses[-200:]):.4f}", refresh=False)
                if time.monotonic() - saved_at > 60 * checkpoint_minutes:
                    if save_checkpoint(path, trainer.state(), config):
                        saved = trainer.step
                    saved_at = time.monotonic()
    finally:  # also when interrupted
        if trainer.is_whole and saved != trainer.step and save_checkpoint(path, trainer.state(), config):
            saved = trainer.step
    if saved != trainer.step:
        raise OSError(f"the checkpoint of the last step could not be written to {path}")
    return trainer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.miniature.train", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="holds everything; made if missing")
    parser.add_argument("--steps", type=int, default=MiniatureConfig.steps, help="of the UNet and text encoders")
    parser.add_argument("--begin-with", type=Path, metavar="DIR", help="a saved miniature, to train it on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint-minutes", type=float, default=5.0, metavar="MINUTES")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}; it must be at least 1")
    try:
        options.run.mkdir(parents=True, exist_ok=True)
        with Interruption() as interruption:
            beginning = keep_beginning(options.begin_with, options.run)
            config = MiniatureConfig(steps=options.steps, begins_with=beginning)
            train(config, options.run, torch.device(options.device), options.checkpoint_minutes, interruption)
    except KeyboardInterrupt:
        kept = options.run / CHECKPOINT
        onward = f"; the same command goes on from {kept}" if kept.exists() else " before there was a checkpoint"
        print(f"interrupted{onward}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
