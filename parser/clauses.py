"""How far a list and a predicate reach: what the rules of nesting and of predicates both ask."""

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import RELATING, STATES
from attnmod.parser.reading import NEAR, Reading

LIST_MARKS = frozenset((",", "and", "or", "&", "plus", ";", "|", ":"))


def joined_before(reading: Reading, chunk: Chunk) -> list[Chunk]:
    """This thing and those joined to it by "and" or a comma before it, from right to left."""
    joined = [chunk]
    before = reading.chunk_before(chunk.first)
    while (
        before is not None
        and len(joined) < NEAR
        and before.role == "entity"
        and before.parent is chunk.parent
        and not before.negated
    ):
        gap = reading.gap(before, joined[-1])
        if reading.stop_between(before.stop, joined[-1].first) or not gap or not set(gap) <= LIST_MARKS:
            break
        joined.append(before)
        before = reading.chunk_before(before.first)
    return joined


def complement_end(reading: Reading, first: int) -> int | None:
    """Where the adjectives of a predicate end; None if there are none or a noun follows them."""
    place, seen = first, None
    while reading.chunk_at(place) is None:
        pos = reading.pos(place)
        if reading.word(place) in RELATING and reading.word(place + 1) in ("to", "by"):
            break  # "is next to"
        if pos == "adjective" or (reading.words[place].participle if place < len(reading.words) else False):
            if pos == "verb" and reading.pos(place + 1) not in ("adjective", "conjunction", "stop", "comma"):
                break  # "is parked near", "is holding a cup"
            said = pos == "adjective" or reading.word(place).endswith("ed") or reading.word(place) in STATES
            seen = place + 1 if said else seen
        elif pos in ("conjunction", "comma") and reading.pos(place + 1) in ("adjective", "adverb"):
            pass  # "black and white"
        elif pos != "adverb":
            break
        place += 1
    return seen


def list_goes_on(reading: Reading, chunk: Chunk) -> bool:
    """Whether "and" and a last item follow, with nothing but list items between."""
    place = chunk.stop
    for _ in range(NEAR):
        if place >= len(reading.words):
            break
        if reading.word(place) in ("and", "or", "&"):
            return True
        following = reading.chunk_from(place)
        if following is not None:
            place = following.stop
        elif reading.word(place) == ",":
            place += 1
        else:
            return False
    return False
