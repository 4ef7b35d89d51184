"""Notation before language: a raw prompt -> its segments, and the text as spaCy should see it.

The readable text has the same length as the raw one, so that every character keeps its offset: what is no language
becomes a blank, what separates a comma. Segments are what a phrase never crosses: lines, bullets, what stands after a
label, sentences, tags.
"""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

from attnmod.parser.languages import foreign_stretches
from attnmod.parser.lexicon import words
from attnmod.parser.marks import Mark, find_marks
from attnmod.parser.nouns import look_up

# what lies beyond is global: text encoders read 77 tokens, a few hundred characters, or some times that
MAX_CHARACTERS = 20_000
MAX_SEGMENTS = 1_000  # lines, sentences and tags; each costs as much as some words
_LONGEST_WORD = 100  # no word is longer, and spaCy's tokenizer takes seconds for thousands of signs without a blank


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the prompt that is read by itself.

    Attributes:
        start, end: its characters.
        kind: line, bullet, label, sentence, tag, or absent (what follows "--no").
        label: what stands before its colon, in lower case: "style" of "Style: oil on canvas".
    """

    start: int
    end: int
    kind: str
    label: str = ""


@dataclass(slots=True)
class Notation:
    """What to parse.

    Attributes:
        readable: as long as the text that is parsed.
        segments: left to right; what lies between two is no language.
        hidden: runs of signs that belong to no entity, left to right.
        learnt: textual inversion's "<token>"s, which are words.
        joints: where a comma of the readable text stands for "or".
        hyphens: blanks and hyphens of "sci - fi", which is one word.
        warnings: what the user should know.
    """

    readable: str
    segments: list[Segment] = field(default_factory=list)
    hidden: list[tuple[int, int]] = field(default_factory=list)
    learnt: list[tuple[int, int]] = field(default_factory=list)
    joints: set[int] = field(default_factory=set)
    hyphens: set[int] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def segment_at(self, place: int) -> Segment | None:
        number = bisect_right(self.segments, place, key=lambda one: one.start) - 1
        return self.segments[number] if number >= 0 and place < self.segments[number].end else None


_WEIGHS = frozenset(("weight", "signs", "number", "colons", "when"))
# what a colon may stand behind at the beginning of a line; "left: a cat" is language
LABELS = words(
    "subject scene style setting background foreground mood lighting light camera composition colors colours palette "
    "medium details detail environment clothing outfit pose prompt title description caption character characters "
    "action "
    "atmosphere quality technique location time weather shot angle lens perspective effects texture textures materials "
    "main focus avoid exclude negative theme genre art artist aspect format resolution render tone emotion expression "
    "appearance features props objects elements accessories hair face image picture photo color colour subjects"
)
_LABEL = re.compile(
    r"[ \t]{0,40}\**([A-Za-z][A-Za-z]{0,20}(?:[ ]{1,2}[A-Za-z]{1,20}){0,2})\**[ ]{0,3}:\**(?=[ \t\n]|$)"
)
_BULLET = re.compile(r"[ \t]{0,40}(?:[-*\u2022\u00b7\u2013\u25cf\u25aa+>]|#{1,6}|\d{1,2}[.)])[ \t]{1,8}")
_ENDS_SENTENCE = re.compile(r"[.!?;]+(?=\s|$)")
_ABBREVIATED = words("mr mrs ms dr st no vs etc eg ie e.g i.e prof sr jr mt ft c ca")
# "a hen,3 chicks,4k", but not "1,000 birds"
TIGHT_COMMA = re.compile(r"(?<=[^\s,]),(?=[^\s,])(?!(?<=\d,)\d{3}(?!\w))")
# what people put between tags, and a dash that hangs on a word: "a dog- brown -"
_SEPARATOR = re.compile(r"[|\u2022\u00b7](?=\s|$)|(?<=\w)-(?=\s)|(?<=\s)//?(?=\s)")
_RUBBLE = re.compile(r"[^\w\s]{9,}|(?<!\S)[^\w\s,.;:!?()'\"&-]{3,}(?!\S)|_{2,}")
_LONG = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")
# Pony's words for quality, weights without their brackets, and DiffusionDB's "8 k" and "1 9 7 0 s"
_TECHNICAL = re.compile(
    r"(?<!\w)(?:score_\d(?:_up)?|source_\w{1,20}|rating_\w{1,20})(?!\w)"
    r"|(?<=[^\W\d]):\d(?:\.\d{1,4})?(?=\s{0,4}(?:,|$))"
    r"|(?<![\w.])(?:\d (?:\d )+(?:mm|s|k|p)?|\d{1,4} (?:k|mm|p|d|fps))(?![\w])|(?<![\w.])f / ?\d(?: ?\. ?\d)?(?!\w)"
)
_UNDERSCORE = re.compile(r"(?<=\w)_(?=\w)")
_HYPHEN = re.compile(r"(?<!\w)(\w{1,12}) - (\w{1,12})(?!\w)")
_BEFORE_HYPHEN = words(
    "sci hi lo low high ultra hyper semi post pre well half full self multi non neo retro mid wide t x photo art "
    "award eye "
    "cel cross re co anti close sub super mega bio cyber steam two three four one long short"
)
_AFTER_HYPHEN = words(
    "fi tech poly realistic punk winning up art shirt ray res resolution level angle detailed detail noir deco quality "
    "goth style like inspired shaped themed colored coloured haired eyed length"
)


def read_notation(text: str, *, english: bool = True) -> Notation:
    """Cut a prompt into segments, and blank out what is not language.

    >>> read_notation("a (red hat:1.3)++ --ar 2:3").readable
    'a  red hat                '
    >>> [(one.kind, one.label) for one in read_notation("Subject: a hen\\nStyle: oil").segments]
    [('label', 'subject'), ('label', 'style')]
    """
    warnings = []
    if len(text) > MAX_CHARACTERS:
        warnings.append(
            f"the first {MAX_CHARACTERS} of the prompt's {len(text)} characters were read; what lies beyond is global"
        )
        text = text[:MAX_CHARACTERS]
    marks = find_marks(text)
    notation = Notation("", warnings=warnings)
    characters = list(map(_plain, text))
    borders = _hide(text, marks, characters, notation)
    plain = "".join(characters)
    for pattern in (_RUBBLE, _LONG, *((_TECHNICAL,) if english else ())):
        plain = pattern.sub(lambda match: " " * len(match[0]), plain)
    if english:
        plain = _UNDERSCORE.sub(" ", plain)
    borders += [(match.end(), "line") for match in _SEPARATOR.finditer(plain)]
    plain = _SEPARATOR.sub(lambda match: ",".ljust(len(match[0])), plain)
    for match in _HYPHEN.finditer(plain):
        if match[1].lower() in _BEFORE_HYPHEN or match[2].lower() in _AFTER_HYPHEN:
            notation.hyphens.update(range(match.end(1), match.start(2)))
    plain = _cut(plain, borders, notation)
    if len(notation.segments) > MAX_SEGMENTS:
        end = notation.segments[MAX_SEGMENTS].start
        notation.segments = notation.segments[:MAX_SEGMENTS]
        plain = plain[:end] + " " * (len(plain) - end)
        notation.warnings.append(f"the first {MAX_SEGMENTS} pieces of the prompt were read; what lies beyond is global")
    if english and (foreign := foreign_stretches(plain, [(one.start, one.end) for one in notation.segments])):
        for start, end in foreign:
            plain = plain[:start] + " " * (end - start) + plain[end:]
        named = ", ".join(repr(" ".join(text[start:end].split())[:40]) for start, end in foreign[:3])
        notation.warnings.append(
            f"the parser reads English, and {named} looks like another language or script: no entities were looked for "
            "there; give a model, or entities by hand"
        )
    notation.readable = _lowered(plain)
    return notation


def _hide(text: str, marks: list[Mark], characters: list[str], notation: Notation) -> list[tuple[int, str]]:
    """Blank out the marks. Returns where segments begin, by what: a line break, or what "--no" takes away."""
    weighs = any(mark.kind in _WEIGHS or mark.choice or mark.text in ("[", "{") for mark in marks)
    weighs = weighs or any(one.text == two.text == "(" and one.end == two.start for one, two in pairwise(marks))
    borders: list[tuple[int, str]] = []
    foreign_signs: dict[str, None] = {}
    for mark in marks:
        if mark.kind == "learnt":
            notation.learnt.append((mark.start, mark.end))
            # letters, so that a tagger sees one word, and takes it for a name of something
            characters[mark.start : mark.end] = ["x"] * (mark.end - mark.start)
            continue
        if mark.kind == "bracket" and not weighs:
            continue  # people write asides in them
        characters[mark.start : mark.end] = " " * (mark.end - mark.start)
        if mark.kind == "escaped":
            characters[mark.end - 1] = mark.text[-1]
            continue
        if mark.kind == "joint":
            characters[mark.start] = ","
            notation.joints.add(mark.start)
        if mark.kind in ("chunk", "colons", "number", "flag", "imagine"):
            borders.append((mark.end, "line"))
        if mark.kind == "no":
            borders.append((mark.end, "absent"))
        if mark.kind not in ("bracket", "weight", "signs"):
            foreign_signs.setdefault(mark.text[:20])
        if notation.hidden and notation.hidden[-1][1] == mark.start:
            notation.hidden[-1] = (notation.hidden[-1][0], mark.end)
        else:
            notation.hidden.append((mark.start, mark.end))
    if notation.hidden and weighs:
        notation.warnings.append(
            "weight syntax is not interpreted: its characters stay in the text that is encoded, as global tokens"
        )
    elif foreign_signs:
        named = ", ".join(repr(sign) for sign in list(foreign_signs)[:4])
        notation.warnings.append(
            f"flags and weight syntax ({named}) are no language: they stay in the text that is encoded, as globals"
        )
    return borders


def _cut(plain: str, borders: list[tuple[int, str]], notation: Notation) -> str:
    """Find the segments; line breaks, bullets and labels become blanks."""
    characters = list(plain)
    cuts = {0: "line"} | dict(borders)
    for match in re.finditer(r"[\n\r\u2028\u2029\x0b\x0c]", plain):
        soft = _is_soft(plain, match.start())
        # a tagger needs to see that something ends here
        characters[match.start()] = " " if soft or not plain[match.start() - 1 : match.start()].strip() else ","
        if not soft:
            cuts.setdefault(match.end(), "line")
    edges = sorted(cuts)
    absent_label = ""
    for start, end in zip(edges, [*edges[1:], len(plain)], strict=True):
        kind, label = cuts[start], ""
        if kind == "line":
            bullet = _BULLET.match(plain, start, end)
            if bullet is not None:
                characters[start : bullet.end()] = " " * (bullet.end() - start)
                start, kind = bullet.end(), "bullet"
            if (found := _LABEL.match(plain, start, end)) is not None and _is_label(found[1]):
                characters[start : found.end()] = " " * (found.end() - start)
                start, kind, label = found.end(), "label", found[1].lower()
        pieces = _sentences(plain, start, end)
        if not pieces and label:
            absent_label = label  # the label has a line of its own: it holds for what follows
        for first, stop in pieces:
            within = _LABEL.match(plain, first, stop) if first > start and kind != "absent" else None
            if within is not None and _is_label(within[1]):  # "Style: pixel art. Subject: a robot."
                characters[first : within.end()] = " " * (within.end() - first)
                first, label, kind = within.end(), within[1].lower(), "label"
                if not plain[first:stop].strip():
                    continue
            tags = [(first, stop)] if kind == "absent" else _tags(plain, first, stop, notation.joints)
            for low, high in tags:
                said = "tag" if len(tags) > 1 else kind if kind != "line" else "sentence" if len(pieces) > 1 else "line"
                notation.segments.append(Segment(low, high, said, label or absent_label))
        if pieces and label:
            absent_label = ""
    return "".join(characters)


def _is_soft(plain: str, place: int) -> bool:
    """Whether a line break only wraps a long line, which is unfinished and goes on in lower case."""
    start = plain.rfind("\n", max(0, place - 200), place) + 1
    before, after = plain[max(start, place - 200) : place].rstrip(), plain[place + 1 : place + 3]
    return len(before) > 50 and before[-1:].isalnum() and after[:1].islower()


def _is_label(said: str) -> bool:
    return any(word in LABELS for word in said.lower().split())


def _sentences(plain: str, start: int, end: int) -> list[tuple[int, int]]:
    """The sentences of a line, without the blanks around them."""
    found = []
    first = start
    for match in _ENDS_SENTENCE.finditer(plain, start, end):
        word = plain[max(first, match.start() - 6) : match.start()].split()[-1:]
        if match[0] == "." and word and (word[0].lower() in _ABBREVIATED or (len(word[0]) == 1 and word[0].isupper())):
            continue
        found.append((first, match.end()))
        first = match.end()
    found.append((first, end))
    return [trimmed for piece in found if (trimmed := _trimmed(plain, *piece)) is not None]


def _trimmed(plain: str, start: int, end: int) -> tuple[int, int] | None:
    piece = plain[start:end]
    bare = piece.strip(" \t\n\r\x0b\x0c,")
    first = start + len(piece) - len(piece.lstrip(" \t\n\r\x0b\x0c,"))
    return (first, first + len(bare)) if any(character.isalnum() for character in bare) else None


_LISTS = re.compile(
    r"\b(?:with|wearing|holding|of|featuring|has|have|including|contains|containing|in|carrying)\b", re.I
)
_JOINS = re.compile(r"\s*(?:and|or|but|while|with|which|who|as|so)\b", re.I)
_INNER = re.compile(r"\w\s+(?:and|or|&)\s+\w", re.I)
_SAYS = re.compile(r"\b(?:is|are|was|were|that|which|who|while|its|his|her|their)\b", re.I)


def _tags(plain: str, start: int, end: int, joints: set[int]) -> list[tuple[int, int]]:
    """The tags of a sentence that is a list of them, else the sentence.

    Tags are many and short. A list in a sentence is led by something ("a girl with a hat, gloves and boots"), a clause
    goes on with a joining word.
    """
    commas = [match.start() for match in re.finditer(",", plain[start:end])]
    commas = [start + place for place in commas if start + place not in joints]
    commas = [place for place in commas if not _is_thousands(plain, place)]
    commas = [place for place in commas if not _in_quotes(plain, start, place)]
    edges = [start - 1, *commas, end]
    pieces = [_trimmed(plain, low + 1, high) for low, high in pairwise(edges)]
    pieces = [piece for piece in pieces if piece is not None]
    tight = any(TIGHT_COMMA.match(plain, place) for place in commas)
    if len(pieces) < 2 or (len(pieces) < 3 and not tight):
        return [(start, end)]
    texts = [plain[low:high] for low, high in pieces]
    if any(_is_open(text) for text in texts[:-1]):
        return [(start, end)]
    number = sum(text.count(" ") + 1 for text in texts)
    if number > (5 if len(pieces) >= 6 else 4) * len(pieces) and not tight:
        return [(start, end)]
    if (
        any(_JOINS.match(text) for text in texts[1:])
        or sum(bool(_SAYS.search(text)) for text in texts) > len(texts) // 5
    ):
        return [(start, end)]
    if len(pieces) < 6 and _LISTS.search(texts[0]) and any(_INNER.search(text) for text in texts[1:]):
        return [(start, end)]
    return pieces


def _is_open(said: str) -> bool:
    """Whether an article and an adjective wait for their noun: "a large, round table" is no list of tags."""
    spoken = said.lower().split()
    if len(spoken) != 2 or spoken[0] not in ("a", "an", "the"):
        return False
    noun = look_up(spoken[1])
    return noun is not None and noun.noun <= 3


def _is_thousands(plain: str, place: int) -> bool:
    return plain[place - 1 : place].isdigit() and re.match(r"\d{3}(?!\w)", plain[place + 1 : place + 5]) is not None


def _in_quotes(plain: str, start: int, place: int) -> bool:
    return plain.count('"', max(start, place - 200), place) % 2 == 1


def _plain(character: str) -> str:
    """A blank for emoji, control and private characters and lone surrogates; spaCy cannot even hash the latter."""
    if character.isascii():
        return character if character.isprintable() or character in "\n\r\x0b\x0c" else " "
    if character in "\u2028\u2029\x85":
        return "\n"
    category = unicodedata.category(character)
    return " " if category in ("So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Mn", "Me") else character


def _lowered(text: str) -> str:
    """Capitals make a tagger see names everywhere: "A RED CAR" and "A Red Car" are read in lower case."""
    said = [word for word in re.findall(r"[^\W\d_]+", text) if len(word) > 2]
    capitals = sum(word[0].isupper() for word in said)
    if len(said) < 2 or capitals * 4 < len(said) * 3:
        return text
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)
