"""Weight syntax -> the text without it, and how much each stretch of that text weighs.

    (hat)  1.1      ((hat))  1.21      (hat:1.3)  1.3      [hat]  1/1.1                    as AUTOMATIC1111 writes it
    hat+  1.1       hat++  1.21        hat--  0.81         (red hat)++  1.21               as Compel writes it

Nested weights multiply. A backslash before a bracket makes it a plain one, and so does a missing partner. BREAK and
<lora:name:0.8> are taken out: neither a new chunk nor a network can be had from here, and a warning says so.

The two habits disagree on "(hat)" alone, which is 1.1 to one and nothing to the other: 1.1 here.
"""

import re
from dataclasses import dataclass

_ROUND = 1.1  # of one pair of round brackets, and of one plus
_MINUS = 0.9  # of one minus; a pair of square brackets is 1 / _ROUND
_LARGEST = 1e3  # "+" a hundred times would overflow further on

_MARK = re.compile(
    r"(?P<escaped>\\[()\[\]\\])"
    r"|(?P<network><(?:lora|lyco|hypernet|lbw):[^<>]*>)"
    r"|(?P<chunk>\bBREAK\b)"
    r"|(?P<weight>:\s*-?(?:\d+(?:\.\d*)?|\.\d+)\s*(?=[)\]]))"
    r"|(?P<signs>(?<=[\w)\]])(?:\++|-{2,})(?=[\s,.;)\]]|$))"
    r"|(?P<bracket>[()\[\]])",
    re.IGNORECASE,
)
_WORD = re.compile(r"[\w'\u2019-]+$")


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


def read_weights(text: str) -> Weighted:
    """Take the weight syntax out of a text.

    >>> read_weights("a (red hat:1.3) and a ball++")
    Weighted(text='a red hat and a ball', weights=((2, 9, 1.3), (16, 20, 1.21)), warnings=())
    >>> read_weights("a ((red)) \\\\(old\\\\) hat :(").text
    'a red (old) hat :('
    """
    marks = [mark for mark in _MARK.finditer(text) if mark.lastgroup != "chunk" or mark[0] == "BREAK"]
    partners = _pair(marks)
    characters: list[str] = []
    factors: list[float] = []
    opened: dict[int, int] = {}  # mark -> where its group begins in `characters`
    group = (0, 0)  # the group that was closed last
    warnings: dict[str, None] = {}

    def keep(piece: str) -> None:
        characters.extend(piece)
        factors.extend([1.0] * len(piece))

    def scale(start: int, stop: int, factor: float) -> None:
        for place in range(start, stop):
            factors[place] *= factor

    place = 0
    for number, mark in enumerate(marks):
        keep(text[place : mark.start()])
        place = mark.end()
        kind, said = mark.lastgroup, mark[0]
        if kind == "escaped":
            keep(said[1])
        elif kind == "network":
            warnings[f"{said} is taken out of the text and not loaded: load it into the pipeline"] = None
            keep(" ")
        elif kind == "chunk":
            warnings["BREAK is taken out of the text: no new chunk begins there"] = None
            keep(" ")
        elif kind == "signs":
            start = group[0] if group[1] == len(characters) and text[mark.start() - 1] in ")]" else None
            if start is None:
                word = _WORD.search("".join(characters[-80:]))
                start = len(characters) - (len(word[0]) if word else 0)
            scale(start, len(characters), (_ROUND if said[0] == "+" else _MINUS) ** min(len(said), 100))
        elif kind == "weight":
            closer = marks[number + 1] if number + 1 < len(marks) else None
            if closer is None or closer.start() != mark.end() or number + 1 not in partners:
                keep(said)
        elif number not in partners:
            keep(said)
        elif said in "([":
            opened[number] = len(characters)
        else:
            start = opened[partners[number]]
            group = (start, len(characters))
            before = marks[number - 1]
            given = before[0] if before.lastgroup == "weight" and before.end() == mark.start() else ""
            signed = number + 1 < len(marks) and marks[number + 1].lastgroup == "signs"
            signed = signed and marks[number + 1].start() == mark.end()
            scale(start, len(characters), _factor(said, given, signed, warnings))
    keep(text[place:])
    return _collapsed(characters, factors, tuple(warnings))


def _pair(marks: list[re.Match]) -> dict[int, int]:
    """For each bracket that has a partner, the partner."""
    partners: dict[int, int] = {}
    waiting: list[int] = []
    for number, mark in enumerate(marks):
        if mark.lastgroup != "bracket":
            continue
        if mark[0] in "([":
            waiting.append(number)
        elif waiting and marks[waiting[-1]][0] == {")": "(", "]": "["}[mark[0]]:
            partners[number] = waiting.pop()
            partners[partners[number]] = number
    return partners


def _factor(closer: str, given: str, signed: bool, warnings: dict[str, None]) -> float:
    """What a pair of brackets does to what is in it."""
    if closer == "]" and given:
        warnings[f"[...{given.strip()}] is prompt editing, which is not supported: its text counts plainly"] = None
        return 1.0
    if given:
        value = float(given[1:])
        if value < 0:
            warnings[f"the weight {value:g} is below 0 and counts as 0"] = None
        return min(max(value, 0.0), _LARGEST)
    if signed:
        return 1.0  # "(red hat)++": the brackets only group
    return _ROUND if closer == ")" else 1 / _ROUND


def _collapsed(characters: list[str], factors: list[float], warnings: tuple[str, ...]) -> Weighted:
    """One blank where the syntax left several, none at the ends; equal neighbours as one stretch."""
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
    return Weighted("".join(characters[place] for place in kept), tuple(stretches), warnings)
