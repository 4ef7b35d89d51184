"""Beginning a training with the weights of a finished miniature instead of random ones."""

import hashlib
import os
import shutil
from pathlib import Path

from diffusers import StableDiffusionXLPipeline
from safetensors import SafetensorError

from attnmod.benchmarks.miniature.checkpoint import CHECKPOINT, load_checkpoint

FOLDER = "beginning"  # in the training's folder: a copy, so that going on and exporting need nothing else
_PARTS = ("vae", "unet", "text_encoder", "text_encoder_2")


def keep_beginning(model: Path | None, folder: Path) -> str:
    """Copy the model into the training's folder, if it is not there yet.

    Until the training has a checkpoint, another model may take its place.

    Args:
        model: a saved pipeline; None for what the folder holds already, if anything.
        folder: of the training.

    Returns: a hash of the weights to begin with, "" for random ones.

    Raises:
        FileNotFoundError: model is no saved pipeline.
        ValueError: a file of it is damaged; the folder's training began with other weights.
        OSError: it could not be copied. Nothing of it is left behind then.
    """
    kept = folder / FOLDER
    if model is None:
        return weights_hash(kept) if kept.is_dir() else ""
    given = weights_hash(model)
    if (folder / CHECKPOINT).exists():
        begun = load_checkpoint(folder / CHECKPOINT)[1].begins_with
        if begun != given:
            other = f"another model than {model}" if begun else "random weights"
            raise ValueError(f"the training in {folder} began with {other}; train in another folder")
    if not kept.is_dir() or weights_hash(kept) != given:
        _read(model)
        _copy(model, kept)
    return given


def _copy(model: Path, kept: Path) -> None:
    """Whole or not at all."""
    partial = kept.with_name(f"{FOLDER}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(model, partial)
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(partial, kept)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        # copytree goes on after a file that fails, and gathers (source, target, reason)
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        raise OSError(f"{model} could not be copied to {kept}: {reason}") from None


def weights_hash(model: Path) -> str:
    """A hash of all weights of a saved pipeline.

    Raises:
        FileNotFoundError: a part has no safetensors file.
    """
    digest = hashlib.sha256()
    for part in _PARTS:
        files = sorted((model / part).glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{model} is no saved miniature: {part} has no safetensors file")
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def load_beginning(pipe: StableDiffusionXLPipeline, folder: Path, expected: str) -> None:
    """Put the kept model's weights into the pipeline's parts, in place and in their own number type.

    Args:
        pipe: of the training's settings.
        folder: of the training.
        expected: the hash of the weights that the training begins with.

    Raises:
        FileNotFoundError: there is no kept model.
        ValueError: it is another or damaged; the sizes of its parts are others.
    """
    if weights_hash(folder / FOLDER) != expected:
        raise ValueError(f"{folder / FOLDER} is not the model that the training began with")
    kept = _read(folder / FOLDER)
    for part in _PARTS:
        try:
            getattr(pipe, part).load_state_dict(getattr(kept, part).state_dict())
        except RuntimeError as error:
            raise ValueError(f"the {part} to begin with has other sizes than the settings ask for: {error}") from None


def _read(model: Path) -> StableDiffusionXLPipeline:
    try:
        return StableDiffusionXLPipeline.from_pretrained(model, local_files_only=True, add_watermarker=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{model} is no saved miniature, or damaged: {error}") from None
