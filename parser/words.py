"""A tagged sentence -> words with a part of speech in the grammar's own terms.

Everything after this file speaks of nouns, adjectives and verbs, never of a model's labels; ClearNLP's labels and
those of Universal Dependencies come out alike.
"""

import re
from dataclasses import dataclass
from typing import Any

from attnmod.parser.lexicon import BE_FORMS, COLOURS, MATERIALS, NUMBERS
from attnmod.parser.notation import Notation
from attnmod.parser.nouns import look_up


@dataclass(slots=True)
class Word:
    """A word of the prompt.

    Attributes:
        text, start, end: the characters it stands for; hyphenated words are one.
        pos: determiner, possessive (his, 's), number, adjective, adverb, noun, verb, be, preposition, conjunction,
            particle ("jutted up"), relative (that, which, who), pronoun, comma, stop, quote or other.
        plural: a noun in the plural.
        name: a proper noun, as the model has it.
        participle: a verb form that can stand before a noun (smiling, carved).
        bare: a present tense or an infinitive without -s (run, shine), which no single thing can be the subject of.
        modifier: the model thinks that it modifies a noun to its right.
        subject: index of the word the model takes for the subject of this verb, or None.
        describes: index of the noun that the model puts this adjective to, where that stands before it.
        repaired: name of the repair that changed `pos`, or "".
    """

    text: str
    start: int
    end: int
    pos: str
    plural: bool = False
    name: bool = False
    participle: bool = False
    bare: bool = False
    modifier: bool = False
    subject: int | None = None
    describes: int | None = None
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
_PARTICLES = frozenset(("prt", "compound:prt"))
_SUBJECTS = frozenset(("nsubj", "nsubjpass", "nsubj:pass"))
_MODIFIERS = frozenset(("amod", "compound", "nmod", "poss", "nummod", "npadvmod", "advmod", "quantmod"))
_COUNTED_TAG = re.compile(r"(\d+)((?:girl|boy|woman|man|other|cat|dog|person|people)s?)$", re.IGNORECASE)


def read_words(doc: Any, text: str, notation: Notation) -> list[Word]:
    """The words of a parsed text, hyphenated ones joined and a stop between segments; `repairs` mends their tags.

    Args:
        doc: what spaCy made of the readable text.
        text: the raw one.
        notation: of that text.
    """
    words: list[Word] = []
    word_of: list[int] = []  # the model's token -> our word
    segments = iter([*notation.segments[1:], None])
    following = next(segments)
    learnt = iter([*notation.learnt, None])
    name = next(learnt)
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        while following is not None and start >= following.start:
            if words and words[-1].pos != "stop":  # nothing crosses from one segment to the next
                words.append(Word("", start, start, "stop"))
            following = next(segments)
        while name is not None and start >= name[1]:
            name = next(learnt)
        joins = words and (words[-1].end == start or start in notation.hyphens or words[-1].end in notation.hyphens)
        joins = joins and _joins(words[-1], token)
        if token.is_space:
            word_of.append(len(words) - 1)
        elif name is not None and end > name[0]:
            if not words or words[-1].start != name[0]:
                words.append(Word(text[slice(*name)], *name, "noun"))
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
            if len(words) > 1 and words[-2].pos == "conjunction" and words[-2].start in notation.joints:
                _takes_turns(words[-1])
            if start in notation.joints:
                words[-1].pos = "conjunction"
                if len(words) > 1:
                    _takes_turns(words[-2])
            elif words[-1].pos == "comma" and words[-1].text == "," and notation.segment_at(start) is None:
                words[-1].pos = "stop"  # between tags
    _reopen(words)
    _find_single_quotes(words, text)
    for token in doc:
        here = word_of[token.i]
        if token.dep_ in _SUBJECTS and here >= 0:
            words[word_of[token.head.i]].subject = here
    for token in doc:
        if token.dep_ == "amod" and token.head.i < token.i and word_of[token.i] >= 0:
            words[word_of[token.i]].describes = word_of[token.head.i]
        # in Universal Dependencies the subject of "is tall" hangs on "tall"
        if token.dep_ == "cop" and word_of[token.i] >= 0 and words[word_of[token.i]].subject is None:
            words[word_of[token.i]].subject = words[word_of[token.head.i]].subject
    return words


def _takes_turns(word: Word) -> None:
    """ "{red|blue} car": colours and stuff beside the bar describe, whatever a tagger makes of such a list."""
    if word.lower in COLOURS | MATERIALS:
        word.pos, word.participle = "adjective", False


def _reopen(words: list[Word]) -> None:
    """A comma behind adjectives that an article or "with" leads is no border between tags: "a large, round table"."""
    led = False
    for index, word in enumerate(words):
        if word.pos in ("determiner", "possessive", "preposition"):
            led = True
        elif word.pos == "stop" and word.text == "," and led and _waits(words[index - 1]):
            word.pos = "comma"
        elif word.pos not in ("adjective", "adverb", "comma", "conjunction") and not word.participle:
            led = False


def _waits(word: Word) -> bool:
    """Whether this is tagged as a modifier, and the lexicon does not know better."""
    noun = look_up(word.lower)
    return word.pos in ("adjective", "verb") and (
        noun is None or (noun.noun < 7 and noun.kind not in "hn") or word.lower in COLOURS | MATERIALS
    )


def _find_single_quotes(words: list[Word], text: str) -> None:
    """Pairs of single quotes around words: no apostrophes, since one opens behind a blank and one closes before one."""
    opened: Word | None = None
    for word in words:
        if word.text not in ("'", "\u2018", "\u2019"):
            continue
        blank_before = word.start == 0 or text[word.start - 1] in " ("
        blank_behind = word.end >= len(text) or not text[word.end].isalnum()
        if opened is None and blank_before and not blank_behind:
            opened = word
        elif opened is not None and not blank_before and blank_behind:
            opened.pos = word.pos = "quote"
            opened = None


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
    if word.pos == part.pos == "number" and part.lower in NUMBERS:
        return  # "twenty-two"
    word.plural, word.modifier, word.participle = part.plural, part.modifier, False
    # "red-haired", "half-eaten", "well-lit" modify; "t-shirt", "close-up" name
    word.pos = "adjective" if part.pos == "verb" or part.lower.endswith("ed") else part.pos
    if word.pos in ("adverb", "preposition", "number"):
        word.pos = "adjective" if word.pos == "number" or part.modifier else "noun"
    elif word.pos == "particle":
        word.pos = "adjective"  # "rolled-up sleeves"


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
    if token.dep_ in _PARTICLES:
        pos = "particle"
    if token.is_punct or token.is_quote:
        pos = _MARKS.get(token.text, "quote" if token.is_quote else "other")
    return Word(
        text=text[start:end],
        start=start,
        end=end,
        pos=pos,
        plural=token.tag_ in ("NNS", "NNPS") or morph.get("Number") == "Plur",
        name=token.pos_ == "PROPN",
        # a regular past is spelled like the participle, and before a noun the tagger often takes one for the other
        participle=morph.get("VerbForm") in ("Part", "Ger") or (token.tag_ == "VBD" and lower.endswith("ed")),
        bare=token.tag_ in ("VB", "VBP"),
        modifier=token.dep_ in _MODIFIERS and token.head.i > token.i,
    )
