"""What a tagger misreads, put right before anything else looks at the words.

A tagger trained on newspapers misreads prompts in a few patterns that are plain to see: after an article and its
adjectives there must be a noun. The repairs below are the only place where a tag is overruled; each is one function
with an example.
"""

from collections.abc import Callable

from attnmod.parser.lexicon import (
    ADVERBS,
    ARTICLES,
    COLOURS,
    GLOWING,
    HOLDING,
    MATERIALS,
    NUMBERS,
    PAINTED,
    PASTS,
    POSTNOMINAL,
    POSTURES,
    PRONOUNS,
    RELATING,
    SINGULAR_DETERMINERS,
    VAGUE_QUANTITIES,
    WEARING,
    singular,
)
from attnmod.parser.words import Word

_OPENERS = ("determiner", "possessive", "number")
_FILLERS = ("adjective", "adverb", "number")


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
    if word.pos in _ENDERS:
        return True
    return word.lower in WEARING or word.lower in HOLDING or word.pos == "pronoun"


def known_words(words: list[Word]) -> None:
    """Words that the grammar knows by heart, whatever the tagger says.

    >>> outline("a zebra standing in a cage")
    'zebra x1; cage x1; [action: standing]; [relation: in]'
    """
    for index, word in enumerate(words):
        before = words[index - 1].pos if index else ""
        after = words[index + 1].pos if index + 1 < len(words) else ""
        if word.lower in ("a", "an", "the") and word.pos != "determiner":
            word.pos = "determiner"
        elif word.lower in ("and", "or", "&", "plus") and word.pos != "conjunction":
            word.pos = "conjunction"
        elif word.lower in ("with", "without", "near", "beside", "behind", "above", "below", "under", "atop"):
            word.pos = "preposition"
        elif word.pos == "pronoun" and before == "adjective" and word.lower not in PRONOUNS:
            word.pos, word.repaired = "noun", "known_words"  # "bookshelf", taken for a pronoun
        elif word.lower in NUMBERS and word.pos in ("noun", "adjective", "determiner", "pronoun"):
            word.pos = "number"
        elif word.lower in VAGUE_QUANTITIES and word.pos == "adjective":
            word.pos = "determiner"
        elif word.lower in MATERIALS and word.pos == "verb" and before == "preposition":
            word.pos, word.participle, word.repaired = "noun", False, "known_words"  # "made of felt"
        elif word.lower == "can" and before in ("noun", "adjective") and after not in ("verb", "be", "adverb", "noun"):
            word.pos, word.repaired = "noun", "known_words"  # "a soda can"
        elif word.pos == "preposition" and before == "determiner" and after == "noun":
            word.pos, word.repaired = "adjective", "known_words"  # "a round pendant"
        elif word.lower in COLOURS and word.pos in ("verb", "adverb") and after in ("noun", "adjective"):
            word.pos, word.participle, word.repaired = "adjective", False, "known_words"
        elif (
            (word.lower in WEARING or word.lower in HOLDING) and before == "noun" and word.pos in ("noun", "adjective")
        ):
            word.pos, word.repaired = "verb", "known_words"
        elif word.lower in COLOURS and word.pos == "noun" and index and words[index - 1].lower in PAINTED:
            word.pos, word.repaired = "adjective", "known_words"  # "a door painted red"
        elif word.lower in GLOWING and word.pos == "verb" and after in ("noun", "adjective"):
            word.modifier = True
        elif word.lower in PASTS and word.pos == "noun" and before == "noun":
            word.pos, word.participle, word.repaired = "verb", False, "known_words"
        elif word.lower in POSTURES and word.pos == "noun" and after != "noun" and _may_act(words, index):
            word.pos, word.participle, word.repaired = "verb", True, "known_words"


def _may_act(words: list[Word], index: int) -> bool:
    """Whether what stands before a posture can take it: a noun, or "in red"."""
    before = words[index - 1] if index else None
    dressed = index >= 2 and words[index - 2].lower == "in"
    return before is not None and (before.pos == "noun" or (dressed and before.lower in COLOURS))


def noun_taken_for_verb(words: list[Word]) -> None:
    """After an article and adjectives, where the phrase ends, stands its noun, not a verb.

    >>> outline("a red rose and a white carnation")
    'rose x1: red; carnation x1: white'
    >>> outline("a triangular building set")
    'set x1: triangular, building'
    """
    for index, word in enumerate(words):
        if word.pos != "verb" or word.lower in WEARING | HOLDING or not _phrase_ends(words, index + 1):
            continue
        last = index + 1 == len(words) and word.lower == "set"
        coloured = index >= 2 and words[index - 1].lower in COLOURS and words[index - 2].lower in ARTICLES
        if _opens_without_noun(words, index) or coloured or last:
            word.pos, word.participle, word.repaired = "noun", False, "noun_taken_for_verb"
            word.plural = word.lower.endswith("s") and singular(word.lower) != word.lower


def adjective_taken_for_noun(words: list[Word]) -> None:
    """After an article, the last adjective is the noun if nothing else is.

    >>> outline("a red orange and a diamond pendant")
    'orange x1: red; pendant x1: diamond'
    """
    for index, word in enumerate(words):
        if word.pos not in ("adjective", "adverb") or not _phrase_ends(words, index + 1):
            continue
        after = words[index + 1].pos if index + 1 < len(words) else "stop"
        if after == "conjunction" and _pair_goes_on(words, index + 2):
            continue  # "a black and white cat"
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
    return index < len(words) and words[index].pos in _OPENERS


def _opens_without_noun(words: list[Word], index: int) -> bool:
    """Whether an article stands before this word with nothing but adjectives between."""
    back = index - 1
    while back >= 0 and (words[back].pos in _FILLERS or (words[back].pos == "verb" and words[back].participle)):
        if words[back].pos == "number":
            break
        back -= 1
    return back >= 0 and words[back].pos in _OPENERS and words[back].lower not in ("that", "this", "these", "those")


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


def determiner_without_noun(words: list[Word]) -> None:
    """ "that" after a noun and before a verb is a relative pronoun.

    >>> outline("a dog that sits")
    'dog x1; [action: sits]'
    """
    for index, word in enumerate(words[:-1]):
        if word.lower in SINGULAR_DETERMINERS & {"that"} and words[index + 1].pos in ("verb", "be"):
            word.pos = "relative"


def adjective_before_colour(words: list[Word]) -> None:
    """What opens a phrase and stands before a colour and a noun describes.

    >>> outline("1boy, spiky black hair, rubber sole shoes")
    'boy x1; hair: spiky, black; shoes: rubber, sole'
    """
    for index, word in enumerate(words[:-2]):
        colour, noun = words[index + 1], words[index + 2]
        opens = index == 0 or words[index - 1].pos in ("determiner", "comma", "stop", "preposition", "conjunction")
        coloured = colour.pos == "adjective" and noun.pos == "noun"
        coloured = coloured and (colour.lower in COLOURS or word.lower in MATERIALS)
        if word.pos == "noun" and not word.plural and opens and coloured:
            word.pos, word.repaired = "adjective", "adjective_before_colour"


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


def noun_in_a_list(words: list[Word]) -> None:
    """After "and" in a list of bare nouns without a verb stands a noun.

    >>> outline("A small bathroom, toilet and sink with a window")
    'bathroom x1: small; toilet; sink; window x1 < sink'
    """
    verb = False
    for index, word in enumerate(words):
        if word.pos == "stop":
            verb = False
        listed = index >= 2 and words[index - 1].pos == "conjunction" and words[index - 2].pos == "noun"
        after = words[index + 1] if index + 1 < len(words) else None
        ends = after is None or after.pos in ("comma", "stop", "conjunction") or after.lower in ("with", "of")
        if word.pos == "verb" and listed and not verb and not word.participle and ends and word.subject is None:
            word.pos, word.repaired = "noun", "noun_in_a_list"
        verb = verb or word.pos in ("verb", "be", "relative")


REPAIRS: tuple[Callable[[list[Word]], None], ...] = (
    known_words,
    noun_taken_for_verb,
    adjective_taken_for_noun,
    determiner_without_noun,
    adjective_before_colour,
    noun_and_verb_swapped,
    noun_in_a_list,
)


def repair(words: list[Word]) -> list[Word]:
    """Apply all repairs, in order, to the words themselves."""
    for rule in REPAIRS:
        rule(words)
    return words
