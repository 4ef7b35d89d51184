"""The pictures and prompts that a miniature is trained on, drawn once and kept in files.

Picture i and its prompts follow from (seed, i) alone, so a larger set begins with a smaller one.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from tqdm import tqdm

from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.prompts import write_prompt
from attnmod.benchmarks.miniature.world import SIZE, Scene, draw_scene, render

LOOSE_PROMPTS = 0.3  # part of the prompts in phrasings that only training uses


def draw_example(config: MiniatureConfig, index: int) -> tuple[Scene, np.ndarray, list[str]]:
    """Scene, pixels uint8 [64, 64, 3] and prompts of one training example."""
    rng = np.random.default_rng((config.seed, index))
    scene = draw_scene(rng, "train")
    prompts = [write_prompt(scene, rng, loose=rng.random() < LOOSE_PROMPTS) for _ in range(config.captions)]
    return scene, render(scene, rng).pixels, prompts


def training_set(config: MiniatureConfig, folder: Path, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """pixels uint8 [N, 64, 64, 3] and tokens int16 [N, captions, 77], from the folder where they lie there."""
    name = config.fingerprint("seed", "pictures", "captions", "merges")
    files = [folder / f"pictures-{name}.npy", folder / f"tokens-{name}.npy"]

    def draw() -> list[np.ndarray]:
        pixels = np.empty((config.pictures, SIZE, SIZE, 3), np.uint8)
        prompts: list[str] = []
        for index in tqdm(range(config.pictures), desc="pictures", mininterval=1):
            _, pixels[index], written = draw_example(config, index)
            prompts += written
        tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="np").input_ids
        return [pixels, tokens.astype(np.int16).reshape(config.pictures, config.captions, -1)]

    pixels, tokens = cached(files, draw)
    return pixels, tokens


def cached(files: list[Path], make: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """The arrays in the files, made and written first where one is missing."""
    if not all(path.is_file() for path in files):
        for path, array in zip(files, make(), strict=True):
            with written_whole(path) as partial, open(partial, "wb") as stream:
                np.save(stream, array)
    return [np.load(path) for path in files]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write a file under, which then becomes `path`; if that fails, nothing of it is left.

    Raises:
        OSError: it could not be written, also where safetensors says so in an error of its own.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
