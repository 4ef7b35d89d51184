"""Repairs of tags that ask the lexicon what a word can be.

Of the same form as those in `repairs`, which lists them all.
"""

from itertools import pairwise

from attnmod.parser.lexicon import (
    ALWAYS_THINGS,
    ANIMATE,
    ARTICLES,
    COLOURS,
    HOLDING,
    MATERIALS,
    THINGS,
    WEARING,
    singular,
)
from attnmod.parser.nouns import look_up
from attnmod.parser.words import Word

_FURTHEST = 16  # words that a repair looks back: no noun phrase is longer
_OPEN = ("determiner", "adjective", "number")
_COMPOUND = ("noun", "adjective", "verb", "other")
_ENDERS = frozenset(("comma", "stop", "conjunction", "preposition", "subordinator", "be", "relative", "determiner"))


def compounds(words: list[Word]) -> None:
    """Two words that are one known noun are nouns, whatever a tagger says of each.

    >>> outline("a fire hydrant next to a wall and two teddy bears")
    'hydrant x1: fire; wall x1; bears x2: teddy; [relation: next to]'
    """
    for index, (first, last) in enumerate(pairwise(words)):
        if last.pos not in ("adjective", "adverb", "verb", "noun", "other") or first.pos not in _COMPOUND:
            continue
        if last.pos == "noun" and first.pos == "noun":
            continue
        noun = look_up(f"{first.lower}_{last.lower}")
        after = words[index + 2].pos if index + 2 < len(words) else "stop"
        if singular(last.lower) == "sign" and first.pos == "noun" and after in _ENDERS:
            last.pos, last.repaired = "noun", "compounds"  # "a red stop sign"
            continue
        if last.pos == "verb" and after in ("preposition", "determiner", "possessive", "particle"):
            continue  # "a man in a coat stands on the snow"
        if noun is None or noun.kind not in "cbhnt" or noun.seen < 7 or _is_verb_phrase(first, last):
            continue
        if first.pos == "verb":
            first.pos = "adjective" if first.participle else "noun"
        last.pos, last.participle, last.repaired = "noun", False, last.repaired or "compounds"
        last.plural = last.plural or (last.lower.endswith("s") and singular(last.lower) != last.lower)


_COMPOUND = ("noun", "adjective", "verb", "other")


def _is_verb_phrase(first: Word, last: Word) -> bool:
    """ "a man jumps rope", "bears fight": both can be read as they are tagged."""
    return last.pos == "verb" and last.lower.endswith(("ing", "ed"))


def only_nouns(words: list[Word]) -> None:
    """A word that the lexicon knows as a noun and as nothing else is one.

    >>> outline("a tall hydrant near a wig")
    'hydrant x1: tall; wig x1; [relation: near]'
    """
    for index, word in enumerate(words):
        after = words[index + 1].pos if index + 1 < len(words) else "stop"
        before = words[index - 1].pos if index else "stop"
        ends = index + 2 == len(words) or (index + 2 < len(words) and words[index + 2].pos == "stop")
        if index and before == "stop" and after == "noun" and ends and word.lower.endswith("ed") and word.pos == "verb":
            word.pos, word.repaired = "adjective", "only_nouns"  # ", crossed legs,"
            continue
        if before in ("stop", "adjective", "noun") and after == "stop" and _ends_a_tag(words, index):
            word.pos, word.participle, word.repaired = "noun", False, "only_nouns"
            word.plural = singular(word.lower) != word.lower
            continue
        if (
            word.pos not in ("adverb", "adjective", "verb", "other")
            or word.lower in COLOURS | MATERIALS | WEARING | HOLDING
        ):
            continue
        ends_here = after in ("comma", "stop", "preposition")
        if word.lower in ANIMATE and (
            word.pos == "other" or (word.pos == "adjective" and before in _OPEN and ends_here)
        ):
            word.pos = "noun"  # "a whale", taken for an adjective
        noun = look_up(word.lower)
        if (
            noun is None
            or noun.noun < (8 if word.pos == "other" else 9)
            or noun.kind not in "cbhntm"
            or noun.seen < 8
            or "-" in word.text
        ):
            continue
        if word.lower.endswith(("ing", "ed", "ly", "y")) or after in ("noun", "adjective"):
            continue
        word.pos, word.participle, word.repaired = "noun", False, "only_nouns"
        word.plural = singular(word.lower) != word.lower


def _ends_a_tag(words: list[Word], index: int) -> bool:
    """Whether the last word of a short tag is a noun by the lexicon, though it was tagged otherwise."""
    word = words[index]
    first = index
    while first > 0 and index - first < 3 and words[first - 1].pos != "stop":
        first -= 1
    short = first == 0 or words[first - 1].pos == "stop"
    if not short or word.pos == "noun" or word.lower.endswith(("ing", "ed")) or word.lower in COLOURS | MATERIALS:
        return False
    if any(one.pos not in ("adjective", "noun") for one in words[first:index]) or (
        first == 0 and index + 1 == len(words)
    ):
        return False
    noun = look_up(word.lower)
    if singular(word.lower) in THINGS | ALWAYS_THINGS:
        return True
    return noun is not None and noun.kind in "cbhnt" and noun.seen >= 6 and noun.noun >= 4


def verb_after_noun(words: list[Word]) -> None:
    """After "a" or "the" and a thing in the singular, a word in -s that is a verb as well is the verb.

    >>> outline("the whale glides past a reef")
    'whale x1; reef x1; [action: glides]; [relation: past]'
    """
    for index, word in enumerate(words):
        if index < 1 or word.pos != "noun" or not word.plural or not _is_named(words[index - 1]):
            continue
        first = index - 1
        while first > max(0, index - _FURTHEST) and words[first].pos in ("noun", "adjective"):
            first -= 1
        before, after = words[index - 1].lower, words[index + 1].pos if index + 1 < len(words) else "stop"
        acts = after in ("preposition", "determiner", "possessive", "particle", "adverb", "subordinator", "number")
        verb = look_up(singular(word.lower))
        may = verb is None or verb.noun <= 6 or verb.seen <= 3 or (singular(before) in ANIMATE and verb.noun < 9)
        acts = acts or (after in ("conjunction", "stop") and verb is not None and verb.noun <= 3)
        opened = words[first].lower in (*ARTICLES, "the", "his", "her", "its") or (
            first == index - 1 and (first == 0 or words[first - 1].pos in ("conjunction", "stop"))
        )
        one_noun = look_up(f"{before}_{word.lower}") is not None or (word.name and word.text[0].isupper())
        if opened and acts and may and not one_noun and _names_a_thing(before):
            word.pos, word.plural, word.repaired = "verb", False, "verb_after_noun"
            words[index - 1].pos = "noun"


def _is_named(word: Word) -> bool:
    """A noun in the singular; also an animal or a person that was tagged as an adjective."""
    return (word.pos == "noun" and not word.plural) or (word.pos == "adjective" and word.lower in ANIMATE)


def _names_a_thing(word: str) -> bool:
    noun = look_up(word)
    return singular(word) in ANIMATE or (noun is not None and noun.kind in "cbhntmpw")


def written_on_signs(words: list[Word]) -> None:
    """What a sign says, before its noun, describes it.

    >>> outline("a green keep out sign")
    'sign x1: green, keep, out'
    """
    for index in range(2, len(words)):
        verb, particle, sign = words[index - 2], words[index - 1], words[index]
        opened = index > 2 and words[index - 3].pos in ("determiner", "adjective", "number")
        said = particle.lower in ("out", "off", "in", "up", "down", "over", "away", "here", "now")
        if said and opened and singular(sign.lower) in ("sign", "poster", "banner", "button", "sticker", "label"):
            verb.pos = particle.pos = "adjective"
            verb.participle, verb.repaired, sign.pos = False, "", "noun"
