"""Where the objects of a picture are: light and ground, colour clustering, connected components."""

import itertools

import numpy as np

from attnmod.benchmarks.miniature import world
from attnmod.benchmarks.miniature.descriptors import (
    MIN_FIT,
    Texture,
    dilated,
    eroded,
    fit_outline,
    neighbours,
    read_texture,
    rgb,
    smoothed,
)
from attnmod.benchmarks.miniature.world import COLOURS, GROUNDS, HORIZON, LIGHTS, SIZE

BARE = "bare"  # the answer "there is no ground"

_BACKGROUND_REACH = 45.0  # in RGB; less than the nearest two backgrounds are apart, and noise
_MIN_BACKGROUND = 0.04  # part of the rows that must come close to a background
_MIN_AREA = 45  # pixels of an object; the smallest that is drawn has 115
_MIN_CORE = 8  # pixels of it whose neighbours are of the same colour
_MAX_FRAGMENT = 150
_PURE = 30.0  # distance in RGB from its colour's ray of a pixel that is hardly mixed
_GOOD_FIT = 0.86  # what fits so well is not parted
_PARTING_GAIN = 0.04

Masks = list[tuple[int, np.ndarray]]  # (colour, bool [64, 64]) of each object


# -- the scenery


def read_scenery(smooth: np.ndarray) -> tuple[str | None, str | None, list[np.ndarray]]:
    """Light, ground, and the background as the colours that a pixel may have in it: each [64, 64, 3]."""
    upper, lower = smooth[: HORIZON - 1].reshape(-1, 3), smooth[HORIZON + 1 :].reshape(-1, 3)
    light = _most_common(upper, world.BACKGROUNDS)
    lights = [light] if light else LIGHTS
    grounds = {(BARE, one): world.BACKGROUNDS[one] for one in lights}
    grounds |= {key: value for key, value in world.GROUND_COLOURS.items() if key[1] in lights}
    found = _most_common(lower, grounds)
    ground = found[0] if found else None
    drawn_light = light or (found[1] if found else "day")
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = world.BACKGROUNDS[drawn_light]
    sharp = [image.copy()]
    if ground in GROUNDS:
        image[HORIZON:] = world.GROUND_COLOURS[ground, drawn_light]
        sharp += [image, smoothed(smoothed(image))]  # the horizon, sharp and blurred
    return light, ground, sharp


def _most_common(pixels: np.ndarray, colours: dict):
    """The key whose colour most of the pixels [n, 3] come close to, or None."""
    distance = np.stack([np.linalg.norm(pixels - np.array(value, np.float32), axis=1) for value in colours.values()])
    nearest = np.where(distance.min(0) < _BACKGROUND_REACH, distance.argmin(0), -1)
    counts = [np.count_nonzero(nearest == index) for index in range(len(colours))]
    best = int(np.argmax(counts))
    clear = counts[best] >= _MIN_BACKGROUND * len(pixels) and 2 * counts[best] > sum(counts)
    return list(colours)[best] if clear else None


# -- colours


def cluster(smooth: np.ndarray, background: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, distances from the rays, distance from the background.

    Returns:
        int [64, 64], 0 is background, else 1 + the colour; float [8, 64, 64], from each colour's ray; float [64, 64].
    """
    distances = np.stack([_distance_from_ray(smooth, rgb(colour)) for colour in range(len(COLOURS))])
    to_background = np.min([np.linalg.norm(smooth - one, axis=2) for one in background], axis=0)
    nearest = distances.argmin(0)
    return np.where(distances.min(0) < to_background, 1 + nearest, 0), distances, to_background


def _distance_from_ray(smooth: np.ndarray, ray: np.ndarray) -> np.ndarray:
    shade = np.clip(smooth @ ray / (ray @ ray), 0.9 * world.SHADE, 1.1)
    return np.linalg.norm(smooth - shade[..., None] * ray, axis=2)


# -- objects


def find_objects(
    labels: np.ndarray, smooth: np.ndarray, distances: np.ndarray, to_background: np.ndarray, background: np.ndarray
) -> Masks:
    """The objects, from what `cluster` found in the smoothed picture; background: float [64, 64, 3]."""
    kept: Masks = []
    fragments: Masks = []  # too small for an object
    for label, core in _components(_cores(labels)):
        mask = dilated(core) & (labels == label)
        if np.count_nonzero(core) >= _MIN_CORE and np.count_nonzero(mask) >= _MIN_AREA:
            kept.append((label - 1, mask))
        elif np.count_nonzero(core) >= 2:
            fragments.append((label - 1, mask))
    kept = _grown(kept, distances < to_background)
    kept = [(colour, _trimmed(mask, colour, smooth, background, distances[colour])) for colour, mask in kept]
    kept = [part for colour, mask in kept for part in _parted(colour, mask, kept)]
    return _joined(kept, fragments)


def _cores(labels: np.ndarray) -> np.ndarray:
    """The labels of the pixels whose four neighbours have the same."""
    same = [shifted == labels for shifted in neighbours(labels)]
    return np.where(same[0] & same[1] & same[2] & same[3], labels, 0)


def _components(labels: np.ndarray) -> Masks:
    """(label, mask) of each 4-connected component of equal label, label 0 left out. Runs of rows, joined."""
    runs: list[tuple[int, int, int, int]] = []  # row, first, end, label
    parent: list[int] = []

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    above: list[int] = []
    for row in range(labels.shape[0]):
        line = labels[row]
        edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), len(line)]
        here = []
        for first, end in itertools.pairwise(edges):
            if line[first] == 0:
                continue
            index = len(runs)
            runs.append((row, first, end, int(line[first])))
            parent.append(index)
            here.append(index)
            for other in above:
                _, start, stop, label = runs[other]
                if label == line[first] and start < end and first < stop:
                    parent[root(other)] = root(index)
        above = here
    found: dict[int, np.ndarray] = {}
    for index, (row, first, end, _) in enumerate(runs):
        found.setdefault(root(index), np.zeros(labels.shape, bool))[row, first:end] = True
    return [(runs[index][3], mask) for index, mask in found.items()]


def _grown(kept: Masks, likely: np.ndarray, steps: int = 2) -> Masks:
    """Each object with the pixels beside it that may be of its colour and are nobody's; ties go to the earlier one."""
    owner = np.zeros((SIZE, SIZE), int)
    for index, (_, mask) in enumerate(kept):
        owner[mask] = index + 1
    may = np.zeros((len(kept) + 1, SIZE, SIZE), bool)
    for index, (colour, _) in enumerate(kept):
        may[index + 1] = likely[colour]
    for _ in range(steps):
        for shifted in neighbours(owner):
            take = (owner == 0) & np.take_along_axis(may, shifted[None], 0)[0]
            owner = np.where(take, shifted, owner)
    return [(colour, _filled(owner == index + 1)) for index, (colour, _) in enumerate(kept)]


def _trimmed(mask, colour: int, smooth: np.ndarray, background: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Without the edge that is more background than object, whose brightness there follows from its texture."""
    part = coverage(mask, read_texture(pure_pixels(mask, distance), colour, smooth), colour, smooth, background)
    return mask & (part > 0.5) | eroded(eroded(mask))


def coverage(mask: np.ndarray, texture: Texture, colour: int, smooth: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Which part of each pixel is the object's, float [64, 64] in 0 to 1; for pixels within two of the mask.

    A pixel is taken for a mixture of the background and of the colour with the texture's brightness there. Where the
    texture could not be told this is the mask itself.
    """
    if texture.name is None:
        return mask.astype(np.float32)
    towards = texture.shade[..., None] * rgb(colour) - background
    part = ((smooth - background) * towards).sum(2) / np.maximum((towards**2).sum(2), 1.0)
    return np.where(dilated(dilated(mask)), np.clip(part, 0, 1), 0).astype(np.float32)


def pure_pixels(mask: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The pixels of an object that are least mixed with what is around it."""
    core = eroded(mask)
    for pixels in (core & (distance < _PURE), core):
        if np.count_nonzero(pixels) >= _MIN_CORE:
            return pixels
    return mask


def _filled(mask: np.ndarray) -> np.ndarray:
    """Without the holes of one or two pixels that noise makes."""
    around = sum(shifted.astype(int) for shifted in neighbours(mask))
    return mask | (around >= 3)


def _parted(colour: int, mask: np.ndarray, objects) -> Masks:
    """Two of a kind that touch, as two: where a mask fits no outline well, and falls apart when it is thinned."""
    whole = fit_outline(mask, elsewhere(mask, objects))
    if whole.fit >= _GOOD_FIT:
        return [(colour, mask)]
    thin = mask
    for _ in range(4):
        thin = eroded(thin)
        cores = [core for _, core in _components(thin.astype(int)) if np.count_nonzero(core) >= 4]
        if len(cores) < 2:
            continue
        parts = [part for _, part in _grown([(0, core) for core in cores], mask[None], steps=8)]
        parts = [part for part in parts if np.count_nonzero(part) >= _MIN_AREA]
        fits = [fit_outline(part, elsewhere(part, objects) | (mask & ~part)).fit for part in parts]
        if len(parts) >= 2 and min(fits) >= max(MIN_FIT, whole.fit + _PARTING_GAIN):
            return [(colour, part) for part in parts]
    return [(colour, mask)]


def _joined(kept: Masks, fragments: Masks) -> Masks:
    """Pieces go to the object of their colour whose outline they complete; other fragments are dropped."""
    pieces = [one for one in kept if np.count_nonzero(one[1]) < _MAX_FRAGMENT] + fragments
    objects = list(kept)
    for colour, piece in pieces:
        others = [one for one in objects if one[1] is not piece]
        for index, (other_colour, mask) in enumerate(others):
            if other_colour != colour:
                continue
            rest = others[:index] + others[index + 1 :]
            apart = fit_outline(mask, elsewhere(mask, rest) & ~piece)
            together = fit_outline(mask | piece, elsewhere(mask | piece, rest))
            if together.fit > max(apart.fit + 0.01, MIN_FIT):
                objects = [*rest, (colour, mask | piece)]
                break
    return objects


def elsewhere(mask: np.ndarray, objects) -> np.ndarray:
    """Where other objects lie."""
    hidden = np.zeros(mask.shape, bool)
    for _, other in objects:
        hidden |= other
    return hidden & ~mask
