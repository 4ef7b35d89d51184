"""A tagged sentence -> words with a part of speech that the grammar can trust.

A tagger trained on newspapers misreads prompts in a few patterns that are plain to see: after an article and its
adjectives there must be a noun. The repairs below are the only place where a tag is overruled; each is one function
with an example. Everything after this file speaks of nouns, adjectives and verbs, never of a model's labels.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnmod.parser.lexicon import (
    ARTICLES,
    BE_FORMS,
    COLOURS,
    GLOWING,
    HOLDING,
    MATERIALS,
    NUMBERS,
    PAINTED,
    POSTNOMINAL,
    POSTURES,
    SINGULAR_DETERMINERS,
    VAGUE_QUANTITIES,
    WEARING,
    singular,
)


@dataclass(slots=True)
class Word:
    """A word of the prompt.

    Attributes:
        text, start, end: the characters it stands for; hyphenated words are one.
        pos: determiner, possessive (his, 's), number, adjective, adverb, noun, verb, be, preposition, conjunction,
            relative (that, which, who), pronoun, comma, stop, quote or other.
        plural: a noun in the plural.
        participle: a verb form that can stand before a noun (smiling, carved).
        modifier: the model thinks that it modifies a noun to its right.
        subject: index of the word the model takes for the subject of this verb, or None.
        repaired: name of the repair that changed `pos`, or "".
    """

    text: str
    start: int
    end: int
    pos: str
    plural: bool = False
    participle: bool = False
    modifier: bool = False
    subject: int | None = None
    repaired: str = ""

    @property
    def lower(self) -> str:
        return self.text.lower()


# Universal part of speech -> ours; what is missing is "other"
_POS = {
    "DET": "determiner", "NUM": "number", "ADJ": "adjective", "ADV": "adverb", "NOUN": "noun", "PROPN": "noun",
    "VERB": "verb", "ADP": "preposition", "CCONJ": "conjunction", "PRON": "pronoun", "SCONJ": "subordinator",
}  # fmt: skip
_LABEL_POS = {"POS": "possessive", "PRP$": "possessive", "WDT": "relative", "WP": "relative", "EX": "pronoun"}
# a single quote is an apostrophe more often than not
_MARKS = {
    ",": "comma", ";": "stop", ":": "comma", ".": "stop", "!": "stop", "?": "stop", "'": "other", "`": "other",
    "\u2018": "other", "\u2019": "other",
}  # fmt: skip
_UNIT = re.compile(r"(?:mm|cm|k|px|p|fps)$", re.IGNORECASE)
_SUBJECTS = frozenset(("nsubj", "nsubjpass", "nsubj:pass"))
_MODIFIERS = frozenset(("amod", "compound", "nmod", "poss", "nummod", "npadvmod", "advmod", "quantmod"))
_COUNTED_TAG = re.compile(r"(\d+)((?:girl|boy|woman|man|other|cat|dog|person|people)s?)$", re.IGNORECASE)


def read_words(doc: Any, text: str) -> list[Word]:
    """The words of a parsed text, hyphenated ones joined, tags repaired."""
    words: list[Word] = []
    word_of: list[int] = []  # the model's token -> our word
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        joins = words and words[-1].end == start and _joins(words[-1], token)
        if token.is_space:
            word_of.append(len(words) - 1)
        elif joins:
            _join(words[-1], token, text)
            word_of.append(len(words) - 1)
        elif match := _COUNTED_TAG.match(token.text):
            middle = start + match.end(1)
            words.append(Word(text[start:middle], start, middle, "number"))
            words.append(Word(text[middle:end], middle, end, "noun", plural=text[end - 1] in "sS"))
            word_of.append(len(words) - 1)
        else:
            words.append(_read(token, text))
            word_of.append(len(words) - 1)
    for token in doc:
        here = word_of[token.i]
        if token.dep_ in _SUBJECTS and here >= 0:
            words[word_of[token.head.i]].subject = here
    for repair in REPAIRS:
        repair(words)
    return words


def _joins(before: Word, token: Any) -> bool:
    """No blank between, and one of the two is a hyphen; or a number and its unit ("85mm")."""
    if before.pos == "number" and _UNIT.match(token.text):
        return True
    return token.text in ("-", "\u2010", "\u2011") or before.text.endswith(("-", "\u2010", "\u2011"))


def _join(word: Word, token: Any, text: str) -> None:
    """Make the word longer by a hyphen or by what follows one; the last part decides what it is."""
    word.end = token.idx + len(token)
    word.text = text[word.start : word.end]
    if not token.text.isalnum():
        return
    part = _read(token, text)
    if word.pos == "number" and _UNIT.match(part.text):
        word.pos = "noun"
        return
    word.plural, word.modifier, word.participle = part.plural, part.modifier, False
    # "red-haired", "half-eaten", "well-lit" modify; "t-shirt", "close-up" name
    word.pos = "adjective" if part.pos == "verb" or part.lower.endswith("ed") else part.pos
    if word.pos in ("adverb", "preposition", "number"):
        word.pos = "adjective" if word.pos == "number" or part.modifier else "noun"


def _read(token: Any, text: str) -> Word:
    start, end = token.idx, token.idx + len(token)
    lower = token.text.lower()
    morph = token.morph.to_dict()
    pos = _LABEL_POS.get(token.tag_) or _POS.get(token.pos_, "other")
    if pos == "pronoun" and morph.get("Poss") == "Yes":
        pos = "possessive"
    elif pos == "pronoun" and morph.get("PronType") == "Rel":
        pos = "relative"
    if token.pos_ == "AUX":
        pos = "be" if lower in BE_FORMS else "verb"
    if lower in BE_FORMS and pos == "verb":
        pos = "be"
    if lower in ("that", "which", "who", "whose") and token.dep_ in _SUBJECTS:
        pos = "relative"
    if token.is_punct or token.is_quote:
        pos = _MARKS.get(token.text, "quote" if token.is_quote else "other")
    return Word(
        text=text[start:end],
        start=start,
        end=end,
        pos=pos,
        plural=token.tag_ in ("NNS", "NNPS") or morph.get("Number") == "Plur",
        # a regular past is spelled like the participle, and before a noun the tagger often takes one for the other
        participle=morph.get("VerbForm") in ("Part", "Ger") or (token.tag_ == "VBD" and lower.endswith("ed")),
        modifier=token.dep_ in _MODIFIERS and token.head.i > token.i,
    )


# -- repairs ----------------------------------------------------------------------------------------------------------

_OPENERS = ("determiner", "possessive", "number")
_FILLERS = ("adjective", "adverb", "number")


_ENDERS = frozenset(
    (
        "comma", "stop", "conjunction", "preposition", "subordinator", "be", "relative", "determiner", "quote",
        "possessive",
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
        if _opens_without_noun(words, index) or (
            index >= 2
            and words[index - 1].pos == "noun"
            and words[index - 2].pos in ("determiner", "adjective", "number")
            and word.lower not in POSTNOMINAL | COLOURS
            and word.pos == "adjective"
            and after in ("conjunction", "stop", "comma")
        ):
            word.pos, word.repaired = "noun", "adjective_taken_for_noun"


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
    while index < len(words) and (words[index].pos in ("adjective", "adverb") or words[index].participle):
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


REPAIRS: tuple[Callable[[list[Word]], None], ...] = (
    known_words,
    noun_taken_for_verb,
    adjective_taken_for_noun,
    determiner_without_noun,
)
