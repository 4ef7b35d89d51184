"""What prompts carry besides language: the signs of the programs that they were written for, found in one pass.

    Midjourney     /imagine prompt: a cat::2 dog::1 --ar 16:9 --no hats
    A1111          (red hat:1.3) ((hat)) [hat] [cat:dog:0.5] \\(plain\\) AND BREAK <lora:name:0.8>
    ComfyUI        embedding:name {red|blue} __wildcard__
    NovelAI        1.3::silver helmet:: {{hat}}
    Compel         hat++ (red hat)--

A mark is a stretch of the raw text and what it is; `notation` blanks them out for the grammar, `weights` takes them
out of what is encoded. Every pattern is linear: none looks further than the text that it takes.
"""

import re
from dataclasses import dataclass

_MARK = re.compile(
    r"""
      (?P<escaped>\\[()\[\]{}\\])
    | (?P<network><(?:lora|lyco|hypernet|lbw|lycoris)\s*:[^<>\n]{0,200}>)
    | (?P<learnt><[A-Za-z0-9][\w.\-]{0,60}>)
    | (?P<embedding>(?<![\w:])embedding:[\w.\-/]{1,100}(?::-?\d+(?:\.\d+)?)?)
    | (?P<wildcard>(?<!\w)__[\w\-/*]{1,80}?__(?!\w))
    | (?P<imagine>(?:^|(?<=\n))[ \t]{0,20}/imagine\b(?:[ ]{0,4}prompt\b)?[ ]{0,4}:?)
    | (?P<address>(?<!\w)https?://[^\s,]{1,500})
    | (?P<no>(?:(?<=\s)|^)(?:--|\u2014|\u2013)no\b)
    | (?P<flag>(?:(?<=\s)|^)(?:--|\u2014|\u2013)(?P<name>[A-Za-z]{1,20})\b)
    | (?P<chunk>\b(?:BREAK|AND)\b)
    | (?P<number>(?<![\w.:])-?(?:\d{1,3}(?:\.\d{1,6})?|\.\d{1,6})::(?=\s{0,3}[^\s:\d.]))
    | (?P<colons>::(?:-?(?:\d{1,6}(?:\.\d{1,6})?|\.\d{1,6}))?(?![\d.]*::))
    | (?P<weight>:[ ]{0,8}-?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})[ ]{0,8}(?=[)\]}]))
    | (?P<signs>(?<=[\w)\]])(?:\+{1,200}|-{2,200})(?=[\s,.;)\]]|$))
    | (?P<bracket>[()\[\]{}])
    | (?P<colon>:)
    | (?P<bar>\|)
    """,
    re.VERBOSE,
)
# flags whose value is a word; every flag takes a number, a ratio or an address
_WORDED = frozenset(("style", "v", "version", "niji", "p", "profile", "sref", "cref", "oref", "personalize", "mode"))
_BARE = frozenset(
    ("tile", "turbo", "fast", "relax", "hd", "test", "testp", "creative", "upbeta", "uplight", "video", "raw")
)
# a dash before a word is punctuation more often than a flag that an editor has "corrected"
_FLAGS = (
    _WORDED
    | _BARE
    | frozenset(
        [
            "ar",
            "aspect",
            "s",
            "stylize",
            "c",
            "chaos",
            "q",
            "quality",
            "seed",
            "iw",
            "w",
            "weird",
            "stop",
            "repeat",
            "r",
            "ow",
            "cw",
            "sw",
            "no",
        ]
    )
)
_VALUE = re.compile(r"[ \t]{1,8}(?:https?://\S{1,500}|-?\d[\d.:/xX,]{0,20}\b)")
_VALUE_WORD = re.compile(r"[ \t]{1,8}[\w.:/-]{1,40}")
_CLOSING = {")": "(", "]": "[", "}": "{"}


@dataclass(slots=True)
class Mark:
    """A stretch of the text that is no language.

    Attributes:
        start, end: its characters.
        kind: escaped, network, learnt, embedding, wildcard, imagine, address, no, flag, chunk, number, colons, weight,
            signs, bracket, joint (":" or "|" between what takes turns) or when (the number of "[cat:dog:0.5]").
        text: the characters.
        partner: of a bracket with a partner, the index of that mark.
        choice: a bracket around what takes turns or is drawn from: "[a:b:0.5]", "{a|b}".
    """

    start: int
    end: int
    kind: str
    text: str
    partner: int | None = None
    choice: bool = False


def find_marks(text: str) -> list[Mark]:
    """All marks, left to right. A bracket without a partner, a plain colon and a plain bar are none.

    >>> [(mark.kind, mark.text) for mark in find_marks("a (red hat:1.3) --ar 2:3")]
    [('bracket', '('), ('weight', ':1.3'), ('bracket', ')'), ('flag', '--ar 2:3')]
    """
    marks: list[Mark] = []
    place = 0
    shouted = _is_shouted(text)
    while (match := _MARK.search(text, place)) is not None:
        kind, end = match.lastgroup or "", match.end()
        if kind == "flag":
            name = match["name"].lower()
            known = name in _FLAGS or (match[0].startswith("--") and _VALUE.match(text, end) is not None)
            if not known:
                place = end
                continue
            end = _flag_end(text, name, end)
        if kind == "chunk" and match[0] == "AND" and shouted:
            place = end
            continue
        marks.append(Mark(match.start(), end, kind, text[match.start() : end]))
        place = end
    _pair(marks)
    _find_choices(text, marks)
    return _renumbered(marks)


def _is_shouted(text: str) -> bool:
    """Whether most letters are capitals: "A RED CAR AND A BLUE BENCH" has no AND that sets prompts side by side."""
    capitals = sum(character.isupper() for character in text)
    return 2 * capitals > sum(character.isalpha() for character in text)


def _flag_end(text: str, name: str, end: int) -> int:
    value = None if name in _BARE else _VALUE.match(text, end)
    if value is None and name in _WORDED:
        value = _VALUE_WORD.match(text, end)
    return value.end() if value is not None else end


def _pair(marks: list[Mark]) -> None:
    """Tell brackets of their partners."""
    waiting: list[int] = []
    for number, mark in enumerate(marks):
        if mark.kind != "bracket":
            continue
        if mark.text in "([{":
            waiting.append(number)
        elif waiting and marks[waiting[-1]].text == _CLOSING[mark.text]:
            mark.partner = waiting.pop()
            marks[mark.partner].partner = number


def _find_choices(text: str, marks: list[Mark]) -> None:
    """Colons and bars right inside square or curly brackets separate what takes turns; others are language."""
    inside: list[int] = []  # the brackets that are open here
    for number, mark in enumerate(marks):
        if mark.kind == "bracket" and mark.partner is not None:
            if mark.partner > number:
                inside.append(number)
            else:
                inside.pop()
        elif mark.kind in ("bar", "colon") and inside:
            opener = marks[inside[-1]]
            if (mark.kind == "bar" and opener.text in "[{") or (mark.kind == "colon" and opener.text == "["):
                mark.kind, opener.choice = "joint", True
        elif mark.kind in ("weight", "colons") and inside and marks[inside[-1]].text == "[":
            mark.kind = "when"
            marks[inside[-1]].choice = True
    for mark in marks:
        if mark.kind == "bracket" and mark.partner is not None:
            mark.choice = mark.choice or marks[mark.partner].choice


def _renumbered(marks: list[Mark]) -> list[Mark]:
    """Without what turned out to be language; partners by the new numbers."""
    kept = [
        number
        for number, mark in enumerate(marks)
        if mark.kind not in ("bar", "colon") and not (mark.kind == "bracket" and mark.partner is None)
    ]
    place = {number: new for new, number in enumerate(kept)}
    for number in kept:
        partner = marks[number].partner
        marks[number].partner = None if partner is None else place[partner]
    return [marks[number] for number in kept]
