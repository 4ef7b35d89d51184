"""The first part of the grammar: which noun phrases are things, and which are places, times, styles or events.

Each rule is one function over a Reading; its name lands in the JSON. The examples are doctests, in the short notation
of `outline`: entities as "noun xcount: attributes < parent", global phrases as "[kind: text]".
"""

from collections.abc import Callable

from attnmod.parser.abstract import abstraction, event, predicate_noun
from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import (
    ARRANGEMENTS,
    ASPECTS,
    BACKDROPS,
    COLOURS,
    COUNTED_GROUPS,
    FILLED_WITH,
    GROUPS,
    LANDMARKS,
    LOOKING,
    MADE_OF,
    MEDIA,
    NEGATING_DETERMINERS,
    NEGATING_PREPOSITIONS,
    PIECES,
    PLACES,
    PURE_COLOURS,
    SAYING,
    SCENE_PREPOSITIONS,
    SPATIAL,
    SPATIAL_MODIFIERS,
    STYLE_MARKS,
    STYLE_NOUNS,
    STYLE_WORDS,
    SURFACE_PLACES,
    TIMES,
    WRITING,
    singular,
)
from attnmod.parser.reading import Reading


def quoted_text(reading: Reading) -> None:
    """Quoted words belong to the thing that they stand on.

    >>> outline('a sign that says "fresh red apples" and a dog')
    'sign x1; dog x1'
    """
    place = 0
    while place < len(reading.words):
        if reading.pos(place) == "quote":
            close = next((end for end in range(place + 1, len(reading.words)) if reading.pos(end) == "quote"), None)
            if close is None:
                return
            reading.chunks = [chunk for chunk in reading.chunks if chunk.stop <= place or chunk.first > close]
            bearer = reading.chunk_before(place)
            if (
                bearer is not None
                and reading.head(bearer) in WRITING
                and reading.gap_words(bearer.stop, place) <= SAYING
            ):
                reading.chunks.remove(bearer)  # "a sign with the words"
                bearer = reading.chunk_before(place)
            if bearer is not None and reading.gap_words(bearer.stop, place) <= SAYING:
                bearer.extras.append((place, close + 1))
                reading.linked.update(range(bearer.stop, place))
            else:
                reading.phrases.append((place, close + 1, "other"))
            for inside in range(place, close + 1):
                reading.words[inside].pos = "other"
            place = close
        place += 1


def spatial_noun(reading: Reading) -> None:
    """ "to the left of", "in front of", "on top" say where; they name no thing.

    >>> outline("a red cube to the left of a yellow box")
    'cube x1: red; box x1: yellow; [relation: to the left of]'
    >>> outline("three cats in a row")
    'cats x3; [relation: in a row]'
    """
    for chunk in reading.chunks:
        noun = singular(reading.head(chunk))
        if noun in ARRANGEMENTS and reading.word(chunk.first - 1) == "in" and reading.word(chunk.stop) != "of":
            reading.make_phrase(chunk.first - 1, chunk.stop, "relation", "spatial_noun")
        if noun not in SPATIAL or not _only(reading, chunk, SPATIAL | SPATIAL_MODIFIERS):
            continue
        after = reading.word(chunk.stop)
        before = reading.pos(chunk.first - 1) == "preposition" and reading.word(chunk.first - 1) not in ("of", "with")
        if before:
            first = chunk.first - 1
            stop = chunk.stop + (after in ("of", "to", "from"))
            reading.make_phrase(first, stop, "relation", "spatial_noun")


def _only(reading: Reading, chunk: Chunk, allowed: frozenset[str]) -> bool:
    return all(reading.word(place) in allowed for place in chunk.modifiers)


def medium(reading: Reading) -> None:
    """What the picture is made as, before "of" at the start, is style.

    >>> outline("an oil painting of a fox")
    'fox x1; [style: an oil painting of]'
    >>> outline("bird's eye view of a harbor")
    "harbor x1; [style: bird's eye view of]"
    """
    first: int | None = None
    for chunk in reading.chunks:
        if chunk.role != "entity":
            continue
        first = chunk.first if first is None else first
        if reading.pos(chunk.stop) == "possessive":
            continue  # "a bird's eye view of"
        if singular(reading.head(chunk)) not in MEDIA or reading.word(chunk.stop) != "of":
            return  # only before the first thing
        if reading.chunk_from(chunk.stop + 1) is None:
            return
        reading.make_phrase(first, chunk.stop + 1, "style", "medium")
        first = None


def partitive(reading: Reading) -> None:
    """ "a wedge of lime" is lime, "a pair of red shoes" is two shoes, "the smooth surface of the lake" a smooth lake.

    >>> outline("a wedge of green lime, a pair of red shoes and a group of people")
    'lime x1: green; shoes x2: red; people'
    >>> outline("the smooth surface of the lake")
    'lake x1: smooth'
    """
    for chunk in list(reading.chunks):
        if chunk.role != "entity" or reading.word(chunk.stop) != "of":
            continue
        whole = reading.chunk_from(chunk.stop + 1)
        noun = singular(reading.head(chunk))
        if whole is None or whole.role != "entity":
            continue
        if noun in COUNTED_GROUPS:
            whole.count = COUNTED_GROUPS[noun] * (chunk.count or 1)
        elif noun in PIECES:
            whole.count = chunk.count
        elif noun not in GROUPS and noun not in ASPECTS:
            continue
        whole.first, whole.opener, whole.rule = chunk.first, chunk.opener, "partitive"
        whole.modifiers = [*chunk.modifiers, *whole.modifiers]
        reading.chunks.remove(chunk)


def ellipsis(reading: Reading) -> None:
    """A number and a colour without a noun stand for one that was named or will be.

    >>> outline("two cars, one red and one blue")
    'cars x2; cars x1: red < cars; cars x1: blue < cars'
    >>> outline("two green and one grey parrot, a blue and a red ball")
    'parrot x2: green; parrot x1: grey; ball x1: blue; ball x1: red'
    """
    for place, chunk in enumerate(reading.chunks):
        noun = reading.words[chunk.head]
        other = "other" in [reading.word(part) for part in range(chunk.first, chunk.head)]  # "the other orange"
        bare = noun.lower in PURE_COLOURS or (noun.lower in COLOURS and (other or noun.repaired != ""))
        modifiers = [part for part in chunk.modifiers if reading.word(part) != "other"]
        if not bare or chunk.opener in ("", *NEGATING_DETERMINERS) or modifiers:
            continue
        shared = not other and chunk.opener in ("a", "an", "the") and chunk.count in (1, None)
        if shared and not _shares_noun(reading, chunk):
            continue  # "an orange"
        earlier = [other for other in reversed(reading.chunks[:place]) if not other.head_text]
        several = [other for other in earlier if reading.words[other.head].plural or (other.count or 1) > 1]
        before = next(iter([*several, *earlier]), None)
        after = next((other for other in reading.chunks[place + 1 :] if not other.head_text), None)
        if before is not None and not shared and not reading.stop_between(before.stop, chunk.first):
            chunk.parent, named = before, before
        elif after is not None and reading.pos(chunk.stop) == "conjunction" and after.first == chunk.stop + 1:
            named = after
        else:
            continue
        chunk.head_text, chunk.modifiers, chunk.rule = reading.words[named.head].text, [chunk.head], "ellipsis"


def _shares_noun(reading: Reading, chunk: Chunk) -> bool:
    """ "a blue and a red balloon": a colour, then "and" with another colour and the noun."""
    after = reading.chunk_from(chunk.stop + 1)
    if reading.head(chunk) not in PURE_COLOURS or reading.pos(chunk.stop) != "conjunction" or after is None:
        return False
    return [reading.word(place) in PURE_COLOURS for place in after.modifiers] == [True]


def style_tail(reading: Reading) -> None:
    """Comma segments of looks and quality, and "by ...", are style.

    >>> outline("a castle, highly detailed, cinematic lighting, by Greg Rutkowski, 4k")
    'castle x1; [style: highly detailed]; [style: cinematic lighting]; [style: by Greg Rutkowski]; [style: 4k]'
    >>> outline("a fox in the style of Monet")
    'fox x1; [style: in the style of Monet]'
    """
    for number, (first, stop) in enumerate(reading.segments()):
        start = _style_start(reading, first, stop)
        if start is None and _is_style(reading, first, stop, number):
            start = first
        if start is not None:
            reading.make_phrase(start, stop, "style", "style_tail")
            continue
        for place in range(first, stop):
            chunk = reading.chunk_at(place)
            if reading.word(place) in STYLE_MARKS and (chunk is None or chunk.stop - chunk.first == 1):
                reading.make_phrase(place, place + 1, "style", "style_tail")


def _style_start(reading: Reading, first: int, stop: int) -> int | None:
    """Where "in the style of", "in anime style" or "by <name>" begins in a segment."""
    if reading.word(first) in ("by", "inspired") and first > 0:
        return first
    for chunk in reading.chunks:
        if first <= chunk.first and chunk.stop <= stop and reading.head(chunk) == "style" and chunk.role == "entity":
            before = chunk.first - 1
            if before >= first and reading.word(before) in ("in", "with"):
                return before
            if chunk.first == first and first > 0:
                return first
    return None


def _is_style(reading: Reading, first: int, stop: int, number: int) -> bool:
    chunks = [chunk for chunk in reading.chunks if first <= chunk.first and chunk.stop <= stop]
    chunks = [chunk for chunk in chunks if chunk.role == "entity"]
    words = [reading.words[place] for place in range(first, stop)]
    content = [word for word in words if word.pos in ("noun", "adjective", "adverb", "verb", "number")]
    if not content or any(word.pos in ("be", "relative") for word in words):
        return False
    if all(word.lower in STYLE_WORDS | STYLE_NOUNS for word in content):
        return number > 0 or not any(word.pos in ("determiner", "number") for word in words[:1])
    if number == 0 and words[0].pos in ("determiner", "number"):
        return False
    if not chunks or any(chunk.opener for chunk in chunks):
        return False
    heads = {singular(reading.head(chunk)) for chunk in chunks} | {reading.head(chunk) for chunk in chunks}
    return heads <= STYLE_NOUNS | {singular(noun) for noun in STYLE_NOUNS} | MEDIA


def scene(reading: Reading) -> None:
    """Where and when the whole picture is: a place or a time after "in", "on", "at".

    A thing to stand on or beside is an entity ("on a wooden table", "near a lake").

    >>> outline("a fox in a dark forest at night")
    'fox x1; [scene: in a dark forest]; [scene: at night]'
    >>> outline("a fox near a lake")
    'fox x1; lake x1; [relation: near]'
    """
    segments = set(reading.segments())
    for place, chunk in enumerate(reading.chunks):
        if chunk.role != "entity" or reading.pos(chunk.stop) == "possessive":
            continue
        noun = singular(reading.head(chunk))
        first = chunk.first
        owner = reading.chunks[place - 1] if place else None
        if owner is not None and owner.stop + 1 == first and reading.pos(first - 1) == "possessive":
            first = owner.first  # "at a farmer's market"
        whole_segment = (first, chunk.stop) in segments
        if noun in BACKDROPS and reading.pos(first - 1) == "preposition":
            reading.make_phrase(first - 1, chunk.stop, "scene", "scene")
        elif noun in _SCENES[reading.places] and _sets_scene(reading, first, noun):
            begin = first - 1 if _leads_to_scene(reading, first - 1) else first
            reading.make_phrase(begin, chunk.stop, "scene", "scene")
        elif whole_segment and first > 0 and not chunk.opener and noun in _TAGS[reading.places]:
            reading.make_phrase(first, chunk.stop, "scene", "scene")  # ", dark forest, ..."
        elif first == 0 and noun == "scene":
            reading.make_phrase(first, chunk.stop, "scene", "scene")  # "Kitchen scene, ..."


# what can be a scene, with a preposition and as a bare tag, by the option `places`
_SCENES = {"auto": PLACES | TIMES, "scene": PLACES | TIMES, "entity": TIMES}
_TAGS = {"auto": (PLACES | TIMES) - LANDMARKS, "scene": PLACES | TIMES, "entity": TIMES}


def _leads_to_scene(reading: Reading, place: int) -> bool:
    """Whether this preposition can make a scene of the place that follows."""
    any_will_do = reading.places == "scene" and reading.pos(place) == "preposition"
    return reading.word(place) in SCENE_PREPOSITIONS or (any_will_do and reading.word(place) not in ("of", "with"))


def _sets_scene(reading: Reading, first: int, noun: str) -> bool:
    """Whether the words before a place or time make a scene of it."""
    before, earlier = reading.word(first - 1), reading.word(first - 2)
    if reading.places == "scene" and _leads_to_scene(reading, first - 1):
        return True
    if before == "on" and noun in PLACES and noun not in SURFACE_PLACES:
        return False  # "on a hill"
    if (before == "at" and earlier in LOOKING) or earlier in MADE_OF | FILLED_WITH:
        return False  # "looking at the city", "covered in snow"
    in_the_middle = any(stop == first and kind == "relation" for _, stop, kind in reading.phrases)
    return before in SCENE_PREPOSITIONS or in_the_middle


def negation(reading: Reading) -> None:
    """ "no cars", "without a hat": named, marked, and visible to nobody in particular.

    >>> outline("a man without a hat or gloves")
    'man x1; not hat x1; not gloves; [relation: without]'
    >>> outline("a street with no cars")
    'street x1; not cars; [relation: with]'
    """
    before: Chunk | None = None
    for chunk in reading.chunks:
        if chunk.role != "entity":
            before = None
            continue
        said = chunk.opener in NEGATING_DETERMINERS or reading.word(chunk.first - 1) in NEGATING_PREPOSITIONS
        said = said or (reading.word(chunk.first - 1) == "not" and chunk.opener != "")
        also = before is not None and (
            reading.gap(before, chunk) in (["or"], ["nor"], [",", "or"])
            or (reading.gap(before, chunk) == ["and"] and not chunk.opener)
        )
        if said or also:
            chunk.negated, chunk.rule = True, "negation"
            chunk.count = None if chunk.opener in NEGATING_DETERMINERS else chunk.count
            before = chunk
        else:
            before = None


ROLES: tuple[Callable[[Reading], None], ...] = (
    quoted_text,
    spatial_noun,
    medium,
    partitive,
    ellipsis,
    style_tail,
    negation,
    scene,
    event,
    abstraction,
    predicate_noun,
)
