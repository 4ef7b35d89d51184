"""Entities given by hand: phrases and character spans -> entities and the gaps between their phrases.

No parse, no model: the words are looked up in the text. The few attributes that can be read off the surface
("a red cube": cube, red, 1) are filled in, since maps and legends show them.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from attnmod.parser.lexicon import ARTICLES, DETERMINERS, NUMBERS

Span = tuple[int, int]


class Located(NamedTuple):
    """What an entity given by hand is, in the order of `Entity`'s fields."""

    span: Span
    head: str
    attributes: tuple[str, ...]
    amount: int | None  # a tuple has a method `count`
    parent: int | None


def locate_entities(text: str, entities: Iterable[Any]) -> tuple[list[Located], list[Span]]:
    """The entities that the given phrases and spans describe, and where the words between one entity's phrases are."""
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r}: it must be a string")
    if isinstance(entities, str) or not isinstance(entities, Iterable):
        raise ValueError(f"entities is {entities!r}: it must be a list with, for each entity, its phrases or spans")
    taken: list[Span] = []
    pieces = [_locate(text, f"entities[{place}]", given, taken) for place, given in enumerate(entities)]
    found = []
    for place, spans in enumerate(pieces):
        head, attributes, count = _read_surface(text, spans)
        found.append(Located(_hull(spans), head, attributes, count, _container(pieces, place)))
    gaps = [gap for spans in pieces for gap in _gaps(text, spans)]
    return found, sorted(set(gaps))


def _locate(text: str, name: str, given: Any, taken: list[Span]) -> list[Span]:
    """The spans of one entity, sorted; `taken` remembers them for the phrases that come later."""
    if isinstance(given, str) or _is_span(given):
        given = [given]
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{name} is {given!r}: it must be a list of phrases or (start, end) spans, at least one")
    spans = []
    for place, item in enumerate(given):
        where = f"{name}[{place}]"
        if isinstance(item, str):
            spans.append(_find(text, where, item, taken))
        elif _is_span(item):
            start, end = item
            if not 0 <= start < end <= len(text):
                raise ValueError(f"{where} is {item!r}: the text has {len(text)} characters, and 0 <= start < end")
            spans.append((start, end))
        else:
            raise ValueError(f"{where} is {item!r}: it must be a phrase of the text or a (start, end) span")
        taken.append(spans[-1])
    return sorted(spans)


def _is_span(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(edge) is int for edge in value)


def _find(text: str, name: str, phrase: str, taken: list[Span]) -> Span:
    """The first place of a phrase that no phrase has taken yet.

    Inside a longer phrase is a place of its own: "red hat" is found in "a boy wearing a red hat" and becomes its
    child. Only the very same place is not given twice.
    """
    words = phrase.split()
    if not words:
        raise ValueError(f"{name} is {phrase!r}: a phrase needs at least one word")
    pattern = r"\s+".join(map(re.escape, words))
    # whole words only ("car" is not in "scarf"), but scripts without spaces have no such boundary
    pattern = (r"(?<!\w)" if _is_cased(words[0][0]) else "") + pattern + (r"(?!\w)" if _is_cased(words[-1][-1]) else "")
    places = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    if not places:
        raise ValueError(f"{name} is {phrase!r}: it is not in the text {text!r}")
    for place in places:
        if place not in taken:
            return place
    raise ValueError(f"{name} is {phrase!r}: the text has it {len(places)} times, and all are used already")


def _is_cased(character: str) -> bool:
    return unicodedata.category(character) in ("Lu", "Ll", "Lt", "Nd")


def _read_surface(text: str, spans: list[Span]) -> tuple[str, tuple[str, ...], int | None]:
    """Head, attributes and count as far as they stand on the surface of the phrases."""
    start, end = spans[0]
    words = [word.strip(",.;:!?\"'()") for word in text[start:end].split()]
    words = [word for word in words if word] or [text[start:end]]
    head, before = words[-1], words[:-1]
    count = None
    if before and before[0].lower() in ARTICLES:
        count = 1
        before = before[1:]
    elif before and (number := before[0].lower()) in NUMBERS:
        count = NUMBERS[number]
        before = before[1:]
    elif before and before[0].lower() in DETERMINERS:
        before = before[1:]
    elsewhere = [word for a, b in spans[1:] for word in text[a:b].split()]
    return head, (*before, *elsewhere), count


def _container(pieces: list[list[Span]], place: int) -> int | None:
    """The innermost entity that has all of this one's words inside one of its phrases.

    Whole entities must be apart or one inside the other, and what lies inside must not take in a phrase of the
    outer one: with one span for each entity, tokens could not be told apart otherwise.
    """
    inner = _hull(pieces[place])
    best: tuple[int, int] | None = None
    for other, phrases in enumerate(pieces):
        outer = _hull(phrases)
        if other == place or outer[1] <= inner[0] or inner[1] <= outer[0] or (_inside(outer, inner) and outer != inner):
            continue  # apart, or the other way round
        holders = [phrase for phrase in phrases if _inside(inner, phrase)]
        touched = [phrase for phrase in phrases if phrase[0] < inner[1] and inner[0] < phrase[1]]
        if not _inside(inner, outer) or inner == outer or len(holders) != len(touched):
            raise ValueError(
                f"entities[{place}] at {inner} overlaps entities[{other}] at {outer}: entities must be apart, or one "
                f"inside the other"
            )
        if not holders:
            continue  # between two phrases of the other one
        if other > place:
            raise ValueError(
                f"entities[{place}] lies inside entities[{other}]: give the outer entity first, since a parent's id is "
                f"lower than its child's"
            )
        width = holders[0][1] - holders[0][0]
        if best is None or width < best[0]:
            best = (width, other)
    return best[1] if best else None


def _hull(spans: list[Span]) -> Span:
    return spans[0][0], max(end for _, end in spans)


def _inside(inner: Span, outer: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _gaps(text: str, spans: list[Span]) -> list[Span]:
    """The words between the phrases of one entity, without the blanks around them."""
    gaps = []
    reach = spans[0][1]
    for start, end in spans[1:]:
        between = text[reach:start]
        if between.strip():
            left = reach + len(between) - len(between.lstrip())
            gaps.append((left, left + len(between.strip())))
        reach = max(reach, end)
    return gaps
