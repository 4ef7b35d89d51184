"""Reads a picture of the little world (`world.py`) by classical means: nothing here has learned anything.

    seen = read_picture(pixels)        a SeenPicture: the objects, the light, the ground

    python -m benchmarks.miniature.scorer [--pictures N] [--model DIR] [--save]      how often it is right

The last prints the accuracy in every category on rendered pictures, on such with blur and noise, and on those that a
trained miniature's autoencoder has encoded and decoded: the best that it could ever draw.

How it reads, in this order:

1. Light and ground: the flat colour that most of the upper, and of the lower rows come close to.
2. Colour clustering: each pixel goes to the background, or to the colour whose ray (the colour from `SHADE` times to
   once its brightness, which is all that a texture does to it) lies nearest.
3. Connected components of equal colour; slivers, which blur makes where two colours meet, are given to the object
   beside them, fragments that an overlapping object cut off to the one they came from, twins that touch are parted.
4. Shape: the outline, over all radii and places, with the largest intersection over union. What lies under another
   object counts neither for an outline nor against it.
5. Size: from that outline's radius. Texture: the correlation of the brightness with each pattern, wherever it begins.

Where it cannot tell, an answer is None; whoever counts must count that as wrong. `judge.py` holds what was seen against
what a prompt asked for.
"""

import argparse
import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from attnmod.benchmarks.miniature.descriptors import MIN_FIT, fit_outline, read_texture, smoothed
from attnmod.benchmarks.miniature.segment import (
    BARE,
    Masks,
    cluster,
    coverage,
    elsewhere,
    find_objects,
    pure_pixels,
    read_scenery,
)
from attnmod.benchmarks.miniature.world import COLOURS, RADII, SIZE, SIZES, Picture, Scene, draw_scene, render

RESULTS = Path(__file__).parents[1] / "results"
OBJECT_CATEGORIES = ("shape", "colour", "texture", "size", "place")
PICTURE_CATEGORIES = ("number", "light", "ground")
# name -> sigma of the Gaussian blur in pixels, standard deviation of the Gaussian noise as part of 255
DEGRADATIONS = {"rendered": (0.0, 0.0), "blur 0.7, noise 0.05": (0.7, 0.05), "blur 0.8, noise 0.06": (0.8, 0.06)}
PLACE_TOLERANCE = 2.0  # pixels

_FIT_MARGIN = 0.01  # between the best outline and that of another shape
_COLOUR_REACH = 42.0  # mean distance in RGB from the ray of its colour
_COLOUR_MARGIN = 1.25  # how much farther the next colour must be
_SIZE_LIMITS = [float(np.sqrt(a * b)) for a, b in zip(list(RADII.values())[:-1], list(RADII.values())[1:], strict=True)]


@dataclass(frozen=True)
class SeenObject:
    """One object as the scorer sees it; None is "cannot tell".

    Attributes:
        shape, colour, texture, size: names as in `world.Thing`.
        centre: (x, y) in pixels, of the outline's circle; of the blob where no outline fits.
        radius: in pixels, of the best outline.
        box: (left, top, right, bottom), right and bottom exclusive.
        area: visible pixels.
        fit: intersection over union with the best outline, 0 to 1.
    """

    shape: str | None
    colour: str | None
    texture: str | None
    size: str | None
    centre: tuple[float, float]
    radius: float
    box: tuple[int, int, int, int]
    area: int
    fit: float


@dataclass(frozen=True)
class SeenPicture:
    """objects: largest first; light: one of LIGHTS; ground: one of GROUNDS or `BARE`; None is "cannot tell"."""

    objects: tuple[SeenObject, ...]
    light: str | None
    ground: str | None


def read_picture(pixels: np.ndarray) -> SeenPicture:
    """What is in the picture.

    Args:
        pixels: uint8 [64, 64, 3], sRGB.

    Raises:
        ValueError: another shape or dtype.
    """
    if pixels.shape != (SIZE, SIZE, 3) or pixels.dtype != np.uint8:
        raise ValueError(
            f"pixels is {pixels.dtype} {list(pixels.shape)}; it must be uint8 [{SIZE}, {SIZE}, 3]: the scorer knows the"
            " sizes of its own world only"
        )
    smooth = smoothed(pixels.astype(np.float32))
    light, ground, background = read_scenery(smooth)
    labels, distances, to_background = cluster(smooth, background)
    masks = find_objects(labels, smooth, distances, to_background, background[-1])
    objects = [_read_object(mask, colour, masks, smooth, distances, background[-1]) for colour, mask in masks]
    return SeenPicture(tuple(sorted(objects, key=lambda seen: -seen.area)), light, ground)


def _read_object(
    mask: np.ndarray,
    colour: int,
    masks: Masks,
    smooth: np.ndarray,
    distances: np.ndarray,
    background: np.ndarray,
) -> SeenObject:
    pure = pure_pixels(mask, distances[colour])
    texture = read_texture(pure, colour, smooth)
    hidden = elsewhere(mask, masks)
    covered = np.where(hidden, 0, coverage(mask, texture, colour, smooth, background))
    outline = fit_outline(covered, hidden, blurred=True)
    known = outline.fit >= MIN_FIT and outline.margin >= _FIT_MARGIN
    to_rays = distances[:, pure].mean(1)
    nearest, second = np.sort(to_rays)[:2]
    sure = nearest < _COLOUR_REACH and second > _COLOUR_MARGIN * nearest and int(np.argmin(to_rays)) == colour
    ys, xs = np.nonzero(mask)
    return SeenObject(
        shape=outline.shape if known else None,
        colour=tuple(COLOURS)[colour] if sure else None,
        texture=texture.name,
        size=SIZES[int(np.searchsorted(_SIZE_LIMITS, outline.radius))] if known else None,
        centre=outline.centre if known else (float(xs.mean()) + 0.5, float(ys.mean()) + 0.5),
        radius=outline.radius,
        box=(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1),
        area=len(xs),
        fit=outline.fit,
    )


# -- how often it is right


def degrade(pixels: np.ndarray, blur: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The picture blurred (sigma in pixels) and then with Gaussian noise (standard deviation, 1 is white)."""
    image = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(blur)) if blur else pixels
    noisy = np.asarray(image, float) + rng.normal(0, 255 * noise, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def compare(seen: SeenPicture, scene: Scene, picture: Picture) -> Counter:
    """(category, right or not) -> how often, of one picture whose truth is known.

    Seen and true objects are paired by their places, nearest first. An object that was not seen is wrong in every
    category; "number" is right where as many are seen as there are.
    """
    counts: Counter = Counter()
    counts["light", seen.light == scene.drawn_light] += 1
    counts["ground", seen.ground == (scene.ground or BARE)] += 1
    counts["number", len(seen.objects) == len(picture.objects)] += 1
    distances = {
        (i, j): float(np.hypot(*np.subtract(one.centre, true.centre)))
        for i, one in enumerate(seen.objects)
        for j, true in enumerate(picture.objects)
    }
    paired: dict[int, int] = {}
    for i, j in sorted(distances, key=lambda pair: distances[pair]):
        if i not in paired.values() and j not in paired:
            paired[j] = i
    for j, true in enumerate(picture.objects):
        thing = scene.things[true.thing]
        one = seen.objects[paired[j]] if j in paired else None
        counts["shape", one is not None and one.shape == thing.shape] += 1
        counts["colour", one is not None and one.colour == thing.colour] += 1
        counts["texture", one is not None and one.texture == thing.drawn_texture] += 1
        counts["size", one is not None and one.size == thing.drawn_size] += 1
        counts["place", one is not None and distances[paired[j], j] <= PLACE_TOLERANCE] += 1
    return counts


def rendered(count: int, things: int, seed: int) -> Iterator[tuple[Scene, Picture]]:
    """So many scenes of every split, and their pictures; scenes that cannot be drawn are passed by."""
    rng = np.random.default_rng([seed, things])
    made = 0
    while made < count:
        scene = draw_scene(rng, ("train", "validation", "test")[made % 3], things)
        try:
            picture = render(scene, rng)
        except ValueError:  # two large stars, for example
            continue
        made += 1
        yield scene, picture


def reconstructor(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What a saved pipeline's autoencoder makes of a picture, uint8 [64, 64, 3]."""
    import torch
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL.from_pretrained(model, subfolder="vae", use_safetensors=True, local_files_only=True)
    vae = vae.float().eval()

    def reconstruct(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            decoded = vae.decode(vae.encode(image).latent_dist.mean).sample[0].clamp(-1, 1)
        return ((decoded + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()

    return reconstruct


def measure(pictures: int, seed: int = 0, model: Path | None = None) -> list[dict]:
    """One row for each kind of picture and number of things: accuracy of every category, and time.

    Args:
        pictures: of each number of things.
        model: of a saved pipeline, whose autoencoder makes one more kind of picture.
    """
    noise = np.random.default_rng([seed, 1])
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        name: functools.partial(degrade, blur=blur, noise=strength, rng=noise)
        for name, (blur, strength) in DEGRADATIONS.items()
    }
    if model is not None:
        kinds["decoded by the miniature"] = reconstructor(model)
    rows = []
    for kind, change in kinds.items():
        for things in range(1, 5):
            counts: Counter = Counter()
            seconds = 0.0
            for scene, picture in rendered(pictures, things, seed):
                pixels = change(picture.pixels)
                began = time.perf_counter()
                seen = read_picture(pixels)
                seconds += time.perf_counter() - began
                counts += compare(seen, scene, picture)
            objects = counts["shape", True] + counts["shape", False]
            row: dict[str, Any] = dict(picture=kind, things=things, pictures=pictures, objects=objects)
            for category in (*OBJECT_CATEGORIES, *PICTURE_CATEGORIES):
                right, wrong = counts[category, True], counts[category, False]
                row[category] = right / (right + wrong)
            rows.append(row | dict(ms_per_picture=1e3 * seconds / pictures))
    return rows


def as_table(rows: list[dict]) -> str:
    """The rows as a Markdown table, in percent."""
    categories = [*OBJECT_CATEGORIES, *PICTURE_CATEGORIES]
    lines = [
        "| picture | things | objects | " + " | ".join(categories) + " |",
        "| --- |" + " --- |" * (2 + len(categories)),
    ]
    for row in rows:
        head = [row["picture"], str(row["things"]), str(row["objects"])]
        lines.append("| " + " | ".join([*head, *(f"{100 * row[category]:.2f}" for category in categories)]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500, help="of each kind and number of things (500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, metavar="DIR", help="a saved miniature")
    parser.add_argument("--save", action="store_true", help=f"write scorer.json and scorer.md to {RESULTS.name}/")
    options = parser.parse_args()
    rows = measure(options.pictures, options.seed, options.model)
    table = as_table(rows)
    print(table)
    print(f"{np.mean([row['ms_per_picture'] for row in rows]):.1f} ms a picture")
    if options.save:
        command = f"python -m benchmarks.miniature.scorer --pictures {options.pictures} --seed {options.seed} --save"
        if options.model is not None:
            command += " --model DIR"
        accuracies = [{key: value for key, value in row.items() if key != "ms_per_picture"} for row in rows]
        (RESULTS / "scorer.json").write_text(json.dumps({"command": command, "rows": accuracies}, indent=1) + "\n")
        text = f"Accuracy of the little world's scorer in percent, made by `{command}`.\n\n{table}\n"
        (RESULTS / "scorer.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
