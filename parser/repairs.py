"""What a tagger misreads, put right before anything else looks at the words.

A tagger trained on newspapers misreads prompts in a few patterns that are plain to see: after an article and its
adjectives there must be a noun. The repairs below are the only place where a tag is overruled; each is one function
with an example.
"""

from collections.abc import Callable

from attnmod.parser.chunks import look_ahead
from attnmod.parser.evidence import compounds, only_nouns, verb_after_noun, written_on_signs
from attnmod.parser.known import OPENERS, known_words
from attnmod.parser.lexicon import (
    ADVERBS,
    ANIMATE,
    ARTICLES,
    BODY_PARTS,
    CLOTHING,
    COLOURS,
    HOLDING,
    MATERIALS,
    PLAIN_COLOURS,
    POSTNOMINAL,
    PURE_COLOURS,
    RELATING,
    WEARING,
    singular,
)
from attnmod.parser.words import Word

_BEFORE_COLOUR = (*OPENERS, "adjective", "comma", "stop", "conjunction")
_NEVER_DESCRIBE = ANIMATE | BODY_PARTS | CLOTHING
_FILLERS = ("adjective", "adverb", "number")
_FURTHEST = (
    16  # words that a repair looks back: no noun phrase is longer, and thousands of adjectives would take minutes
)


_ENDERS = frozenset(
    (
        "comma", "stop", "conjunction", "preposition", "subordinator", "be", "relative", "determiner", "quote",
        "possessive", "particle",
    )
)  # fmt: skip


def _phrase_ends(words: list[Word], index: int) -> bool:
    """Whether a noun phrase cannot go on at this word."""
    if index >= len(words):
        return True
    word = words[index]
    if word.pos in _ENDERS or (word.lower in RELATING and word.pos == "adverb"):
        return True
    return word.lower in WEARING or word.lower in HOLDING or word.pos == "pronoun"


def _acts(words: list[Word], index: int) -> bool:
    """Whether a participle with something behind it stands here: "having a tea party", "sitting on a chair"."""
    if index + 1 >= len(words) or not words[index].lower.endswith("ing"):
        return False
    return words[index].pos == "verb" and words[index + 1].pos in ("determiner", "preposition", "possessive")


def noun_taken_for_verb(words: list[Word]) -> None:
    """After an article and adjectives, where the phrase ends, stands its noun, not a verb.

    >>> outline("a red rose and a white carnation")
    'rose x1: red; carnation x1: white'
    >>> outline("a triangular building set")
    'set x1: triangular, building'
    >>> outline("a red and white striped awning over a shop")
    'awning x1: red, white, striped; shop x1; [relation: over]'
    """
    for index, word in enumerate(words):
        if word.pos != "verb" or word.lower in WEARING | HOLDING or not _phrase_ends(words, index + 1):
            continue
        if word.participle and index and words[index - 1].lower in ("one", "other", "both", "all"):
            continue  # "two cups, one filled with tea"
        if _acts(words, index) and words[index + 1].pos != "preposition":
            continue  # "a hedgehog having a party"
        last = index + 1 == len(words) and word.lower == "set"
        coloured = index >= 2 and words[index - 1].lower in COLOURS and words[index - 2].lower in ARTICLES
        if _opens_without_noun(words, index) or coloured or last:
            word.pos, word.participle, word.repaired = "noun", False, "noun_taken_for_verb"
            word.plural = word.lower.endswith("s") and singular(word.lower) != word.lower


def adjective_taken_for_noun(words: list[Word]) -> None:
    """After an article, the last adjective is the noun if nothing else is.

    >>> outline("a red orange and a diamond pendant")
    'orange x1: red; pendant x1: diamond'
    >>> outline("a hedgehog eating a cake")
    'hedgehog x1; cake x1; [action: eating]'
    """
    for index, word in enumerate(words):
        if word.pos not in ("adjective", "adverb") or not (_phrase_ends(words, index + 1) or _acts(words, index + 1)):
            continue
        after = words[index + 1].pos if index + 1 < len(words) else "stop"
        stuff = index >= 1 and words[index - 1].pos == "noun" and words[index - 1].lower in MATERIALS
        if after == "conjunction" and _pair_goes_on(words, index + 2) and not stuff:
            continue  # "a black and white cat", but not "the glass ornament and wooden hook"
        if word.lower in RELATING and index + 1 < len(words) and words[index + 1].lower in ("to", "by"):
            continue  # "a moped next to"
        if index and words[index - 1].lower in ("one", "other") and word.lower in POSTNOMINAL:
            continue  # "two cats, one asleep"
        if after == "comma" and _pair_goes_on(words, index + 2) and not _opens(words, index + 2):
            continue  # "a long, narrow room"
        if after == "comma" and word.lower not in COLOURS and _two_nouns(words, index + 2):
            words[index + 2].pos = "adjective"
            continue  # "a warm, cozy blanket", where "cozy" is taken for a noun
        if word.pos == "adverb" and _is_last_noun(words, index):
            word.pos, word.repaired = "noun", "adjective_taken_for_noun"
        if _opens_without_noun(words, index) or (
            index >= 2
            and words[index - 1].pos == "noun"
            and words[index - 2].pos in ("determiner", "adjective", "number")
            and word.lower not in POSTNOMINAL | COLOURS
            and word.pos == "adjective"
            and after in ("conjunction", "stop", "comma")
        ):
            word.pos, word.repaired = "noun", "adjective_taken_for_noun"


def _two_nouns(words: list[Word], index: int) -> bool:
    return index + 1 < len(words) and words[index].pos == words[index + 1].pos == "noun"


def _is_last_noun(words: list[Word], index: int) -> bool:
    """ "hydrant" of "a fire hydrant beside ...": no adverb, though it stands behind a noun."""
    if index < 2 or words[index - 1].pos != "noun":
        return False
    known = words[index].lower in ADVERBS | RELATING or words[index].lower.endswith(("ly", "ward", "wards", "wise"))
    return words[index - 2].pos in ("determiner", "adjective", "number") and not known


def _opens(words: list[Word], index: int) -> bool:
    return index < len(words) and words[index].pos in OPENERS


def _opens_without_noun(words: list[Word], index: int) -> bool:
    """Whether an article stands before this word with nothing but adjectives between."""
    back, end = index - 1, index - _FURTHEST
    while back >= max(0, end):
        word = words[back]
        pair = word.pos == "conjunction" and back and words[back - 1].pos == words[back + 1].pos == "adjective"
        fills = word.pos in _FILLERS or (word.pos == "verb" and word.participle) or word.lower in PURE_COLOURS or pair
        if word.pos == "number" or not fills:
            break
        back -= 1
    return (
        back >= max(0, end)
        and words[back].pos in OPENERS
        and words[back].lower not in ("that", "this", "these", "those")
    )


def _pair_goes_on(words: list[Word], index: int) -> bool:
    """Whether adjectives and then a noun follow, without an article."""
    first = index
    while index < len(words) and (
        words[index].pos in ("adjective", "adverb")
        or words[index].participle
        or (index + 1 < len(words) and words[index].lower in MATERIALS and words[index + 1].pos == "noun")
    ):
        index += 1
    return index > first and index < len(words) and words[index].pos in ("noun", "comma", "conjunction")


def adjective_before_colour(words: list[Word]) -> None:
    """What opens a phrase and stands before a colour and a noun describes.

    >>> outline("1boy, spiky black hair, rubber sole shoes")
    'boy x1; hair: spiky, black < boy; shoes: rubber, sole < boy'
    >>> outline("a bright neon pink flamingo")
    'flamingo x1: bright, neon, pink'
    """
    ahead = look_ahead(words)
    for index, word in enumerate(words[:-2]):
        colour = words[index + 1]
        opens = index == 0 or words[index - 1].pos in ("determiner", "comma", "stop", "preposition", "conjunction")
        opens = opens or (words[index - 1].lower in COLOURS and words[index - 1].pos == "adjective")
        opens = opens and singular(word.lower) not in _NEVER_DESCRIBE  # "a woman blonde hair blue eyes"
        coloured = colour.pos == "adjective" and ahead.noun[index + 2]
        coloured = coloured and (colour.lower in COLOURS or word.lower in MATERIALS)
        if word.pos == "noun" and not word.plural and opens and coloured:
            word.pos, word.repaired = "adjective", "adjective_before_colour"


def colour_before_participle(words: list[Word]) -> None:
    """A colour and a participle, then the last word of the phrase: that one is the noun.

    >>> outline("an orange checked circle and a small cyan striped square")
    'circle x1: orange, checked; square x1: small, cyan, striped'
    """
    for place, (colour, looks, noun) in enumerate(zip(words, words[1:], words[2:], strict=False)):
        if colour.lower not in PLAIN_COLOURS or (place and words[place - 1].pos not in _BEFORE_COLOUR):
            continue
        describes = looks.pos == "adjective" or (looks.pos == "verb" and looks.lower.endswith("ed"))
        named = noun.pos == "noun" or (noun.pos in ("adjective", "verb", "other") and _phrase_ends(words, place + 3))
        if describes and named and (noun.pos == "noun" or looks.lower.endswith("ed")):
            colour.pos = looks.pos = "adjective"
            noun.pos, noun.participle = "noun", False
            colour.repaired = "colour_before_participle"


def noun_and_verb_swapped(words: list[Word]) -> None:
    """A clause has one verb: what follows it and ends the phrase is a noun; between a noun and "the" stands the verb.

    >>> outline("The light shone down on the colorful fall leaves.")
    'light x1; leaves: colorful, fall; [action: shone down]; [relation: on]'
    >>> outline("The metallic kettle and wooden spoon boil the water.")
    'kettle x1: metallic; spoon: wooden; water x1; [action: boil]'
    >>> outline("kittens, tiny paws batting at a ball")
    'kittens; paws: tiny; ball x1; [action: batting]; [relation: at]'
    """
    verb = False
    for index, word in enumerate(words):
        before = words[index - 1] if index else None
        after = words[index + 1] if index + 1 < len(words) else None
        if word.pos in ("stop", "comma", "relative", "subordinator"):
            verb = False
        follows = before is not None and before.pos == "noun"
        if word.pos == "verb" and verb and follows and not word.participle and _phrase_ends(words, index + 1):
            if before is not None and before.plural is False and word.lower not in WEARING | HOLDING:
                word.pos, word.repaired, word.plural = "noun", "noun_taken_for_verb", word.lower.endswith("s")
        elif word.pos == "noun" and follows and after is not None and word.repaired == "":
            acts = not verb and not word.plural and after.lower in ("the", "a", "an")
            does = word.lower.endswith("ing") and before is not None and before.plural and after.pos == "preposition"
            if acts or does:
                word.pos, word.participle, word.repaired = "verb", does, "noun_and_verb_swapped"
        verb = verb or (word.pos in ("verb", "be") and not word.modifier)


def age(words: list[Word]) -> None:
    """How old somebody is describes; it is no count.

    >>> outline("a 25 year old woman and two 5-year-old girls")
    'woman x1: 25, year, old; girls x2: 5-year-old'
    """
    for number, year, old in zip(words, words[1:], words[2:], strict=False):
        if year.lower in ("year", "years", "month", "months") and old.lower == "old" and number.text.isdecimal():
            number.pos = year.pos = old.pos = "adjective"


REPAIRS: tuple[Callable[[list[Word]], None], ...] = (
    known_words,
    compounds,
    only_nouns,
    noun_taken_for_verb,
    adjective_taken_for_noun,
    adjective_before_colour,
    colour_before_participle,
    noun_and_verb_swapped,
    age,
    verb_after_noun,
    written_on_signs,
)


def repair(words: list[Word]) -> list[Word]:
    """Apply all repairs, in order, to the words themselves."""
    for rule in REPAIRS:
        rule(words)
    return words
