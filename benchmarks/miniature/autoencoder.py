"""The miniature's autoencoder: trained first, alone, on the pictures; then it encodes them all, once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.data import cached, written_whole

_ENCODED_AT_ONCE = 50
_LATENT_NOISE = 0.08  # standard deviation, about that of the encoder's posterior
VAE_FIELDS = (
    "seed",
    "pictures",
    "captions",
    "vae_channels",
    "latent_channels",
    "vae_pictures",
    "vae_cycles",
    "vae_steps",
    "vae_batch",
    "vae_learning_rate",
    "vae_kl",
    "begins_with",
)


def to_model(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in -1 to 1."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(vae: AutoencoderKL, pixels: np.ndarray, config: MiniatureConfig, cycle: int = 0) -> list[float]:
    """Train it in place on the first `vae_pictures` pictures for one cycle; returns the loss of each step.

    The loss is L1 + L2 of the picture and a little KL divergence, which keeps the latents smooth and lets the decoder
    forgive a latent that is slightly off. Each cycle starts at half the learning rate of the one before and ends near
    zero.
    """
    device = vae.device
    noise = torch.Generator(device).manual_seed(config.seed + cycle)
    order = np.random.default_rng((config.seed, 1 + 10 * cycle))
    peak = config.vae_learning_rate / 2**cycle

    def loss_of(chosen: np.ndarray) -> torch.Tensor:
        batch = to_model(pixels[chosen], device)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(batch).latent_dist
            decoded = vae.decode(posterior.sample(noise)).sample
        divergence = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return _picture_loss(decoded, batch) + config.vae_kl * divergence

    count = min(config.vae_pictures, len(pixels))
    return _one_cycle(list(vae.parameters()), peak, config.vae_steps, config.vae_batch, count, order, loss_of)


def refine_decoder(vae: AutoencoderKL, pixels: np.ndarray, latents: np.ndarray, config: MiniatureConfig) -> list[float]:
    """Train the decoder alone, in place, to draw the pictures from their latents and a little noise."""
    device = vae.device
    noise = torch.Generator(device).manual_seed(config.seed + 100)
    order = np.random.default_rng((config.seed, 4))

    def loss_of(chosen: np.ndarray) -> torch.Tensor:
        given = torch.from_numpy(latents[chosen]).to(device, torch.float32)
        given = given + _LATENT_NOISE * torch.randn(given.shape, generator=noise, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            decoded = vae.decode(given).sample
        return _picture_loss(decoded, to_model(pixels[chosen], device))

    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    return _one_cycle(
        weights, config.vae_learning_rate / 2, config.decoder_steps, config.vae_batch, len(pixels), order, loss_of
    )


def _picture_loss(decoded: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    error = decoded.float() - pictures
    return error.abs().mean() + error.square().mean()


def _one_cycle(
    weights: list,
    peak: float,
    steps: int,
    batch: int,
    count: int,
    order: np.random.Generator,
    loss_of: Callable[[np.ndarray], torch.Tensor],
) -> list[float]:
    """AdamW under a learning rate that rises to the peak and falls to nearly nothing; the loss of each step."""
    optimizer = torch.optim.AdamW(weights, peak, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in (bar := tqdm(range(steps), desc="autoencoder", mininterval=1)):
        loss = loss_of(order.integers(count, size=batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.4f}")
    return losses


@torch.no_grad()
def reconstruction_error(vae: AutoencoderKL, pixels: np.ndarray) -> float:
    """Root mean square error of decoded posterior means, in levels of 255."""
    squares = []
    for first in range(0, len(pixels), _ENCODED_AT_ONCE):
        batch = to_model(pixels[first : first + _ENCODED_AT_ONCE], vae.device)
        decoded = vae.decode(vae.encode(batch).latent_dist.mean).sample.clamp(-1, 1)
        squares.append((127.5 * (decoded - batch)).square().mean((1, 2, 3)))
    return float(torch.cat(squares).mean().sqrt())


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels: np.ndarray, config: MiniatureConfig, folder: Path) -> np.ndarray:
    """float16 [N, latent_channels, 16, 16]: the posterior means, not scaled; from the folder where they lie there."""

    def encode() -> list[np.ndarray]:
        latents = []
        for first in tqdm(range(0, len(pixels), _ENCODED_AT_ONCE), desc="latents", mininterval=1):
            batch = to_model(pixels[first : first + _ENCODED_AT_ONCE], vae.device)
            with torch.autocast(vae.device.type, torch.bfloat16):
                latents.append(vae.encode(batch).latent_dist.mean.half().cpu().numpy())
        return [np.concatenate(latents)]

    return cached([folder / f"latents-{config.fingerprint(*VAE_FIELDS)}.npy"], encode)[0]


def normalise(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float16 latents of mean 0 and deviation 1 per channel; what means and deviations [C] were, float32."""
    values = latents.astype(np.float32)
    mean, deviation = values.mean((0, 2, 3)), values.std((0, 2, 3))
    values = (values - mean[:, None, None]) / deviation[:, None, None]
    return values.astype(np.float16), mean, deviation


@torch.no_grad()
def fold_normalisation(vae: AutoencoderKL, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Make it encode to normalised latents and decode them, by its own 1x1 convolutions.

    A pipeline knows one scaling factor for all channels, which is 1 from here on.
    """
    shift, scale = torch.from_numpy(mean).to(vae.device), torch.from_numpy(deviation).to(vae.device)
    into, out_of = vae.quant_conv, vae.post_quant_conv
    channels = len(shift)  # of the moments, the first half are means and the second log variances
    into.weight[:channels] /= scale[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - shift) / scale
    into.bias[channels:] -= 2 * scale.log()
    out_of.bias += out_of.weight[:, :, 0, 0] @ shift
    out_of.weight *= scale[None, :, None, None]


def trained_autoencoder(vae: AutoencoderKL, pixels: np.ndarray, config: MiniatureConfig, folder: Path) -> None:
    """Give it its trained weights: as many cycles as the folder holds are read, the rest trained."""
    for cycle, path in enumerate(_autoencoder_files(config, folder)):
        _kept(path, vae, lambda cycle=cycle: train_autoencoder(vae, pixels, config, cycle))


def refined_decoder(
    vae: AutoencoderKL, pixels: np.ndarray, latents: np.ndarray, config: MiniatureConfig, folder: Path
) -> None:
    """Give it its refined decoder: read from the folder, or trained and written there."""
    if config.decoder_steps:
        path = _decoder_file(config, folder)
        _kept(path, vae, lambda: refine_decoder(vae, pixels, latents, config))


def require_autoencoder(config: MiniatureConfig, folder: Path, decoder: bool = False) -> None:
    """Make sure that the autoencoder whose latents a UNet was trained on lies there: no other would fit the UNet.

    Args:
        config: of that training. One that began with another model's autoencoder needs none.
        folder: of that training.
        decoder: ask for the refined decoder, too. It may be trained anew without harm, but takes its time.

    Raises:
        FileNotFoundError: a file is missing; the message says which.
    """
    if config.begins_with:
        return
    needed = _autoencoder_files(config, folder)
    if decoder and config.decoder_steps:
        needed.append(_decoder_file(config, folder))
    for path in needed:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, a part of the autoencoder that the checkpoint there belongs to"
            )


def _autoencoder_files(config: MiniatureConfig, folder: Path) -> list[Path]:
    """After each of its cycles."""
    name = f"autoencoder-{config.fingerprint(*VAE_FIELDS)}"
    return [folder / f"{name}-{cycle}.safetensors" for cycle in range(config.vae_cycles)]


def _decoder_file(config: MiniatureConfig, folder: Path) -> Path:
    return folder / f"decoder-{config.fingerprint(*VAE_FIELDS, 'decoder_steps')}.safetensors"


def _kept(path: Path, vae: AutoencoderKL, train: Callable[[], list[float]]) -> None:
    """Load the weights from the file; train and write them first where it is missing.

    Raises:
        OSError: they could not be written; nothing half-written is left.
        ValueError: the file is damaged.
    """
    if not path.is_file():
        losses = train()
        with written_whole(path.with_suffix(".losses.npy")) as partial, open(partial, "wb") as stream:
            np.save(stream, np.asarray(losses, np.float32))
        with written_whole(path) as partial:
            save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, partial)
    try:
        weights = load_file(path, device=str(vae.device))
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}). It was left as it is: move it away") from None
    vae.load_state_dict(weights)
