"""Words that the grammar knows by heart, whatever a tagger says of them.

The first of the repairs, and the longest: one line a word or a kind of words, each with what it is for.
"""

from attnmod.parser.lexicon import (
    ANIMATE,
    CLOTHING,
    COLOURS,
    GLOWING,
    HOLDING,
    MATERIALS,
    MEDIA,
    NEVER_NOUNS,
    NUMBERS,
    ONLOOKERS,
    PAINTED,
    PASTS,
    POSTURES,
    PRONOUNS,
    PURE_COLOURS,
    RELATING,
    VAGUE_QUANTITIES,
    WEARING,
    singular,
)
from attnmod.parser.nouns import look_up
from attnmod.parser.words import Word

OPENERS = ("determiner", "possessive", "number")


def known_words(words: list[Word]) -> None:
    """Words that the grammar knows by heart, whatever the tagger says.

    >>> outline("a zebra standing in a cage")
    'zebra x1; cage x1; [action: standing]; [relation: in]'
    >>> outline("a fox and a grey wolf standing side by side")
    'fox x1; wolf x1: grey; [action: standing]; [relation: side by side]'
    """
    for side, by, again in zip(words, words[1:], words[2:], strict=False):
        if [side.lower, by.lower, again.lower] == ["side", "by", "side"]:
            side.pos = again.pos = "preposition"
    for index, word in enumerate(words):
        before = words[index - 1].pos if index else ""
        after = words[index + 1].pos if index + 1 < len(words) else ""
        if word.lower == "an" and after == "determiner" and words[index + 1].lower in ("a", "an", "the"):
            word.pos = "conjunction"  # "a cat an a dog", mistyped
        elif word.lower in ("a", "an", "the") and word.pos != "determiner":
            word.pos = "determiner"
        elif word.lower == "next" and _next_is(words, index, "to"):
            word.pos = "adverb"
        elif word.lower in ("left", "right") and _next_is(words, index, "of") and before in ("noun", "verb", "be"):
            word.pos = "preposition"  # "a goat right of a drum"
        elif word.lower in ("2d", "3d", "hd") and after in ("noun", "adjective"):
            word.pos = "adjective"
        elif word.lower in ("and", "or", "&", "plus") and word.pos != "conjunction":
            word.pos = "conjunction"
        elif word.lower in ("with", "without", "near", "beside", "behind", "above", "below", "under", "atop"):
            word.pos = "preposition"
        elif word.pos == "pronoun" and before == "adjective" and word.lower not in PRONOUNS:
            word.pos, word.repaired = "noun", "known_words"  # "bookshelf", taken for a pronoun
        elif word.lower in ("one", "ones") and before == "adjective":
            word.pos, word.plural = "noun", word.lower == "ones"  # "a blue one"
        elif word.lower in NUMBERS and word.pos in ("noun", "adjective", "determiner", "pronoun"):
            word.pos = "number"
        elif word.lower in VAGUE_QUANTITIES and word.pos == "adjective":
            word.pos = "determiner"
        elif word.lower in MATERIALS and word.pos == "verb" and before == "preposition":
            word.pos, word.participle, word.repaired = "noun", False, "known_words"  # "made of felt"
        elif word.lower == "can" and before in ("noun", "adjective") and after not in ("verb", "be", "adverb", "noun"):
            word.pos, word.repaired = "noun", "known_words"  # "a soda can"
        elif word.lower == "can" and before == "noun" and _relates(words, index + 1):
            word.pos, word.repaired = "noun", "known_words"  # "a Coca-Cola can next to"
        elif word.lower in ANIMATE and word.pos in ("adjective", "verb") and _names(words, index, before, after):
            word.pos, word.repaired = "noun", "known_words"  # "a two-headed dragon breathing fire"
        elif word.lower.endswith("less") and word.pos == "noun" and after in ("adjective", "noun"):
            word.pos = "adjective"  # "a shirtless muscular man"
        elif word.lower == "wear" and word.pos in ("verb", "adjective") and before in ("noun", "adjective"):
            if index > 2 and "in" in [earlier.lower for earlier in words[index - 3 : index]]:
                word.pos, word.repaired = "noun", "known_words"  # "in formal evening wear"
        elif word.pos == "noun" and word.lower in NEVER_NOUNS:
            word.pos = "adjective"  # "the other asleep"
        elif word.lower in ONLOOKERS and word.pos == "adjective":
            word.pos, word.repaired = "noun", "known_words"  # "looking at viewer"
        elif word.lower in MEDIA and word.pos in ("adverb", "verb", "adjective") and _next_is(words, index, "of"):
            if before in ("", "adjective", "determiner", "noun", "comma"):
                word.pos, word.repaired = "noun", "known_words"  # "cinematic still of"
        elif word.pos == "preposition" and before == "determiner" and after == "noun":
            word.pos, word.repaired = "adjective", "known_words"  # "a round pendant"
        elif (
            word.lower in COLOURS
            and word.pos in ("verb", "adverb")
            and (after in ("noun", "adjective") or word.lower in PURE_COLOURS)
        ):
            word.pos, word.participle, word.repaired = "adjective", False, "known_words"
        elif (
            (word.lower in WEARING or word.lower in HOLDING)
            and before == "noun"
            and word.pos in ("noun", "adjective")
            and look_up(f"{words[index - 1].lower}_{word.lower}") is None  # "two teddy bears"
        ):
            word.pos, word.repaired = "verb", "known_words"
        elif word.lower in COLOURS and word.pos == "noun" and index and words[index - 1].lower in PAINTED:
            word.pos, word.repaired = "adjective", "known_words"  # "a door painted red"
        elif word.lower in GLOWING and word.pos == "verb" and after in ("noun", "adjective"):
            word.modifier = True
        elif word.lower in PASTS and word.pos == "noun" and before == "noun":
            word.pos, word.participle, word.repaired = "verb", False, "known_words"
        elif word.lower in POSTURES and word.pos == "noun" and _may_act(words, index, after):
            word.pos, word.participle, word.repaired = "verb", True, "known_words"


def _names(words: list[Word], index: int, before: str, after: str) -> bool:
    """Whether a word for a person or an animal stands where nothing but a noun can."""
    if words[index].pos == "adjective":
        following = words[index + 1] if index + 1 < len(words) else None
        acts = following is not None and (
            following.lower in POSTURES or (after == "verb" and following.lower.endswith("ing"))
        )
        return acts and before in (*OPENERS, "adjective")
    return after == "noun" and before in ("", "comma", "stop")


def _next_is(words: list[Word], index: int, said: str) -> bool:
    return index + 1 < len(words) and words[index + 1].lower == said


def _relates(words: list[Word], index: int) -> bool:
    """Whether "next to" and the like begin here."""
    return index + 1 < len(words) and words[index].lower in RELATING and words[index + 1].lower in ("to", "by")


def _may_act(words: list[Word], index: int, after: str) -> bool:
    """Whether what stands before a posture can take it: a noun, "in red", "is red", "one"; or nothing, among tags."""
    if index == 0 or words[index - 1].pos in ("comma", "stop"):
        return index + 1 == len(words) or words[index + 1].pos in ("comma", "stop")
    before = words[index - 1]
    earlier = words[index - 2] if index >= 2 else before
    if before.lower in ("one", "other", "both", "all"):
        return after != "noun"
    if after == "noun":
        return bool({before.lower, singular(before.lower)} & CLOTHING)  # "man red hat blue shirt standing beach"
    return before.pos == "noun" or (before.lower in COLOURS and (earlier.lower == "in" or earlier.pos == "be"))
