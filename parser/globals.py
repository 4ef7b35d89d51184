"""What no entity took: the words between things become relations and actions, the rest of the content "other"."""

from attnmod.parser.chunks import Chunk
from attnmod.parser.lexicon import RELATING, SPATIAL
from attnmod.parser.reading import Reading


def global_phrases(reading: Reading, things: list[Chunk]) -> list[tuple[int, int, str, str]]:
    """Words that no thing took: verbs are actions, prepositions relations, what else says something is "other".

    All global phrases, left to right, as (first, stop, kind, rule): those that a rule found, and what is left.
    """
    taken = set(reading.linked)
    for chunk in things:
        for first, stop in [(chunk.first, chunk.stop), *chunk.extras]:
            taken.update(range(first, stop))
    for chunk in reading.chunks:
        if chunk.role == "attribute":
            taken.update(range(chunk.first, chunk.stop))
    phrases: list[tuple[int, int, str, str]] = []
    for first, stop, kind, rule in sorted(reading.phrases, key=lambda phrase: (phrase[0], -phrase[1])):
        if not phrases or stop > phrases[-1][1]:  # a phrase inside another one says nothing new
            phrases.append((first, stop, kind, rule))
        taken.update(range(first, stop))
    left = [(*run, "global_phrases") for run in _runs(reading, taken)]
    return sorted([*phrases, *left])


def _runs(reading: Reading, taken: set[int]) -> list[tuple[int, int, str]]:
    """Neighbouring words of one kind that nothing has taken."""
    kinds = [None if place in taken else _kind(reading, place) for place in range(len(reading.words))]
    for place in range(len(kinds) - 2, -1, -1):
        if kinds[place] == "lead":  # an adverb or "is" goes with the verb or preposition after it
            kinds[place] = kinds[place + 1] if kinds[place + 1] in ("action", "relation") else None
    runs: list[tuple[int, int, str]] = []
    for place, kind in enumerate(kinds):
        if kind in (None, "lead"):
            continue
        if runs and runs[-1][1] == place and (runs[-1][2] == kind or kind == "tail"):
            runs[-1] = (runs[-1][0], place + 1, runs[-1][2])
        elif kind != "tail":
            runs.append((place, place + 1, kind))
    return runs


def _kind(reading: Reading, place: int) -> str | None:
    """relation, action, other; lead and tail go with their neighbour; None says nothing."""
    chunk = reading.chunk_at(place)
    if chunk is not None:
        return chunk.role if chunk.role in ("relation", "action") else "other"
    word = reading.words[place]
    after_verb = reading.pos(place - 1) == "verb" and reading.chunk_at(place - 1) is None
    after_verb = after_verb or (reading.pos(place - 1) == "pronoun" and reading.pos(place - 2) == "verb")
    if after_verb and (
        word.lower in ("together", "apart", "away") or (word.pos == "adverb" and word.lower.endswith("ly"))
    ):
        return "action"
    if word.lower in RELATING or (word.lower in SPATIAL and reading.word(place + 1) in (",", ":")):
        return "relation"  # "left: a cat"
    if word.pos in ("verb", "particle"):
        return "action"
    if word.pos == "preposition":
        return "relation"
    if word.pos in ("be", "adverb") or word.lower in ("not", "n't", "n\u2019t"):
        return "lead"
    if word.pos == "pronoun":
        return "tail"
    if word.pos == "number" and reading.word(place - 1) in ("each", "every", "another"):
        return None  # "each one"
    if word.pos in ("adjective", "number", "noun"):
        return "other"
    return None
