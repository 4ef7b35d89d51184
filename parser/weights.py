"""Weight syntax -> the text without it, and how much each stretch of that text weighs.

    (hat)  1.1      ((hat))  1.21      (hat:1.3)  1.3      [hat]  1/1.1      as AUTOMATIC1111 writes it
    hat+  1.1       hat++  1.21        hat--  0.81         (red hat)++  1.21      as Compel writes it
    1.3::hat::  1.3                    {hat}  1.05                           as NovelAI writes it
    a hat::2 a dog::1                                                        as Midjourney writes it

Nested weights multiply. A backslash before a bracket makes it a plain one, and so does a missing partner. What only
another program can do (BREAK, networks, wildcards, flags, taking turns) is taken out, and a warning says so.

The two habits disagree on "(hat)" alone, which is 1.1 to one and nothing to the other: 1.1 here.
"""

import math
import re
from dataclasses import dataclass, field

from attnmod.parser.marks import Mark, find_marks

_ROUND = 1.1  # of one pair of round brackets, and of one plus
_MINUS = 0.9  # of one minus; a pair of square brackets is 1 / _ROUND
_CURLY = 1.05
_LARGEST = 1e3  # "+" a hundred times would overflow further on
_WORD = re.compile(r"[\w'\u2019-]+$")
_LOADED = "is taken out of the text and not loaded: load it into the pipeline"


@dataclass(frozen=True, slots=True)
class Weighted:
    """A text without weight syntax.

    Attributes:
        text: what is to be encoded.
        weights: (start, end, weight) of each stretch that does not weigh 1, left to right, none overlapping.
        warnings: what was taken out or could not be done.
    """

    text: str
    weights: tuple[tuple[int, int, float], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Writer:
    """The text on its way, and the weights of stretches of it."""

    characters: list[str] = field(default_factory=list)
    scaled: list[tuple[int, int, float]] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    def scale(self, start: int, factor: float) -> None:
        if factor != 1.0 and start < len(self.characters):
            self.scaled.append((start, len(self.characters), factor))

    def warn(self, sentence: str) -> None:
        self.warnings[sentence] = None


def read_weights(text: str) -> Weighted:
    """Take the weight syntax out of a text.

    >>> read_weights("a (red hat:1.3) and a ball++")
    Weighted(text='a red hat and a ball', weights=((2, 9, 1.3), (16, 20, 1.21)), warnings=())
    >>> read_weights("a ((red)) \\\\(old\\\\) hat :(").text
    'a red (old) hat :('
    """
    marks = find_marks(text)
    writer = _Writer()
    opened: dict[int, int] = {}  # mark -> where its group begins
    group = (0, 0)  # the group that was closed last
    segment = 0  # where the stretch before a Midjourney weight begins
    numbered: tuple[int, float] | None = None  # where a NovelAI weight began, and what it is
    place = 0
    for number, mark in enumerate(marks):
        writer.characters.extend(text[place : mark.start])
        place = mark.end
        here = len(writer.characters)
        if mark.kind == "bracket" and mark.partner is not None:
            if mark.partner > number:
                opened[number] = here
                continue
            group = (opened[mark.partner], here)
            writer.scale(group[0], _factor(marks, number, writer))
        elif mark.kind == "signs":
            writer.scale(_signed_from(writer, group, text[mark.start - 1]), _of_signs(mark.text))
        elif mark.kind == "number":
            numbered = (here, _clamped(float(mark.text[:-2]), writer))
        elif mark.kind == "colons":
            if numbered is not None:
                writer.scale(*numbered)
            elif value := mark.text[2:]:
                writer.scale(segment, _clamped(float(value), writer))
            numbered, segment = None, here
            writer.characters.append(" ")
        else:
            _take_out(mark, writer)
    writer.characters.extend(text[place:])
    if numbered is not None:
        writer.scale(*numbered)
    return _collapsed(writer)


def _take_out(mark: Mark, writer: _Writer) -> None:
    """What no weight is: gone, but for plain brackets, learnt words and what takes turns."""
    kept = {"escaped": mark.text[-1:], "learnt": mark.text, "joint": ", ", "weight": "", "no": "no"}
    if mark.kind in ("network", "embedding"):
        writer.warn(f"{mark.text} {_LOADED}")
    elif mark.kind == "chunk" and mark.text == "AND":
        kept["chunk"] = "AND"
    elif mark.kind == "chunk":
        writer.warn("BREAK is taken out of the text: no new chunk begins there")
    elif mark.kind in ("flag", "wildcard", "address"):
        writer.warn(f"{mark.text} is taken out of the text: another program understands it")
    writer.characters.extend(kept.get(mark.kind, " "))


def _signed_from(writer: _Writer, group: tuple[int, int], before: str) -> int:
    """Where begins what "++" weighs: the group that was just closed, or the word."""
    if group[1] == len(writer.characters) and before in ")]}":
        return group[0]
    word = _WORD.search("".join(writer.characters[-80:]))
    return len(writer.characters) - (len(word[0]) if word else 0)


def _of_signs(signs: str) -> float:
    return (_ROUND if signs[0] == "+" else _MINUS) ** min(len(signs), 100)


def _factor(marks: list[Mark], closer: int, writer: _Writer) -> float:
    """What a pair of brackets does to what is in it."""
    mark, before = marks[closer], marks[closer - 1]
    given = before.text if before.kind == "weight" and before.end == mark.start else ""
    after = marks[closer + 1] if closer + 1 < len(marks) else None
    if mark.choice or (mark.text == "]" and given):
        kind = "a choice" if mark.text == "}" else "prompt editing"
        writer.warn(f"{mark.text} closes {kind}, which is not supported: all of its text counts plainly")
        return 1.0
    if given:
        return _clamped(float(given[1:]), writer)
    if after is not None and after.kind == "signs" and after.start == mark.end:
        return 1.0  # "(red hat)++": the brackets only group
    return {")": _ROUND, "]": 1 / _ROUND, "}": _CURLY}[mark.text]


def _clamped(value: float, writer: _Writer) -> float:
    if value < 0:
        writer.warn(f"the weight {value:g} is below 0 and counts as 0")
    return min(max(value, 0.0), _LARGEST)


def _factors(writer: _Writer) -> list[float]:
    """The product of all weights at each character: a sum of logarithms from left to right, whatever the nesting."""
    size = len(writer.characters)
    change, nothing = [0.0] * (size + 1), [0] * (size + 1)
    for start, stop, factor in writer.scaled:
        if factor > 0:
            change[start] += math.log(factor)
            change[stop] -= math.log(factor)
        else:
            nothing[start] += 1
            nothing[stop] -= 1
    factors = []
    logarithm, zeros = 0.0, 0
    for place in range(size):
        logarithm, zeros = logarithm + change[place], zeros + nothing[place]
        factors.append(0.0 if zeros else math.exp(min(logarithm, math.log(_LARGEST))))
    return factors


def _collapsed(writer: _Writer) -> Weighted:
    """One blank where the syntax left several, none at the ends; equal neighbours as one stretch."""
    characters, factors = writer.characters, _factors(writer)
    kept: list[int] = []
    for place, character in enumerate(characters):
        if character != " " or (kept and characters[kept[-1]] != " "):
            kept.append(place)
    while kept and characters[kept[-1]] == " ":
        kept.pop()
    stretches: list[tuple[int, int, float]] = []
    for here, place in enumerate(kept):
        weight = round(min(factors[place], _LARGEST), 6)
        if weight == 1.0:
            continue
        if stretches and stretches[-1][1] == here and stretches[-1][2] == weight:
            stretches[-1] = (stretches[-1][0], here + 1, weight)
        else:
            stretches.append((here, here + 1, weight))
    return Weighted("".join(characters[place] for place in kept), tuple(stretches), tuple(writer.warnings))
