"""A little world: scenes of one to four objects, and their pictures.

    scene   = draw_scene(rng, split="train")     what is there
    prompt  = write_prompt(scene, rng)           how somebody would ask for it (prompts.py)
    picture = render(scene, rng)                 what it looks like, and where everything is

What a prompt can say are the six categories of alignment: colour, content (the shape), number, texture, time (the
light) and location (a relation, the ground), and the size. What it leaves unsaid is None in the scene and drawn as
`Thing.drawn_texture`, `Thing.drawn_size` and `Scene.drawn_light` say: solid, medium, by day, on no ground.

The rules of the pictures, all of which a reader of pictures may rely on:

- 64 x 64 pixels, sRGB. The background is one flat colour, which tells the light (`BACKGROUNDS`); the rows from
  `HORIZON` down are the ground, if there is one, in the colour `GROUND_COLOURS[ground, light]`. Over all lies Gaussian
  noise of standard deviation `NOISE`.
- Light changes background and ground only: an object has its own colour at night, too.
- An object is upright, of its shape's outline scaled by a radius within 5 % of `RADII[size]`. Its pixels have its
  colour (`COLOURS`), and where the texture has marks, `SHADE` times it. The marks hang on the picture's grid, not
  on the object: stripes are horizontal, 4 pixels wide; checks are squares of 4; dots stand 6 apart in rows and columns.
- In one scene the things differ in colour and in shape. All objects of a thing look alike, and
  lie at least `TWIN_GAP` pixels apart.
- Objects lie wholly inside the picture. They may overlap a little: each keeps at least `MIN_VISIBLE` of its area.
- A relation holds between every object of things[0] and every object of things[1]: the centres differ by at
  least `RELATION_GAP` pixels in its direction, however they lie across it (`relation_holds`).

`render` gives the truth as a `Picture`: pixels, and every object's thing, centre, radius, box and visible mask.

Which combinations are trained on is decided by `combination_split`, a rule and not a list.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 64
COLOURS = {
    "red": (222, 28, 36),
    "orange": (250, 132, 12),
    "yellow": (252, 228, 24),
    "green": (22, 168, 48),
    "cyan": (20, 206, 220),
    "blue": (28, 64, 232),
    "purple": (140, 36, 196),
    "pink": (252, 112, 190),
}
SHAPES = ("circle", "square", "triangle", "ring", "star", "cross")
TEXTURES = ("solid", "striped", "dotted", "checked")
RADII = {"small": 8.0, "medium": 11.0, "large": 15.5}
SIZES = tuple(RADII)
BACKGROUNDS = {"day": (206, 214, 222), "dusk": (158, 130, 134), "night": (58, 62, 82)}
LIGHTS = tuple(BACKGROUNDS)
GROUND_COLOURS = {
    ("grass", "day"): (142, 160, 118),
    ("grass", "dusk"): (104, 106, 82),
    ("grass", "night"): (44, 54, 46),
    ("sand", "day"): (198, 180, 146),
    ("sand", "dusk"): (150, 116, 92),
    ("sand", "night"): (82, 76, 68),
    ("snow", "day"): (248, 250, 252),
    ("snow", "dusk"): (206, 186, 194),
    ("snow", "night"): (112, 118, 140),
}
GROUNDS = ("grass", "sand", "snow")
RELATIONS = ("left of", "right of", "above", "below")
SPLITS = ("train", "validation", "test")
MAX_OBJECTS = 4
HORIZON = 48
SHADE = 0.42
MIN_VISIBLE = 0.92
RELATION_GAP = 10.0
TWIN_GAP = 2  # pixels
NOISE = 2.5  # standard deviation, of 255

_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One kind of object: what "two small striped red circles" says. None is unsaid."""

    shape: str
    colour: str
    texture: str | None = None
    size: str | None = None
    count: int = 1

    @property
    def drawn_texture(self) -> str:
        return self.texture or "solid"

    @property
    def drawn_size(self) -> str:
        return self.size or "medium"


@dataclass(frozen=True)
class Scene:
    """Things, the relation of the first to the second, the light and the ground. None is unsaid."""

    things: tuple[Thing, ...]
    relation: str | None = None
    light: str | None = None
    ground: str | None = None

    @property
    def drawn_light(self) -> str:
        return self.light or "day"

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Scene":
        """The inverse of `to_dict`."""
        return cls(**{**values, "things": tuple(Thing(**thing) for thing in values["things"])})


@dataclass(frozen=True)
class PlacedObject:
    """One object in a picture.

    Attributes:
        thing: index into the scene's things.
        centre: (x, y) in pixels, of the circle that its outline is scaled by.
        radius: in pixels.
        box: (left, top, right, bottom) of the visible mask, right and bottom exclusive.
        mask: bool [64, 64], the pixels of which it covers at least half.
    """

    thing: int
    centre: tuple[float, float]
    radius: float
    box: tuple[int, int, int, int]
    mask: np.ndarray


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 [64, 64, 3]; objects: later ones lie over earlier ones."""

    pixels: np.ndarray
    objects: tuple[PlacedObject, ...]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)


def combination_split(colour: str, texture: str, shape: str) -> str:
    """Which split a combination belongs to: one in eight is kept for validation and one in eight for the test.

    Every pair of two of the three is trained on.

    >>> combination_split("red", "solid", "circle"), combination_split("green", "solid", "circle")
    ('train', 'test')
    """
    place = tuple(COLOURS).index(colour) + 3 * TEXTURES.index(texture) + 5 * SHAPES.index(shape)
    return {3: "test", 7: "validation"}.get(place % 8, "train")


def scene_split(scene: Scene) -> str | None:
    """The split that all its things belong to, or None where they belong to several."""
    splits = {combination_split(thing.colour, thing.drawn_texture, thing.shape) for thing in scene.things}
    return splits.pop() if len(splits) == 1 else None


# -- scenes


def draw_scene(rng: np.random.Generator, split: str = "train", things: int | None = None) -> Scene:
    """A random scene whose every thing belongs to the split.

    Args:
        rng: the only source of chance.
        split: train, validation or test.
        things: 1 to 4; left out, fewer are likelier.

    Raises:
        ValueError: an unknown split, or a number of things outside 1 to 4.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed are {', '.join(SPLITS)}")
    if things is None:
        things = int(rng.choice(4, p=(0.5, 0.28, 0.13, 0.09))) + 1
    if not 1 <= things <= MAX_OBJECTS:
        raise ValueError(f"things is {things}; it must lie in 1 to {MAX_OBJECTS}")
    counts = _draw_counts(rng, things)
    chosen: list[Thing] = []
    while len(chosen) < things:
        room = sum(counts) <= 2 and all(thing.size != "large" for thing in chosen) and counts[len(chosen)] == 1
        thing = _draw_thing(rng, counts[len(chosen)], ("small", "large") if room else ("small",))
        differs = all(thing.shape != other.shape and thing.colour != other.colour for other in chosen)
        if differs and combination_split(thing.colour, thing.drawn_texture, thing.shape) == split:
            chosen.append(thing)
    return Scene(
        things=tuple(chosen),
        relation=_maybe(rng, 0.7, RELATIONS) if things == 2 and sum(counts) < MAX_OBJECTS else None,
        light=_maybe(rng, 0.45, LIGHTS),
        ground=_maybe(rng, 0.4, GROUNDS),
    )


def _draw_counts(rng: np.random.Generator, things: int) -> list[int]:
    counts = [1] * things
    spare = MAX_OBJECTS - things
    if spare and rng.random() < 0.35:
        counts[int(rng.integers(things))] += int(rng.integers(1, spare + 1))
    return counts


def _draw_thing(rng: np.random.Generator, count: int, sizes: tuple[str, ...]) -> Thing:
    return Thing(
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(tuple(COLOURS))),
        texture=_maybe(rng, 0.5, ("solid", *TEXTURES[1:] * 3)),
        size=_maybe(rng, 0.18 * len(sizes), sizes),
        count=count,
    )


def _maybe(rng: np.random.Generator, chance: float, values: tuple[str, ...]) -> str | None:
    return str(rng.choice(values)) if rng.random() < chance else None


# -- pictures


def render(scene: Scene, rng: np.random.Generator) -> Picture:
    """Place the scene's objects at random, as its relation asks, and draw them.

    Raises:
        ValueError: they do not fit into the picture.
    """
    owners = [index for index, thing in enumerate(scene.things) for _ in range(thing.count)]
    placed = _place(scene, owners, rng)
    pixels = _background(scene)
    masks: list[np.ndarray] = []
    order = rng.permutation(len(owners))
    for index in order:
        thing = scene.things[owners[index]]
        coverage = placed[index][2]
        texture = _MARKS[thing.drawn_texture][..., None]
        colour = np.array(COLOURS[thing.colour], float) * (1 - (1 - SHADE) * texture)
        pixels += coverage[..., None] * (colour - pixels)
        mask = coverage >= 0.5
        masks = [other & ~mask for other in masks] + [mask]
    pixels += rng.normal(0, NOISE, pixels.shape)
    objects = [
        PlacedObject(owners[index], placed[index][0], placed[index][1], _box(mask), mask)
        for index, mask in zip(order, masks, strict=True)
    ]
    return Picture(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), tuple(objects))


def _background(scene: Scene) -> np.ndarray:
    pixels = np.empty((SIZE, SIZE, 3))
    pixels[:] = BACKGROUNDS[scene.drawn_light]
    if scene.ground is not None:
        pixels[HORIZON:] = GROUND_COLOURS[scene.ground, scene.drawn_light]
    return pixels


def _place(scene: Scene, owners: list[int], rng: np.random.Generator, tries: int = 2_000):
    """(centre, radius, coverage [64, 64]) of each object, one by one; all again where one finds no place."""
    for _ in range(tries):
        centres: list[np.ndarray] = []
        radii = [RADII[scene.things[owner].drawn_size] * rng.uniform(0.95, 1.05) for owner in owners]
        for owner, radius in zip(owners, radii, strict=True):
            extent = radius * _EXTENT[scene.things[owner].shape] + 1
            for candidate in rng.uniform(extent, SIZE - extent, (20, 2)):
                # a quick look, which spares the drawing of most that would hide each other
                placed = zip(centres, radii, strict=False)
                near = (np.hypot(*(candidate - other)) < 0.95 * (radius + reach) for other, reach in placed)
                if not any(near) and _relation_holds(scene.relation, owners, [*centres, candidate]):
                    centres.append(candidate)
                    break
            else:
                break
        if len(centres) < len(owners):
            continue
        shapes = [scene.things[owner].shape for owner in owners]
        coverages = [_coverage(*found) for found in zip(shapes, centres, radii, strict=True)]
        if _all_visible(coverages) and not _twins_touch(coverages, owners):
            rounded = [(float(x), float(y)) for x, y in centres]
            return list(zip(rounded, radii, coverages, strict=True))
    raise ValueError(f"the objects of {scene} found no place in {tries} tries")


def _relation_holds(relation: str | None, owners: list[int], centres) -> bool:
    if relation is None:
        return True
    first, second = ([c for c, owner in zip(centres, owners, strict=False) if owner == thing] for thing in (0, 1))
    return all(relation_holds(relation, a, b) for a in first for b in second)


def relation_holds(relation: str, first, second) -> bool:
    """Whether an object at first (x, y) stands in the relation to one at second."""
    right, down = (float(b - a) for a, b in zip(first, second, strict=True))
    distance = {"left of": right, "right of": -right, "above": down, "below": -down}[relation]
    return distance >= RELATION_GAP


def _all_visible(coverages: list[np.ndarray]) -> bool:
    """True where even the lowest of overlapping objects keeps enough of its area, whichever it is."""
    for index, coverage in enumerate(coverages):
        others = [other for place, other in enumerate(coverages) if place != index]
        hidden = np.sum(coverage * np.max(others, axis=0)) if others else 0.0
        if hidden > (1 - MIN_VISIBLE) * np.sum(coverage):
            return False
    return True


def _twins_touch(coverages: list[np.ndarray], owners: list[int]) -> bool:
    """True where two objects of one thing, which look alike, come closer than `TWIN_GAP`."""
    grow = ImageFilter.MaxFilter(2 * TWIN_GAP - 1)
    grown = [Image.fromarray((coverage > 0).astype(np.uint8)).filter(grow) for coverage in coverages]
    pairs = [(i, j) for j in range(len(owners)) for i in range(j) if owners[i] == owners[j]]
    return any(np.any(np.asarray(grown[i]) & (coverages[j] > 0)) for i, j in pairs)


def _coverage(shape: str, centre, radius: float) -> np.ndarray:
    """float [64, 64]: the part of each pixel that the shape covers."""
    canvas = Image.new("L", (SIZE * _SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(canvas)
    for outline, fill in _OUTLINES[shape]:
        points = (np.asarray(outline) * radius + centre) * _SUPERSAMPLING - 0.5
        draw.polygon([tuple(point) for point in points], fill=fill)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), float) / 255


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _polygon(corners: int, radii: tuple[float, ...], lower: float = 0.0) -> np.ndarray:
    """Corners on circles of the radii in turn, the first one on top; lower moves it down."""
    angles = np.arange(corners) * 2 * np.pi / corners
    reach = np.resize(radii, corners)
    return np.stack([reach * np.sin(angles), lower - reach * np.cos(angles)], axis=1)


def _cross(length: float, width: float) -> np.ndarray:
    corner = np.array([(width, -length), (width, -width), (length, -width)])
    quarter = np.array([(0, -1), (1, 0)])
    return np.concatenate([corner @ np.linalg.matrix_power(quarter, turn).T for turn in range(4)])


# Outlines at radius 1, each with its fill: a later one is drawn over an earlier one.
_OUTLINES = {
    "circle": [(_polygon(48, (1.0,)), 255)],
    "square": [(np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]), 255)],
    "triangle": [(_polygon(3, (1.3,), lower=0.3), 255)],
    "ring": [(_polygon(48, (1.08,)), 255), (_polygon(48, (0.48,)), 0)],
    "star": [(_polygon(10, (1.24, 0.54), lower=0.1), 255)],
    "cross": [(_cross(1.08, 0.4), 255)],
}
_EXTENT = {shape: max(float(np.abs(points).max()) for points, _ in parts) for shape, parts in _OUTLINES.items()}


def _marks() -> dict[str, np.ndarray]:
    """float [64, 64] of every texture: how much of each pixel is marked."""
    fine = SIZE * _SUPERSAMPLING
    y, x = (np.mgrid[:fine, :fine] + 0.5) / _SUPERSAMPLING
    patterns = {
        "solid": np.zeros_like(x),
        "striped": (y // 4) % 2,
        "dotted": np.hypot(x % 6 - 3, y % 6 - 3) < 1.9,
        "checked": (x // 4 + y // 4) % 2,
    }
    blocks = (SIZE, _SUPERSAMPLING, SIZE, _SUPERSAMPLING)
    return {name: np.asarray(pattern, float).reshape(blocks).mean((1, 3)) for name, pattern in patterns.items()}


_MARKS = _marks()
