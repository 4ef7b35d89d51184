"""The first part of the grammar: which noun phrases are things, and which are places, times, styles or events.

Each rule is one function over a Reading; its name lands in the JSON. The examples are doctests, in the short notation
of `outline`: entities as "noun xcount: attributes < parent", global phrases as "[kind: text]".
"""

from bisect import bisect_right
from collections.abc import Callable

from attnmod.parser.abstract import abstraction, event, onlooker, predicate_noun
from attnmod.parser.chunks import Chunk, count_word
from attnmod.parser.lexicon import (
    ARRANGEMENTS,
    ASPECTS,
    AVOIDING,
    BODY_PARTS,
    COLOURS,
    COUNTED_GROUPS,
    DOZENS,
    GROUPS,
    HAVING,
    HOLDING,
    LABELS_OF_ABSENCE,
    NEGATING_DETERMINERS,
    NEGATING_PREPOSITIONS,
    OWNING,
    PIECES,
    PURE_COLOURS,
    SAYING,
    SPATIAL,
    SPATIAL_MODIFIERS,
    TELLING,
    WEARING,
    WRITING,
    singular,
)
from attnmod.parser.places import scene
from attnmod.parser.reading import NEAR, Reading
from attnmod.parser.style import bare_tag, labelled, medium, picture_as_subject, request, style_tail


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
            reading.drop(place, close + 1)
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
                reading.add_phrase(place, close + 1, "other", "quoted_text")
            for inside in range(place, close + 1):
                reading.words[inside].pos = "other"
            place = close
        place += 1


def capitals(reading: Reading) -> None:
    """Capitals after "saying" or "the word" are text, too.

    >>> outline("a sign saying STOP HERE and a shirt with the word HELLO")
    'sign x1; shirt x1'
    """
    place = 0
    while place < len(reading.words):
        stop = place
        while stop < len(reading.words) and _is_shouted(reading.words[stop].text):
            stop += 1
        told = reading.word(place - 1) in WRITING | TELLING
        if stop > place and told:
            reading.drop(place - 1, stop)
            bearer = reading.chunk_before(place)
            if bearer is not None and reading.head(bearer) in WRITING:
                reading.chunks.remove(bearer)
                bearer = reading.chunk_before(place)
            if bearer is not None and reading.gap_words(bearer.stop, place) <= SAYING:
                bearer.extras.append((place, stop))
                reading.linked.update(range(bearer.stop, place))
                for inside in range(place, stop):
                    reading.words[inside].pos = "other"
        place = max(stop, place + 1)


def _is_shouted(word: str) -> bool:
    return len(word) > 1 and word.isupper()


def spatial_noun(reading: Reading) -> None:
    """ "to the left of", "in front of", "on top" say where; they name no thing.

    >>> outline("a red cube to the left of a yellow box")
    'cube x1: red; box x1: yellow; [relation: to the left of]'
    >>> outline("three cats in a row")
    'cats x3; [relation: in a row]'
    """
    for chunk in reading.chunks:
        noun = singular(reading.head(chunk))
        if chunk.opener in OWNING:
            continue  # "at his feet", "on its side": parts of something
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


def partitive(reading: Reading) -> None:
    """ "a wedge of lime" is lime, "a pair of red shoes" is two shoes, "the smooth surface of the lake" a smooth lake.

    >>> outline("a wedge of green lime, a pair of red shoes and a group of people")
    'lime x1: green; shoes x2: red; people'
    >>> outline("the smooth surface of the lake and the river's dark surface")
    'lake x1: smooth; river x1: dark'
    """
    for chunk in list(reading.chunks):
        owner = reading.chunk_before(chunk.first)
        owned = owner is not None and owner.stop + 1 == chunk.first and reading.pos(chunk.first - 1) == "possessive"
        if owned and owner is not None and singular(reading.head(chunk)) in ASPECTS - BODY_PARTS:
            owner.extras += [(place, place + 1) for place in chunk.modifiers]
            reading.linked.update(range(owner.stop, chunk.stop))
            reading.chunks.remove(chunk)
            continue
        if chunk.role != "entity" or reading.word(chunk.stop) != "of":
            continue
        whole = reading.chunk_from(chunk.stop + 1)
        noun = singular(reading.head(chunk))
        if whole is None or whole.role != "entity":
            continue
        if noun in COUNTED_GROUPS and (chunk.count or not reading.words[chunk.head].plural):  # "dozens of" is open
            whole.count = COUNTED_GROUPS[noun] * (chunk.count or 1)
        elif noun in PIECES:
            whole.count = chunk.count
        elif noun not in GROUPS and noun not in ASPECTS and noun not in COUNTED_GROUPS and noun not in DOZENS:
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
    >>> outline("a red car and a blue one")
    'car x1: red; car x1: blue'
    >>> outline("two dogs, one with a red collar and the other asleep")
    'dogs x2; dogs x1 < dogs; collar x1: red < dogs; dogs x1: asleep < dogs'
    """
    _one_and_the_other(reading)
    for place, chunk in enumerate(reading.chunks):
        noun = reading.words[chunk.head]
        other = "other" in [reading.word(part) for part in range(chunk.first, chunk.head)]  # "the other orange"
        if noun.lower in ("one", "ones"):
            if place and chunk.modifiers:  # "a red car and a blue one"
                chunk.head_text, chunk.rule = _named(reading, _meant(reading, place)), "ellipsis"
            continue
        bare = noun.lower in PURE_COLOURS or (noun.lower in COLOURS and (other or noun.repaired != ""))
        modifiers = [part for part in chunk.modifiers if reading.word(part) != "other"]
        if not bare or chunk.opener in ("", *NEGATING_DETERMINERS) or modifiers:
            continue
        shared = not other and chunk.opener in ("a", "an", "the") and chunk.count in (1, None)
        if shared and not _shares_noun(reading, chunk):
            continue  # "an orange"
        earlier = [other for other in reading.earlier(chunk.first) if not other.head_text]
        several = [other for other in earlier if _is_several(reading, other)]
        before = next(iter([*several, *earlier]), None)
        after = next((other for other in reading.chunks[place + 1 : place + NEAR] if not other.head_text), None)
        if before is not None and not shared and not reading.stop_between(before.stop, chunk.first):
            chunk.parent, named = before, before
        elif after is not None and reading.pos(chunk.stop) == "conjunction" and after.first == chunk.stop + 1:
            named = after
        else:
            continue
        chunk.head_text, chunk.modifiers, chunk.rule = reading.words[named.head].text, [chunk.head], "ellipsis"


def _meant(reading: Reading, place: int) -> Chunk:
    """What "a blue one" is one of: the nearest thing that was described, else the nearest."""
    earlier = list(reading.earlier(reading.chunks[place].first))
    return next((chunk for chunk in earlier if chunk.modifiers), earlier[0])


def _named(reading: Reading, chunk: Chunk) -> str:
    return chunk.head_text or reading.words[chunk.head].text


def _one_and_the_other(reading: Reading) -> None:
    """Phrases for "one", "two" and "the other" that say something of some of several things that were named."""
    whole: Chunk | None = None
    for place, word in enumerate(reading.words):
        number = count_word(word.lower) if word.pos == "number" else None
        if (number is None and word.lower not in ("one", "other", "another")) or reading.chunk_at(place) is not None:
            continue
        first = place - (reading.word(place - 1) == "the")
        opens = reading.word(first - 1) in ("and", ":", ",", "while") or reading.pos(first - 1) == "stop"
        opens = opens or reading.pos(place + 1) == "be"
        said = reading.pos(place + 1) in ("verb", "be", "adjective") or reading.word(place + 1) in ("with", "in")
        if not opens or not said:
            continue
        whole = whole or next((chunk for chunk in reading.earlier(first) if _is_several(reading, chunk)), None)
        if whole is not None:
            part = Chunk(first, place + 1, place, opener=reading.word(first), count=number or 1, rule="ellipsis")
            part.head_text, part.parent = reading.words[whole.head].text, whole
            reading.chunks.insert(bisect_right(reading.chunks, first, key=lambda one: one.first), part)


def _is_several(reading: Reading, chunk: Chunk) -> bool:
    return not chunk.head_text and (reading.words[chunk.head].plural or (chunk.count or 1) > 1)


def _shares_noun(reading: Reading, chunk: Chunk) -> bool:
    """ "a blue and a red balloon": a colour, then "and" with another colour and the noun."""
    after = reading.chunk_from(chunk.stop + 1)
    if reading.head(chunk) not in PURE_COLOURS or reading.pos(chunk.stop) != "conjunction" or after is None:
        return False
    return [reading.word(place) in PURE_COLOURS for place in after.modifiers] == [True]


def negation(reading: Reading) -> None:
    """ "no cars", "without a hat": named, marked, and visible to nobody in particular.

    >>> outline("a man without a hat or gloves")
    'man x1; not hat x1; not gloves; [relation: without]'
    >>> outline("a street with no cars")
    'street x1; not cars; [relation: with]'
    >>> outline("a girl not wearing a hat in a room that doesn't have windows")
    "girl x1; not hat x1; not windows; [action: not wearing]; [scene: in a room]; [action: doesn't have]"
    """
    before: Chunk | None = None
    for chunk in reading.chunks:
        if chunk.role != "entity":
            before = None
            continue
        leads = reading.word(chunk.first - 1)
        said = chunk.opener in NEGATING_DETERMINERS or leads in NEGATING_PREPOSITIONS or leads == "neither"
        said = said or (leads == "not" and chunk.opener != "") or _is_denied(reading, chunk.first - 1)
        said = said or _is_absent(reading, chunk)
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


def _is_absent(reading: Reading, chunk: Chunk) -> bool:
    """After "--no", "Avoid:" or, at the beginning of a sentence, "Avoid"."""
    segment = reading.segment_of(chunk.head)
    if segment is not None and (segment.kind == "absent" or set(segment.label.split()) & LABELS_OF_ABSENCE):
        return True
    return reading.word(chunk.first - 1) in AVOIDING and reading.pos(chunk.first - 2) == "stop"


def _is_denied(reading: Reading, verb: int) -> bool:
    """Whether a verb of wearing, holding or having stands here with "not" before it."""
    while reading.word(verb) in ("any", "on"):
        verb -= 1
    if reading.word(verb) not in WEARING | HOLDING | HAVING | {"contain", "show", "include"}:
        return False
    return reading.word(verb - 1) in ("not", "n't", "n\u2019t", "never")


ROLES: tuple[Callable[[Reading], None], ...] = (
    quoted_text,
    capitals,
    spatial_noun,
    medium,
    partitive,
    ellipsis,
    picture_as_subject,
    request,
    labelled,
    style_tail,
    negation,
    scene,
    onlooker,
    event,
    abstraction,
    predicate_noun,
    bare_tag,
)
