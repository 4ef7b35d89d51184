"""The third part of the grammar: what is said of a thing behind its noun, by a verb or by an adjective.

The examples are doctests, in the short notation of `outline`.
"""

from attnmod.parser.chunks import Chunk, is_linking
from attnmod.parser.clauses import complement_end, joined_before
from attnmod.parser.lexicon import COLOURS, OWNING, PAINTED, POSTNOMINAL, STATE_VERBS, STATES
from attnmod.parser.links import is_animate
from attnmod.parser.reading import Reading


def predicate(reading: Reading) -> None:
    """What "is" says of a thing is its attribute; of several joined by "and", of each.

    >>> outline("The car is red and the bench is very dark green.")
    'car x1: red; bench x1: very, dark, green'
    >>> outline("a dog that is brown next to a cat which is black and white")
    'dog x1: brown; cat x1: black, white; [relation: next to]'
    """
    for place, word in enumerate(reading.words):
        states = word.lower in STATE_VERBS and word.pos == "verb"
        if not (is_linking(word) or states) or reading.chunk_at(place) is not None:
            continue
        stop = complement_end(reading, place + 1)
        subject = _predicate_subject(reading, place, stop or place + 1)
        if stop is None or subject is None or reading.word(place + 1) == "never":
            continue
        if states and not _ends_clause(reading, stop):
            continue
        relative = place - (reading.pos(place - 1) == "relative")
        subject.extras.append((place + 1, stop))
        if not states:  # "sits empty" is an action, too
            reading.linked.update(range(relative, place + 1))
        several = word.lower not in ("is", "was") and not word.lower.endswith("s")
        for other in joined_before(reading, subject)[1:] if several else ():
            other.modifiers += _attributes(reading, place + 1, stop)


def _ends_clause(reading: Reading, stop: int) -> bool:
    return reading.pos(stop) in ("stop", "comma", "preposition", "conjunction")


def _predicate_subject(reading: Reading, verb: int, stop: int) -> Chunk | None:
    """The thing a predicate speaks of: before "that is" the nearest, else the model's subject, else the nearest."""
    nearest = reading.chunk_before(verb)
    if nearest is not None and reading.stop_between(nearest.stop, verb):
        nearest = None
    if reading.pos(verb - 1) == "relative":
        return nearest if nearest is not None and nearest.is_thing else None
    # of "is broken" the subject hangs on the participle
    said = next((word.subject for word in reading.words[verb:stop] if word.subject is not None), None)
    chunk = reading.chunk_at(said) if said is not None and said < verb else None
    if said is not None and chunk is None and reading.pos(said) != "pronoun":
        return None  # "the other is white"
    if chunk is None and nearest is not None:
        chunk = nearest if nearest.is_thing else None
        chunk = chunk.root() if chunk is not None else None
    if chunk is None or not chunk.is_thing or chunk.negated:
        return None
    joined = nearest is not None and nearest.is_thing and chunk in joined_before(reading, nearest)
    return nearest if joined else chunk  # of "a car and a bench are red" the bench is next to the verb


def after_noun(reading: Reading) -> None:
    """A few adjectives stand behind their noun, and so do "painted red" and "in red".

    >>> outline("a zebra alone, a door painted red and a woman in blue")
    'zebra x1: alone; door x1: painted, red; woman x1: blue'
    >>> outline("a cat (black), its eyes green and blue")
    'cat x1: black; eyes: green, blue < cat'
    """
    for chunk in reading.chunks:
        if not chunk.is_thing or chunk.negated:
            continue
        place = chunk.stop
        while reading.pos(place) == "adjective" and reading.words[place].describes == chunk.head:
            chunk.extras.append((place, place + 1))  # as French has it: "une chaise bleue"
            place += 1
        owned = chunk.opener in OWNING and reading.pos(place) == "adjective"
        if (
            chunk.opener in OWNING
            and reading.word(place) in POSTNOMINAL | STATES
            and reading.pos(place + 1) in ("stop", "comma")
        ):
            chunk.extras.append((place, place + 1))  # "its lid open"
            reading.words[place].pos = "adjective"
            continue
        end = complement_end(reading, place) if owned else None
        if end is not None and reading.pos(end) in ("comma", "stop", "conjunction"):
            chunk.extras.append((place, end))  # "its feathers red and blue"
        elif reading.word(place) == "(" and reading.pos(place + 1) == "adjective" and reading.word(place + 2) == ")":
            chunk.extras.append((place + 1, place + 2))  # "a cat (black)"
        elif reading.word(place) in PAINTED and reading.pos(place + 1) == "adjective":
            chunk.extras.append((place, place + 2))
        elif reading.word(place) == "in" and reading.word(place + 1) in COLOURS and is_animate(reading, chunk):
            if reading.chunk_at(place + 1) is None and reading.pos(place + 1) == "adjective":
                chunk.extras.append((place + 1, place + 2))
                reading.linked.add(place)
        elif reading.word(place) in POSTNOMINAL and reading.pos(place) in ("adjective", "adverb"):
            chunk.extras.append((place, place + 1))


def scattered(reading: Reading) -> None:
    """Adjectives as tags describe the noun behind them where the prompt names nothing else.

    >>> outline("red, fluffy, red, cat")
    'cat: fluffy, red; [other: red]'
    """
    chunk = reading.chunks[-1] if reading.chunks else None
    if chunk is None or chunk.role != "entity" or chunk.opener or chunk.modifiers or chunk.stop < len(reading.words):
        return
    before = reading.words[: chunk.first]
    describing = {word.lower: place for place, word in enumerate(before) if word.text != ","}
    plain = all(word.text == "," or word.pos == "adjective" or word.lower in COLOURS for word in before)
    if not plain or len(before) < 4 or any(one.stop - one.first > 1 for one in reading.chunks[:-1]):
        return
    for one in reading.chunks[:-1]:
        one.role = "attribute"
    for place in sorted(describing.values()):
        reading.words[place].pos = "adjective"
        chunk.extras.append((place, place + 1))


def _attributes(reading: Reading, first: int, stop: int) -> list[int]:
    """The modifier words of a stretch: no commas, no "and"."""
    wanted = ("adjective", "adverb", "noun", "verb", "number")
    return [place for place in range(first, stop) if reading.pos(place) in wanted]


def attributes(reading: Reading, chunk: Chunk) -> list[int]:
    """All attributes of an entity: before the noun, then from its extras, quoted text apart."""
    extras = [place for first, stop in chunk.extras for place in _attributes(reading, first, stop)]
    return list(dict.fromkeys([*chunk.modifiers, *extras]))
