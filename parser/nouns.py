"""What English nouns name: evidence from WordNet, read once from `data/nouns.txt`, which `make_nouns` makes.

Compounds are nouns of their own: a fire hydrant is no fire, a tank top is worn, a wine glass is no glass of a window.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from attnmod.parser.lexicon import singular

_FILE = Path(__file__).with_name("data") / "nouns.txt"
_LONGEST = 3  # words of a compound


class Noun(NamedTuple):
    """What a noun mostly names.

    Attributes:
        kind: c clothing, b body, h human, n animal, t other thing, m stuff, p place, w weather and light, s style,
            medium
            or genre, d time, a abstract; "-" where the word is none.
        seen: how much of its use is for what can be seen, 0 to 9.
        noun: how much of the word's use is as a noun, 0 to 9.
    """

    kind: str
    seen: int
    noun: int


@lru_cache(maxsize=1)
def _table() -> dict[str, str]:
    lines = _FILE.read_text(encoding="ascii").split("\n")
    return {word: said for word, _, said in (line.partition(" ") for line in lines)}


def look_up(word: str) -> Noun | None:
    """A word or, with underscores, a compound; in the plural, too. None where nothing is known of it.

    >>> look_up("fire_hydrants"), look_up("hesitation"), look_up("rutkowski")
    (Noun(kind='t', seen=9, noun=9), Noun(kind='a', seen=0, noun=9), None)
    """
    table = _table()
    one = _singular(word)
    # "eyes" and "wings" have an entry of their own, for judgements and for badges
    said = table.get(one) if len(one) > 2 else None
    if said is None or said[0] == "-":
        said = table.get(word) or said
    if said is None:
        said = _of_parts(table, one)
    return Noun(said[0], int(said[1]), int(said[2])) if said else None


def _of_parts(table: dict[str, str], word: str) -> str | None:
    """What a word names that is two: "eyepatch", "treehouse", "twintails"."""
    for cut in range(3, len(word) - 3):
        first, last = table.get(word[:cut], "-"), table.get(word[cut:], "-")
        if first[0] in "cbhntmpw" and last[0] in "cbhnt" and last[1:] >= "60":
            return last
    return None


def _singular(word: str) -> str:
    first, mark, last = word.rpartition("_")
    return first + mark + singular(last)


def of_phrase(words: Sequence[str]) -> Noun | None:
    """What a phrase that ends in its noun names: by its longest known compound, else by the noun."""
    for size in range(min(_LONGEST, len(words)), 1, -1):
        if (found := look_up("_".join(words[-size:]))) is not None:
            return found
    return look_up(words[-1]) if words else None


def is_known(word: str) -> bool:
    """Whether an English word: as it stands, or without an ending."""
    if word in _table() or singular(word) in _table():
        return True
    bare = [word[: -len(end)] for end in ("ing", "ed", "er", "est", "ly", "d", "ness") if word.endswith(end)]
    return any(one in _table() or one + "e" in _table() or one[:-1] in _table() for one in bare if len(one) > 2)


def is_verb_rather(word: str) -> bool:
    """Whether a word is a noun in less than half of its use."""
    noun = look_up(word)
    return noun is not None and noun.noun <= 4
