"""Shape and texture of one object's mask: outlines by intersection over union, patterns by correlation."""

import functools
from dataclasses import dataclass

import numpy as np

from attnmod.benchmarks.miniature import world
from attnmod.benchmarks.miniature.world import COLOURS, SHAPES, SIZE, TEXTURES

MIN_FIT = 0.70
_MIN_CONTRAST, _MIN_CORRELATION = 0.15, 0.55
_TEXTURE_MARGIN = 0.04
_REACH = 24  # of a template, pixels from its middle
_SHIFTS = np.arange(-2, 3)  # of a template about the centroid
_TEMPLATE_RADII = 6.0 * 1.035 ** np.arange(34)  # 6.0 to 18.7 pixels


@dataclass(frozen=True)
class Outline:
    shape: str
    fit: float
    margin: float  # to the best outline of another shape
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class _Templates:
    """Outlines with their centroid in the middle of a window.

    shapes: index of each; radii; areas; lower: how far the centroid lies below the circle's centre;
    images: float [n, window * window], and squares, those squared; energies: the sum of these.
    """

    shapes: np.ndarray
    radii: np.ndarray
    areas: np.ndarray
    lower: np.ndarray
    images: np.ndarray
    squares: np.ndarray
    energies: np.ndarray


@functools.cache
def _templates(blurred: bool) -> _Templates:
    rows = []
    middle = SIZE / 2 + 0.5  # a pixel's centre
    window = slice(SIZE // 2 - _REACH, SIZE // 2 + _REACH + 1)
    for shape_index, shape in enumerate(SHAPES):
        for radius in _TEMPLATE_RADII:
            coverage = world._coverage(shape, (middle, middle), radius)
            lower = float((coverage.sum(1) * (np.arange(SIZE) + 0.5)).sum() / coverage.sum()) - middle
            coverage = world._coverage(shape, (middle, middle - lower), radius)
            area = coverage.sum()
            if blurred:  # as a generated picture is, and once more by the scorer itself
                coverage = smoothed(smoothed(coverage[..., None]))[..., 0]
            rows.append((shape_index, radius, area, lower, coverage[window, window].ravel()))
    columns = zip(*rows, strict=True)
    shapes, radii, areas, lower, images = (np.stack(column) for column in columns)
    images = images.astype(np.float32)
    return _Templates(shapes, radii, areas, lower, images, images**2, (images**2).sum(1))


def fit_outline(coverage: np.ndarray, hidden: np.ndarray, blurred: bool = False) -> Outline:
    """The outline with the largest intersection over union, over shapes, radii and places about the centroid.

    Args:
        coverage: [64, 64], which part of each pixel is the object's, 0 to 1; or bool, its visible pixels. Of parts, the
            intersection is the sum of products, and the union the sum of squares less that (Tanimoto's coefficient).
        hidden: bool, where others lie: an outline's part there is neither right nor wrong.
        blurred: compare with blurred outlines: where corners are round, faint tips still tell a star from a circle.
    """
    templates = _templates(blurred)
    coverage = coverage.astype(np.float32)
    area = float(coverage.sum())
    places = np.arange(SIZE)
    x, y = float(coverage.sum(0) @ places) / area, float(coverage.sum(1) @ places) / area
    chosen = (templates.areas > 0.85 * area) & (templates.areas < 1.45 * area)
    column, row = round(x), round(y)
    inside = templates.images[chosen] @ _windows(coverage, column, row)  # [n, shifts]
    covered = np.broadcast_to(templates.energies[chosen, None], inside.shape)
    if hidden.any():
        covered = covered - templates.squares[chosen] @ _windows(hidden, column, row)
    scores = inside / (float((coverage**2).sum()) + covered - inside)
    scores = np.where(covered > 0.6 * templates.energies[chosen, None], scores, 0)
    if not scores.size:
        return Outline(SHAPES[0], 0.0, 0.0, (x + 0.5, y + 0.5), float(np.sqrt(area / np.pi)))
    shapes = templates.shapes[chosen]
    by_shape = [scores[shapes == index].max(initial=0.0) for index in range(len(SHAPES))]
    best = int(np.argmax(by_shape))
    template, shift = np.unravel_index(int(np.argmax(np.where((shapes == best)[:, None], scores, -1))), scores.shape)
    down, right = np.unravel_index(shift, (len(_SHIFTS),) * 2)
    lower = templates.lower[chosen][template]
    centre = (column + 0.5 + float(_SHIFTS[right]), row + 0.5 + float(_SHIFTS[down]) - float(lower))
    margin = by_shape[best] - max(score for index, score in enumerate(by_shape) if index != best)
    return Outline(SHAPES[best], float(by_shape[best]), float(margin), centre, float(templates.radii[chosen][template]))


def _windows(image: np.ndarray, column: int, row: int) -> np.ndarray:
    """float [window * window, shifts]: the image about (column, row) moved by each of the shifts."""
    reach = _REACH + int(_SHIFTS[-1])
    padded = np.pad(image, reach).astype(np.float32)[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
    view = np.lib.stride_tricks.sliding_window_view(padded, (2 * _REACH + 1,) * 2)
    return view.reshape(len(_SHIFTS) ** 2, -1).T


@functools.cache
def _patterns() -> tuple[np.ndarray, np.ndarray]:
    """Marks of every texture wherever it begins, float [n, 64 * 64], and the texture of each."""
    periods = {"striped": (8, 1), "dotted": (6, 6), "checked": (8, 4)}  # checks moved by 4 in both are the same
    images, names = [], []
    for texture, (down, right) in periods.items():
        marks = smoothed(world._MARKS[texture].astype(np.float32)[..., None])[..., 0]
        for y in range(down):
            for x in range(right):
                wide = np.pad(marks, ((y, 0), (x, 0)), mode="wrap")[:SIZE, :SIZE]
                images.append(wide.ravel())
                names.append(TEXTURES.index(texture))
    return np.stack(images), np.array(names)


@dataclass(frozen=True)
class Texture:
    """name: one of TEXTURES or None; shade: the brightness, as part of the colour, that follows from it [64, 64]."""

    name: str | None
    shade: np.ndarray


def read_texture(core: np.ndarray, colour: int, smooth: np.ndarray) -> Texture:
    ray = rgb(colour)
    shade = smooth[core] @ ray / (ray @ ray)  # [n]
    patterns, names = _patterns()
    marks = patterns[:, core.ravel()]
    mean_marks, mean_shade = marks.mean(1, keepdims=True), float(shade.mean())
    marks = marks - mean_marks
    spread = np.sqrt((marks**2).sum(1)) + 1e-6
    shade = shade - mean_shade
    projection = -(marks @ shade)  # marks are darker
    correlation = projection / (spread * (np.linalg.norm(shade) + 1e-6))
    best = [correlation[names == index].max(initial=-1.0) for index in range(len(TEXTURES))]
    winner = int(np.argmax(best))
    place = int(np.argmax(np.where(names == winner, correlation, -2)))
    contrast = projection[place] / spread[place] ** 2  # brightness that a mark takes away
    if contrast < _MIN_CONTRAST:
        solid = float(shade.std()) < _MIN_CONTRAST
        return Texture("solid" if solid else None, np.full((SIZE, SIZE), mean_shade, np.float32))
    image = mean_shade - contrast * (patterns[place].reshape(SIZE, SIZE) - mean_marks[place])
    clear = best[winner] >= _MIN_CORRELATION and best[winner] - sorted(best)[-2] >= _TEXTURE_MARGIN
    return Texture(TEXTURES[winner] if clear else None, image)


def rgb(colour: int) -> np.ndarray:
    return np.array(list(COLOURS.values())[colour], np.float32)


# -- images


def smoothed(image: np.ndarray) -> np.ndarray:
    """[64, 64, c] blurred by the 3 x 3 binomial; edges repeat."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


def neighbours(image: np.ndarray) -> list[np.ndarray]:
    """The image moved by one pixel in the four directions; zeros come in."""
    padded = np.pad(image, 1)
    return [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]


def dilated(mask: np.ndarray) -> np.ndarray:
    up, down, left, right = neighbours(mask)
    return mask | up | down | left | right


def eroded(mask: np.ndarray) -> np.ndarray:
    up, down, left, right = neighbours(mask)
    return mask & up & down & left & right
