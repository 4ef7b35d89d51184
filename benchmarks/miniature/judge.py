"""Holds what a picture shows against what its prompt asked for: right or wrong in six categories; mistakes by kind.

Matching. Every object that was asked for (a thing asked for three times is three objects) is matched with at most one
seen object. A pair is possible if its shapes or its colours agree. Of all matchings the one of the highest sum counts,
where an agreeing shape is worth 4, colour 3, texture 2 and size 1; so an object is first of all its shape, and
"a red circle and a blue square" drawn as a blue circle and a red square has both colours wrong and both shapes right.
A seen attribute that the scorer could not tell agrees with nothing.

- lost: objects asked for that no seen object is matched with. extra: seen objects that are matched with none.
- fused: seen objects whose shape cannot be told, in a picture that has lost an object: what is left of two that grew
  together.
- leaked: attributes (colour, texture, size, or shape) of matched objects that are not their own thing's but another
  thing's of the same prompt. Also where their own thing leaves texture or size open. Unasked ("solid", "medium")
  attributes of the other thing leak nothing.

The categories, each True, False, or None where the prompt does not ask for it:

- colour: every object asked for was found and has its colour.
- content: every object asked for was found and has its shape.
- number: for each thing asked for by a number word (two, three, four): as many objects of its shape are seen as that.
- texture: every object of a thing whose texture is said was found and has it.
- time: the light that is said.
- location: the ground that is said; and the relation between every object of the first and every one of the second
  thing, whose centres must differ by half of `world.RELATION_GAP` at least.

Size is not among the paper's six; it is the seventh. The whole prompt is right if no category is False and there is no
object too many. What a prompt leaves open is not judged.
"""

import functools
from dataclasses import dataclass

from attnmod.benchmarks.miniature.scorer import SeenObject, SeenPicture
from attnmod.benchmarks.miniature.world import RELATION_GAP, Scene, Thing

CATEGORIES = ("colour", "content", "number", "texture", "time", "location")
ALL_CATEGORIES = (*CATEGORIES, "size")
MISTAKES = ("lost", "extra", "fused", "leaked")
_WORTH = {"shape": 4, "colour": 3, "texture": 2, "size": 1}
_MOST_SEEN = 12  # objects; the matching looks at no more, largest first


@dataclass(frozen=True)
class Verdict:
    """What is right and wrong in one picture.

    Attributes:
        categories: True, False or None (not asked), for each of ALL_CATEGORIES.
        asked: objects asked for. seen: objects seen.
        attributes: the share, 0 to 1, of all that is said of the objects asked for (shape, colour, texture, size, of
            each object) that the seen ones have. It varies less from picture to picture than right or wrong does.
        lost, extra, fused, leaked: how many, as the module says.
        leaks: "thing attribute value" for each that leaked.
    """

    categories: dict[str, bool | None]
    asked: int
    seen: int
    attributes: float
    lost: int
    extra: int
    fused: int
    leaked: int
    leaks: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything that was asked for is there, and nothing else."""
        return self.extra == 0 and not any(right is False for right in self.categories.values())

    @property
    def layout(self) -> bool:
        """Whether as many objects are there as were asked for, of each, and where they were asked for.

        What is wrong then is an attribute; where this is False, the picture went wrong before it had any.
        """
        placed = self.categories["location"] is not False and self.categories["number"] is not False
        return placed and not self.lost and not self.extra


def judge(scene: Scene, seen: SeenPicture) -> Verdict:
    """Right or wrong, category by category."""
    things = scene.things
    asked = [index for index, thing in enumerate(things) for _ in range(thing.count)]
    found = match(tuple(things[index] for index in asked), seen.objects)
    pairs = [
        (thing, things[thing], None if one is None else seen.objects[one])
        for thing, one in zip(asked, found, strict=True)
    ]

    def every(attribute: str, field: str) -> bool | None:
        """Whether all objects have what is said of them; None where nothing is said."""
        said = [(getattr(thing, field), one) for _, thing, one in pairs if getattr(thing, field) is not None]
        return all(one is not None and getattr(one, attribute) == value for value, one in said) if said else None

    categories = {
        "colour": every("colour", "colour"),
        "content": every("shape", "shape"),
        "number": _number(scene, seen),
        "texture": every("texture", "texture"),
        "time": None if scene.light is None else seen.light == scene.light,
        "location": _location(scene, seen, pairs),
        "size": every("size", "size"),
    }
    lost = sum(one is None for _, _, one in pairs)
    shapeless = sum(one.shape is None for one in seen.objects)
    leaks = tuple(leak for index, thing, one in pairs if one is not None for leak in _leaks(things, index, thing, one))
    return Verdict(
        categories=categories,
        asked=len(asked),
        seen=len(seen.objects),
        attributes=_share_of_attributes(pairs),
        lost=lost,
        extra=len(seen.objects) - (len(asked) - lost),
        fused=shapeless if lost else 0,
        leaked=len(leaks),
        leaks=leaks,
    )


def match(asked: tuple[Thing, ...], objects: tuple[SeenObject, ...]) -> list[int | None]:
    """For each object asked for, the index of its seen object, or None: the matching of the highest worth."""
    objects = objects[:_MOST_SEEN]
    worth = [[_worth(thing, one) for one in objects] for thing in asked]

    @functools.cache
    def best(first: int, used: int) -> tuple[int, tuple[int | None, ...]]:
        """The highest worth of the asked objects from `first` on, without the seen ones whose bits are set."""
        if first == len(asked):
            return 0, ()
        value, rest = best(first + 1, used)
        answer: tuple[int, tuple[int | None, ...]] = (value, (None, *rest))
        for index, gain in enumerate(worth[first]):
            if gain and not used >> index & 1:
                value, rest = best(first + 1, used | 1 << index)
                if gain + value > answer[0]:
                    answer = (gain + value, (index, *rest))
        return answer

    return list(best(0, 0)[1])


def _worth(thing: Thing, one: SeenObject) -> int:
    if one.shape != thing.shape and one.colour != thing.colour:
        return 0
    agree = {
        "shape": one.shape == thing.shape,
        "colour": one.colour == thing.colour,
        "texture": one.texture == thing.drawn_texture,
        "size": one.size == thing.drawn_size,
    }
    return sum(_WORTH[name] for name, agrees in agree.items() if agrees)


def _share_of_attributes(pairs) -> float:
    said = [
        one is not None and getattr(one, name) == getattr(thing, name)
        for _, thing, one in pairs
        for name in _WORTH
        if getattr(thing, name) is not None
    ]
    return sum(said) / len(said)


def _number(scene: Scene, seen: SeenPicture) -> bool | None:
    counted = [thing for thing in scene.things if thing.count > 1]
    if not counted:
        return None
    return all(sum(one.shape == thing.shape for one in seen.objects) == thing.count for thing in counted)


def _location(scene: Scene, seen: SeenPicture, pairs) -> bool | None:
    if scene.ground is None and scene.relation is None:
        return None
    if scene.ground is not None and seen.ground != scene.ground:
        return False
    if scene.relation is None:
        return True
    first, second = ([one for index, _, one in pairs if index == wanted] for wanted in (0, 1))
    return all(a is not None and b is not None and _stands(scene.relation, a, b) for a in first for b in second)


def _stands(relation: str, a: SeenObject, b: SeenObject) -> bool:
    right, down = (after - before for before, after in zip(a.centre, b.centre, strict=True))
    distance = {"left of": right, "right of": -right, "above": down, "below": -down}[relation]
    return distance >= RELATION_GAP / 2


def _leaks(things: tuple[Thing, ...], index: int, thing: Thing, one: SeenObject) -> list[str]:
    """What the object seen for a thing has from another thing."""
    others = [other for place, other in enumerate(things) if place != index]
    own = {"shape": thing.shape, "colour": thing.colour, "texture": thing.drawn_texture, "size": thing.drawn_size}
    return [
        f"{index} {name} {value}"
        for name, mine in own.items()
        if (value := getattr(one, name)) not in (None, mine) and value in [getattr(other, name) for other in others]
    ]
