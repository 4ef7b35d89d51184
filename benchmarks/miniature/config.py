"""Everything that a trained miniature depends on, and the fingerprint by which a checkpoint knows its own."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class MiniatureConfig:
    """Sizes of the model and settings of its training.

    Attributes:
        merges: of CLIP's byte-pair vocabulary that the tokenizer keeps, the first ones.
        text_width, text_layers: of both text encoders; SDXL reads the last layer but one, and the pooled output of
            the second encoder's last.
        head_dim: channels of an attention head, in the text encoders and in the UNet.
        channels: of the UNet's levels, the first at 16x16 latents; every level attends to itself and to the text.
        layers_per_block: residual blocks a level on the way down; one more on the way up.
        transformer_layers: transformer blocks per attention at each level.
        vae_channels: of the VAE's levels; n levels make its latents smaller by 2^(n-1).
        latent_channels: of the latents.
        beta_start, beta_end: of the noise schedule, the square root linear in between.
        pictures, captions: pictures drawn once, and prompts written for each.
        steps, batch: of the UNet and the text encoders.
        learning_rate, warmup, decay_from: constant after `warmup` steps; from this part of the steps on it falls
            along a cosine to a fiftieth.
        weight_decay, clip_norm: of AdamW; the gradient's norm is clipped.
        text_dropout: part of the prompts whose embeddings are zeros, for guidance.
        snr_cap: the loss of v-prediction, whose weight on the clean latents is snr + 1, is weighted down where
            that exceeds the cap: fine noise is not what makes a picture follow its prompt.
        snr_fade, fade_most: it is weighted by min(1 + snr / snr_fade, fade_most), too, which is about one over the
            error that is left at that noise. Without it almost all of the gradient is of high noise, where the
            error is large whatever the model does, and outlines are learned slowly.
        begins_with: a hash of the weights that UNet, text encoders and autoencoder began with; "" for random ones.
        ema: decay of the averaged weights, per step, reached after a warm-up.
        vae_pictures, vae_cycles, vae_steps, vae_batch, vae_learning_rate, vae_kl: of the VAE's training, which comes
            first.
        decoder_steps: after it, of the VAE's decoder alone; the latents stay as they are.
        seed: of everything.
    """

    merges: int = 7168
    text_width: int = 128
    text_layers: int = 3
    head_dim: int = 32
    channels: tuple[int, ...] = (96, 160)
    layers_per_block: int = 1
    transformer_layers: tuple[int, ...] = (1, 1)
    vae_channels: tuple[int, ...] = (32, 32, 64)
    latent_channels: int = 8
    beta_start: float = 0.00085
    beta_end: float = 0.018
    pictures: int = 30_000
    captions: int = 2
    steps: int = 12_000
    batch: int = 32
    learning_rate: float = 5e-4
    warmup: int = 200
    decay_from: float = 0.3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    text_dropout: float = 0.1
    snr_cap: float = 6.0
    snr_fade: float = 0.03
    fade_most: float = 10.0
    ema: float = 0.998
    vae_pictures: int = 8_000
    vae_cycles: int = 2
    vae_steps: int = 1_300
    vae_batch: int = 8
    vae_learning_rate: float = 2e-3
    vae_kl: float = 3e-4
    decoder_steps: int = 1_600
    begins_with: str = ""
    seed: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if len(self.channels) != len(self.transformer_layers):
            raise ValueError(
                f"channels is {self.channels}, transformer_layers is {self.transformer_layers}; they must be as many"
            )
        if any(width % self.head_dim for width in (self.text_width, *self.channels)):
            raise ValueError(f"head_dim is {self.head_dim}; it must divide text_width and every one of channels")

    @classmethod
    def from_dict(cls, values: dict) -> "MiniatureConfig":
        """Raises ValueError for unknown keys."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
        return cls(**values)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def fingerprint(self, *fields: str) -> str:
        """A hash of the settings: of all, or of those named."""
        values = {name: value for name, value in self.to_dict().items() if not fields or name in fields}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: dict) -> list[str]:
        """What differs from the settings in another's `to_dict`, as text."""
        mine, theirs = json.loads(json.dumps(self.to_dict())), json.loads(json.dumps(other))
        names = sorted(set(mine) | set(theirs))
        return [
            f"{name}: {theirs.get(name)} there, {mine.get(name)} now"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]
