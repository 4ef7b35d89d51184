"""Where and when the picture is: the scene, which every patch sees.

A rule of the same form as those in `roles`, which lists them all.
"""

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import (
    ALWAYS_THINGS,
    BACKDROPS,
    CLOTHING,
    DESCRIBED_PLACES,
    FILLED_WITH,
    LANDMARKS,
    LOOKING,
    MADE_OF,
    PLACES,
    SCENE_PREPOSITIONS,
    SMALL_COPIES,
    SURFACE_PLACES,
    TIMES,
    WHEREABOUTS,
    singular,
)
from attnmod.parser.reading import Reading


def scene(reading: Reading) -> None:
    """Where and when the whole picture is: a place or a time after "in", "on", "at".

    A thing to stand on or beside is an entity ("on a wooden table", "near a lake").

    >>> outline("a fox in a dark forest at night")
    'fox x1; [scene: in a dark forest]; [scene: at night]'
    >>> outline("a fox near a lake")
    'fox x1; lake x1; [relation: near]'
    >>> outline("a couple in Paris")
    'couple x1; [scene: in Paris]'
    """
    segments = reading.segments()
    whole = set(segments)
    for place, chunk in enumerate(reading.chunks):
        if chunk.role != "entity" or reading.pos(chunk.stop) == "possessive":
            continue
        noun = singular(reading.head(chunk))
        if _is_no_place(reading, chunk):
            continue
        first = chunk.first
        owner = reading.chunks[place - 1] if place else None
        if owner is not None and owner.stop + 1 == first and reading.pos(first - 1) == "possessive":
            first = owner.first  # "at a farmer's market"
        whole_segment = (first, chunk.stop) in whole
        if noun in BACKDROPS and reading.pos(first - 1) == "preposition":
            reading.make_phrase(first - 1, chunk.stop, "scene", "scene")
        elif noun == "moon" and reading.word(first - 1) != "on":
            continue  # "howling at the moon"
        elif noun in _SCENES[reading.places] and _sets_scene(reading, first, noun):
            begin = first - 1 if _leads_to_scene(reading, first - 1) else first
            reading.make_phrase(begin, chunk.stop, "scene", "scene")
        elif whole_segment and not chunk.opener and noun in _TAGS[reading.places] and (first > 0 or len(segments) > 3):
            if reading.places == "auto" and _is_ground(reading, chunk, noun):
                continue
            reading.make_phrase(first, chunk.stop, "scene", "scene")  # ", dark forest, ..."
        elif first == 0 and noun == "scene":
            reading.make_phrase(first, chunk.stop, "scene", "scene")  # "Kitchen scene, ..."
        elif reading.word(first - 1) in ("in", "at") and _is_name_of_place(reading, chunk):
            reading.make_phrase(first - 1, chunk.stop, "scene", "scene")  # "in Paris"
    for first, stop in segments:
        if stop == first + 1 and first > 0 and reading.word(first) in WHEREABOUTS and reading.places != "entity":
            reading.make_phrase(first, stop, "scene", "scene")


# what can be a scene, with a preposition and as a bare tag, by the option `places`
_SCENES = {"auto": PLACES | TIMES, "scene": PLACES | TIMES, "entity": TIMES}
_TAGS = {"auto": (PLACES | TIMES) - LANDMARKS, "scene": PLACES | TIMES, "entity": TIMES}


def _is_no_place(reading: Reading, chunk: Chunk) -> bool:
    """ "a toy kitchen", "a kitchen island": things whose noun is a place."""
    before = {reading.word(place) for place in chunk.modifiers}
    return bool(before & SMALL_COPIES) or (reading.head(chunk) == "island" and "kitchen" in before)


def _is_name_of_place(reading: Reading, chunk: Chunk) -> bool:
    """Names after "in" and "at" are places, unless one wears them."""
    words = [word for word in reading.words[chunk.first : chunk.stop] if word.lower != "the"]
    named = all(word.name and word.text[0].isupper() for word in words)
    return named and reading.places != "entity" and not {reading.head(chunk), singular(reading.head(chunk))} & CLOTHING


def _leads_to_scene(reading: Reading, place: int) -> bool:
    """Whether this preposition can make a scene of the place that follows."""
    any_will_do = reading.places == "scene" and reading.pos(place) == "preposition"
    return reading.word(place) in SCENE_PREPOSITIONS | {"by"} or (
        any_will_do and reading.word(place) not in ("of", "with")
    )


def _is_ground(reading: Reading, chunk: Chunk, noun: str) -> bool:
    """ "stormy sea", "wet street", "rose garden": described, such places are things in the picture; snow always is."""
    return noun in ALWAYS_THINGS or (bool(chunk.modifiers) and noun in DESCRIBED_PLACES)


_WITHIN = ("middle", "center", "centre", "corner", "midst", "heart", "edge", "end", "side", "top", "bottom")


def _sets_scene(reading: Reading, first: int, noun: str) -> bool:
    """Whether the words before a place or time make a scene of it."""
    before, earlier = reading.word(first - 1), reading.word(first - 2)
    if reading.places == "scene" and _leads_to_scene(reading, first - 1):
        return True
    if before == "on" and noun in PLACES and noun not in SURFACE_PLACES:
        return False  # "on a hill"
    if (before == "at" and earlier in LOOKING) or earlier in MADE_OF | FILLED_WITH:
        return False  # "looking at the city", "covered in snow"
    start, kind = reading.ends.get(first, (first, ""))
    # "in the middle of the street", but not "to the left of the square" nor "in front of the house"
    in_the_middle = kind == "relation" and reading.word(start) in ("in", "at", "on") and earlier in _WITHIN
    return before in SCENE_PREPOSITIONS or in_the_middle or (before == "by" and noun in TIMES)
