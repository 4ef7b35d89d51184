"""Nouns that name no thing in the picture: what is done, what cannot be pointed at, what a thing is said to be.

Rules of the same form as those in `roles`, which lists them all.
"""

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import (
    ABSTRACTIONS,
    ANIMATE,
    ARTICLES,
    ASPECTS,
    BODY_PARTS,
    CLOTHING,
    COLOURS,
    EVENTS,
    HOLDING,
    ONLOOKERS,
    PARTS,
    TAKEN,
    TAKING,
    TOOLS,
    VERDICTS,
    VISIBLE,
    singular,
)
from attnmod.parser.reading import Reading


def onlooker(reading: Reading) -> None:
    """Who looks at the picture is not in it.

    >>> outline("a girl smiling at the camera")
    'girl x1; [action: smiling at the camera]'
    """
    for chunk in reading.chunks:
        if chunk.role != "entity" or reading.head(chunk) not in ONLOOKERS or len(chunk.modifiers) > 0:
            continue
        first = chunk.first
        if reading.word(first - 1) in ("at", "for", "to", "towards", "toward", "into"):
            first -= 1
        elif reading.word(first - 1) != "facing":
            continue
        if reading.pos(first - 1) == "verb" and reading.word(first - 1) not in HOLDING:
            first -= 1
            reading.make_phrase(first, chunk.stop, "action", "onlooker")


def event(reading: Reading) -> None:
    """What is done is an action, though its name is a noun: "taking a bite".

    >>> outline("a man taking a bite")
    'man x1; [action: taking a bite]'
    >>> outline("tourists taking photos of a fountain")
    'tourists; fountain x1; [action: taking photos of]'
    """
    before: Chunk | None = None
    for chunk in reading.chunks:
        noun = singular(reading.head(chunk))
        verb = reading.word(chunk.first - 1)
        follows = reading.pos(chunk.first - 1) in ("verb", "preposition") and verb not in HOLDING
        listed = before is not None and before.rule == "event" and reading.gap(before, chunk) == ["and"]
        before = chunk
        done = (noun in EVENTS and (follows or listed)) or (noun in TAKEN and verb in TAKING)
        if chunk.role == "entity" and done:
            # "speaking about a project": what is spoken of is not done
            chunk.role, chunk.rule = "other" if verb == "about" else "action", "event"
            if noun in TAKEN and reading.word(chunk.stop) == "of":
                reading.make_phrase(chunk.first - 1, chunk.stop + 1, "action", "event")


def abstraction(reading: Reading) -> None:
    """What cannot be pointed at is no entity, nor is what it is of or to, if that is bare.

    >>> outline("a girl giggling with delight, a study of color and light")
    'girl x1; [action: giggling]; [relation: with]; [other: delight]; [other: a study of color and light]'
    """
    before: Chunk | None = None
    start = 0
    for chunk in reading.chunks:
        noun = singular(reading.head(chunk))
        gap = reading.gap(before, chunk) if before is not None else []
        follows = _follows(reading, before, chunk, gap)
        comment = reading.pos(chunk.first - 1) == "comma" or reading.word(chunk.first - 1) == "for"
        apart = comment and (noun in VERDICTS or _is_of_the_unseen(reading, chunk))
        if (chunk.role == "entity" and (noun in ABSTRACTIONS or apart or _is_unseen(reading, chunk))) or (
            follows and chunk.role in ("entity", "action")
        ):
            chunk.parent = None
            joined = before is not None and gap in (["of"], ["to"], ["and"])
            if not joined or before is None:
                start = chunk.first
            elif before.rule != "abstraction":
                start = before.stop
            reading.make_phrase(start, chunk.stop, "other", "abstraction")
            before = chunk
        elif chunk.role == "action" and noun in EVENTS:
            before = chunk  # "telling a story of growth"
        else:
            before = None


def _is_unseen(reading: Reading, chunk: Chunk) -> bool:
    """Whether the lexicon knows no use of the noun for a thing that can be seen."""
    noun = reading.noun(chunk)
    if noun is None or noun.kind not in "ad" or noun.seen > 0 or noun.noun < 3 or (chunk.count or 1) > 1:
        return False
    one = singular(reading.head(chunk))
    return one not in VISIBLE | PARTS | BODY_PARTS | CLOTHING | ANIMATE | TOOLS | COLOURS and not chunk.head_text


def _is_of_the_unseen(reading: Reading, chunk: Chunk) -> bool:
    """ "a moment of triumph", "a shifting landscape of natural wonder and awe"."""
    what = reading.chunk_from(chunk.stop + 1) if reading.word(chunk.stop) == "of" else None
    return what is not None and not what.opener and reading.head(what) in ABSTRACTIONS


def _follows(reading: Reading, before: Chunk | None, chunk: Chunk, gap: list[str]) -> bool:
    """Whether this is what an abstract noun is of or to, bare and in the singular; or the next item of such a list."""
    if before is None or chunk.opener or reading.words[chunk.head].plural:
        return False
    return gap in (["of"], ["to"]) or (gap == ["and"] and reading.word(before.first - 1) in ("of", "to"))


def predicate_noun(reading: Reading) -> None:
    """What a thing is said to be is that thing again: "a ..." describes it, "the ..." says nothing of the picture.

    >>> outline("The car is a red convertible and the doors are the best features.")
    'car x1: red, convertible; doors; [other: the best features]'
    """
    for chunk in reading.chunks:
        place = chunk.first - 1
        while reading.pos(place) == "adverb":
            place -= 1
        bare = not chunk.opener and not reading.words[chunk.head].plural and place == chunk.first - 1
        if chunk.role != "entity" or chunk.negated or reading.pos(place) != "be" or not (chunk.opener or bare):
            continue
        said = {singular(reading.word(part)) for part in range(chunk.first, chunk.head)}
        if chunk.rule == "partitive" and said & ASPECTS:
            continue  # "were the shapes of the crystals"
        subject = reading.chunk_before(place)
        if subject is None or subject.stop != place or subject.role != "entity" or subject.negated:
            continue
        if reading.pos(subject.first - 1) == "preposition":
            continue  # "next to the car is a dog"
        chunk.role, chunk.rule = "other", "predicate_noun"
        if chunk.opener in ARTICLES or bare:
            chunk.role, chunk.parent = "attribute", subject
            subject.extras.append((chunk.first, chunk.stop))
            reading.linked.update(range(subject.stop, chunk.first))
