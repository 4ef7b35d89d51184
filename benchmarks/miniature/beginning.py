"""Beginning a training with the weights of a finished miniature instead of random ones."""

import hashlib
import os
import shutil
from pathlib import Path

from diffusers import StableDiffusionXLPipeline

FOLDER = "beginning"  # in the training's folder: a copy, so that going on and exporting need nothing else
_PARTS = ("vae", "unet", "text_encoder", "text_encoder_2")


def keep_beginning(model: Path | None, folder: Path) -> str:
    """Copy the model into the training's folder, if it is not there yet.

    Args:
        model: a saved pipeline; None for what the folder holds already, if anything.
        folder: of the training.

    Returns: a hash of the weights to begin with, "" for random ones.

    Raises:
        FileNotFoundError: model is no saved pipeline.
        ValueError: the folder's training began with another model.
    """
    kept = folder / FOLDER
    if model is None:
        return weights_hash(kept) if kept.is_dir() else ""
    given = weights_hash(model)
    if kept.is_dir():
        if weights_hash(kept) != given:
            raise ValueError(f"the training in {folder} began with another model than {model}; train in another folder")
        return given
    partial = folder / f"{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial)
    os.replace(partial, kept)
    return given


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


def load_beginning(pipe: StableDiffusionXLPipeline, folder: Path) -> None:
    """Put the kept model's weights into the pipeline's parts, in place and in their own number type.

    Raises:
        ValueError: the sizes of its parts are others.
    """
    kept = StableDiffusionXLPipeline.from_pretrained(folder / FOLDER, local_files_only=True, add_watermarker=False)
    for part in _PARTS:
        try:
            getattr(pipe, part).load_state_dict(getattr(kept, part).state_dict())
        except RuntimeError as error:
            raise ValueError(f"the {part} to begin with has other sizes than the settings ask for: {error}") from None
