"""One thing, several mentions: "A copper kettle ... The kettle", "She wears a hat", "a clerk, his glasses".

A mention is a chunk of the role "mention" that knows which chunk it is the `same` as. It nests like any other: what
"The kettle has" is nested in that mention, so that the words of a part stay inside the words of its owner. Where two
things are equally likely, none is meant, and a warning says so.
"""

from bisect import bisect_left
from collections.abc import Iterator

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import COLOURS, FEMALE, MALE, MATERIALS, singular, words
from attnmod.parser.reading import Reading

_DEFINITE = frozenset(("the", "this", "that", "these", "those"))
# what makes "the second car" another one
_OTHERS = words(
    "other second third fourth fifth last next first another nearest left right middle upper lower one different "
    "former "
    "latter remaining same"
)
_PRONOUNS = {"he": "his", "she": "her", "it": "its", "they": "their"}


def pronouns(reading: Reading) -> None:
    """He, she, it and they, as subjects, are mentions of what they stand for.

    >>> outline("A boy sits on a bench. He has curly hair and he is holding a balloon.")
    'boy x1; hair: curly < boy; balloon x1 < boy; bench x1; [action: sits]; [relation: on]'
    """
    for place, word in enumerate(reading.words):
        led = reading.pos(place - 1) in ("preposition", "verb")  # "the flowers in it"
        if word.lower not in _PRONOUNS or reading.chunk_at(place) is not None or led:
            continue
        after = next((p for p in range(place + 1, place + 4) if reading.pos(p) not in ("adverb", "particle")), place)
        if reading.pos(after) not in ("verb", "be", "noun"):
            continue
        chunk = Chunk(place, place + 1, place, role="mention", rule="pronoun")
        chunk.same = referent(reading, place, _PRONOUNS[word.lower])
        if chunk.same is not None:
            reading.chunks.insert(bisect_left(reading.chunks, place, key=lambda one: one.first), chunk)


def same_thing(reading: Reading) -> None:
    """ "The" and the noun of something that was named mean it again; as a tag, the bare noun does.

    >>> outline("A copper kettle stands on a stove. The kettle has a black handle.")
    'kettle x1: copper; handle x1: black < kettle; stove x1; [action: stands]; [relation: on]'
    >>> outline("cat, black cat, yellow eyes")
    'cat: black; eyes: yellow < cat'
    """
    named: dict[tuple[str, bool], list[Chunk]] = {}
    for chunk in reading.chunks:
        if chunk.role != "entity" or chunk.head_text or chunk.negated:
            continue
        noun = reading.words[chunk.head]
        key = (singular(noun.lower), noun.plural)
        earlier = named.setdefault(key, [])
        is_tag = not chunk.opener and chunk.count is None and reading.is_whole_tag(chunk)
        definite = chunk.opener in _DEFINITE and reading.pos(chunk.first - 1) != "possessive"
        if earlier and (definite or is_tag):
            fitting = [one for one in earlier if _may_be(reading, one, chunk, is_tag)]
            if len(fitting) == 1 or (fitting and is_tag):
                chunk.role, chunk.same, chunk.rule = "mention", fitting[0], "same_thing"
                continue
            if len(fitting) > 1 and not chunk.modifiers:
                _warn(reading, chunk, fitting)
                chunk.role, chunk.rule = "other", "same_thing"
                continue
        earlier.append(chunk)


def _may_be(reading: Reading, earlier: Chunk, chunk: Chunk, is_tag: bool) -> bool:
    said = {reading.word(place) for place in chunk.modifiers}
    known = {reading.word(place) for place in earlier.modifiers}
    if said & _OTHERS or any(word.endswith(("est", "er")) and word not in known for word in said):
        return False
    if is_tag:
        tags = not earlier.opener and (earlier.count is None or not said) and reading.is_whole_tag(earlier)
        return tags and not (said & COLOURS and known & COLOURS) and not reading.words[earlier.head].plural
    if reading.pos(chunk.first - 1) == "conjunction" and earlier.stop + 1 == chunk.first:
        return False
    new = said - known
    return not new or not (new & (COLOURS | MATERIALS) and known) or not known & (COLOURS | MATERIALS)


def referent(reading: Reading, place: int, owning: str) -> Chunk | None:
    """Whom "his", "her", "its" or "their" means at this word, or None."""
    best: dict[int, list[Chunk]] = {}
    for other in _fitting(reading, place, owning):
        near = not reading.sentence_ends(other.stop, place)
        subject = _is_subject(reading, other)
        rank = (0 if subject else 1) if near else (2 if subject else 3)
        best.setdefault(rank, []).append(other)
    for rank in sorted(best):
        found = best[rank]
        first = found[0]
        joined = len(found) > 1 and real(first) is not real(found[1]) and _are_joined(reading, found[1], first)
        if joined and owning != "their":
            reading.warnings.append(
                f"{reading.words[place].text!r} can mean {_name(reading, found[1])!r} or {_name(reading, first)!r}: "
                "neither was taken"
            )
            return None
        return real(first)
    return None


def _fitting(reading: Reading, place: int, owning: str) -> Iterator[Chunk]:
    """Earlier things that a pronoun can mean, the nearest first."""
    for other in reading.earlier(place):
        if other.role not in ("entity", "mention") or other.negated:
            continue
        thing = real(other)
        noun = reading.words[thing.head]
        person = reading.is_person(thing)
        if owning in ("his", "her"):
            wrong = FEMALE if owning == "his" else MALE
            if person and singular(noun.lower) not in wrong and not (noun.plural and thing.count != 1):
                yield other
        elif owning == "its":
            if not person and not noun.plural and (thing.count or 1) == 1:
                yield other
        elif noun.plural or (thing.count or 1) > 1 or person:
            yield other


def _is_subject(reading: Reading, chunk: Chunk) -> bool:
    """Whether a phrase opens its sentence or clause rather than follows a preposition or a verb."""
    before = reading.pos(chunk.first - 1)
    return before not in ("preposition", "verb", "possessive") and chunk.parent is None


def _are_joined(reading: Reading, left: Chunk, right: Chunk) -> bool:
    between = reading.gap(left, right)
    return between in (["and"], ["or"], [","])


def real(chunk: Chunk) -> Chunk:
    """The thing itself, of a mention."""
    return chunk.same if chunk.same is not None else chunk


def is_above(thing: Chunk, chunk: Chunk) -> bool:
    """Whether a thing is what a chunk is, or is nested in."""
    return any(real(one) is thing for one in chunk.chain())


def place_apart(owner: Chunk, child: Chunk, rule: str) -> Chunk:
    """A mention of the owner where the words of its part are, for a part that is named elsewhere than it."""
    return Chunk(child.first, child.stop, child.head, role="mention", rule=rule, same=real(owner))


def _name(reading: Reading, chunk: Chunk) -> str:
    return " ".join(reading.words[place].text for place in range(chunk.first, chunk.stop))


def _warn(reading: Reading, chunk: Chunk, fitting: list[Chunk]) -> None:
    names = " or ".join(repr(_name(reading, one)) for one in fitting[:3])
    reading.warnings.append(f"{_name(reading, chunk)!r} can mean {names}: its words are global")
