"""A parsed prompt as a picture: its entities underlined and linked, as one would on paper.

attribute -> noun      a thin arc above the line, in the entity's colour
part -> owner          a thick one
underline              an entity with all that belongs to it: the owner's runs below its parts'; each mention has one
dashes                 from a further mention to the noun that names the thing
number above           what the words weigh, where weights were read
colours                those of the entity map; letters are darker, so that yellow can be read
dots, small letters    a global phrase and its kind
"""

from dataclasses import dataclass
from typing import Any

from attnmod.parser.explain import PlacedWord, place_words
from attnmod.parser.prompt import Prompt
from attnmod.sampler.palette import entity_colour, entity_ink

_INK, _GREY = (30, 30, 30), (150, 150, 150)
_TEXT, _LABEL, _MARGIN, _STEP = 26, 13, 28, 6
_LONGEST = 2_000  # characters; a picture of more would be taller than it is of use


@dataclass(slots=True)
class _Line:
    """A line of the picture: its characters and where it stands."""

    first: int
    stop: int
    top: int = 0
    base: int = 0


def draw_prompt(prompt: Prompt, *, width: int = 1000, crop: bool = False) -> Any:
    """The prompt as a PIL image.

    Args:
        prompt: parsed or given by hand; its first 2,000 characters are drawn.
        width: of the image in pixels, at least 200; the height is what the text needs.
        crop: no wider than the text, 200 pixels at least.

    Raises:
        ValueError: width is below 200.
    """
    from PIL import Image, ImageDraw, ImageFont

    if width < 200:
        raise ValueError(f"width is {width}: it must be at least 200")
    font, small = ImageFont.load_default(_TEXT), ImageFont.load_default(_LABEL)
    # line breaks and lone surrogates cannot be drawn; the offsets stay
    text = "".join(_drawable(character) for character in prompt.text[:_LONGEST])
    lines = _wrap(text, font, width - 2 * _MARGIN)
    heights = _heights(prompt)
    above, below = 44, 26 + _STEP * (max(heights, default=0) + 1) + _LABEL
    top = 8
    for line in lines:
        line.top, line.base = top + above, top + above + _TEXT + 6
        top += above + _TEXT + below
    widest = width if not crop else max((font.getlength(text[line.first : line.stop]) for line in lines), default=0)
    width = min(width, max(200, int(widest) + 2 * _MARGIN + 60))  # 60: the last phrase's kind may be longer than it
    missing = sum(not _has_glyph(character) for character in text)
    image = Image.new("RGB", (width, top + 8 + (_LABEL + 8) * bool(missing)), "white")
    draw = ImageDraw.Draw(image)
    if missing:
        said = f"no glyphs for {missing} of the characters: drawn as boxes"
        draw.text((_MARGIN, top), said, fill=_GREY, font=small)

    def across(line: _Line, place: int) -> float:
        return _MARGIN + font.getlength(text[line.first : place])

    words = [word for word in place_words(prompt) if word.end <= len(text)]
    colour_of = {place: entity_ink(word.entity) for word in words if word.entity is not None
                 for place in range(word.start, word.end)}  # fmt: skip
    for line in lines:
        for place in range(line.first, line.stop):
            ink = colour_of.get(place, _INK)
            if _has_glyph(text[place]):
                draw.text((across(line, place), line.top), text[place], fill=ink, font=font)
            else:
                left = across(line, place)
                draw.rectangle(
                    (left + 1, line.top + 6, max(left + 2, across(line, place + 1) - 2), line.base - 6), outline=ink
                )
    for start, stop, weight in prompt.weights:
        for line, first, _ in _pieces(lines, start, min(stop, len(text))):
            draw.text((across(line, first), line.top - _LABEL), f"{weight:g}", fill=_GREY, font=small)
    for phrase in prompt.globals:
        for line, start, stop in _pieces(lines, *phrase.span):
            for x in range(int(across(line, start)), int(across(line, stop)), 6):
                draw.ellipse((x, line.base, x + 1, line.base + 1), fill=_GREY)
            if start == phrase.span[0]:
                draw.text((across(line, start), line.base + 3), phrase.kind, fill=_GREY, font=small)
    for entity, height in zip(prompt.entities, heights, strict=True):
        colour = entity_colour(entity.id)
        for line, start, stop in (piece for span in entity.spans for piece in _pieces(lines, *span)):
            y = line.base + _STEP * height
            left, right = across(line, start), across(line, stop)
            if entity.negated:  # struck through: it is said to be absent
                y = line.top + _TEXT // 2 + 3
            draw.line((left, y, right, y), fill=colour, width=3)
    for word, target, thick in _links(prompt, words):
        start, end = _middle(lines, word, across), _middle(lines, target, across)
        if start is not None and end is not None and word.entity is not None:
            _link(draw, start, end, width, entity_colour(word.entity), 3 if thick else 1)
    heads = {word.entity: word for word in words if word.part == "head"}
    for entity in prompt.entities:
        for span in entity.spans[1:] if entity.id in heads else ():
            start = next(((across(line, first), line.base) for line, first, _ in _pieces(lines, *span)), None)
            end = _middle(lines, heads[entity.id], across)
            if start is not None and end is not None:
                _dashes(draw, start, (end[0], end[1] + _TEXT + 4), entity_colour(entity.id))
    return image


def _has_glyph(character: str) -> bool:
    """Whether the font that comes with Pillow has this character: Latin, and the marks that are written with it."""
    return ord(character) < 0x250 or 0x2010 <= ord(character) <= 0x2027


def _dashes(draw: Any, start: tuple, end: tuple, colour: tuple) -> None:
    """A dashed line from a mention to what it means."""
    (x, y), (to, down) = start, end
    steps = max(int((abs(to - x) + abs(down - y)) / 5), 1)
    for step in range(0, steps, 2):
        one, two = step / steps, min(step + 1, steps) / steps
        draw.line((x + (to - x) * one, y + (down - y) * one, x + (to - x) * two, y + (down - y) * two), fill=colour)


def _drawable(character: str) -> str:
    return " " if character.isspace() or not character.isprintable() else character


def _wrap(text: str, font: Any, room: float) -> list[_Line]:
    """Lines that fit, broken at blanks where there are any."""
    lines = [_Line(0, 0)]
    place = 0
    while place < len(text):
        line = lines[-1]
        if font.getlength(text[line.first : place + 1]) > room and place > line.first:
            blank = text.rfind(" ", line.first + 1, place)
            cut = blank + 1 if blank > 0 else place
            line.stop = cut
            lines.append(_Line(cut, cut))
            place = max(cut, lines[-1].first)
        place += 1
        lines[-1].stop = place
    return lines


def _heights(prompt: Prompt) -> list[int]:
    """How many levels each entity's underline lies below the text: below all of its parts'."""
    heights = [0] * len(prompt.entities)
    for entity in reversed(prompt.entities):
        if entity.parent is not None:
            heights[entity.parent] = max(heights[entity.parent], heights[entity.id] + 1)
    return heights


def _pieces(lines: list[_Line], start: int, stop: int):
    """The part of a span on each line."""
    for line in lines:
        first, last = max(start, line.first), min(stop, line.stop)
        if first < last:
            yield line, first, last


def _links(prompt: Prompt, words: list[PlacedWord]):
    """(from, to, thick): attributes to their noun, parts to their owner."""
    heads = {word.entity: word for word in words if word.part == "head"}
    for word in words:
        if word.part == "attribute" and word.entity in heads:
            yield word, heads[word.entity], False
    for entity in prompt.entities:
        if entity.parent is not None and entity.id in heads and entity.parent in heads:
            yield heads[entity.id], heads[entity.parent], True


def _middle(lines: list[_Line], word: PlacedWord, across) -> tuple[float, float] | None:
    for line, start, stop in _pieces(lines, word.start, word.end):
        return (across(line, start) + across(line, stop)) / 2, line.top + 2
    return None


def _link(draw: Any, start: tuple, end: tuple, edge: int, colour: tuple, width: int) -> None:
    """An arc above the line; to another line, over the edge of the picture. A dot where it arrives."""
    (x, y), (to, down) = start, end
    if y == down:
        left, right = min(x, to), max(x, to)
        rise = min(10 + (right - left) / 12, 38)
        draw.arc((left, y - rise, right, y + rise), 180, 360, fill=colour, width=width)
    else:
        leaves, enters = (edge, 0) if y < down else (0, edge)
        draw.line((x, y, x, y - 8, leaves, y - 8), fill=colour, width=width)
        draw.line((enters, down - 8, to, down - 8, to, down), fill=colour, width=width)
    draw.ellipse((to - 3, down - 3, to + 3, down + 3), fill=colour)
