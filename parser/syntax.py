"""A prompt's text -> entities, attributes and global phrases.

The way: `clean` hides what is not language, spaCy tags and parses, `repairs` mends the tags, `chunks` finds the noun
phrases; `roles`, `links` and `predicates` hold the rules of the grammar, and this file puts the result together. spaCy
is imported when the first text is parsed, not before.

>>> prompt = parse_prompt("a boy wearing a red hat")
>>> [(entity.head, entity.attributes, entity.parent) for entity in prompt.entities]
[('boy', (), None), ('hat', ('red',), 0)]
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from attnmod.parser.checks import check_choice
from attnmod.parser.chunks import Chunk, find_chunks
from attnmod.parser.clean import Cleaned, clean
from attnmod.parser.globals import global_phrases
from attnmod.parser.links import nest
from attnmod.parser.model import load_model
from attnmod.parser.predicates import after_noun, attributes, predicate
from attnmod.parser.prompt import Entity, Phrase, Prompt
from attnmod.parser.reading import PLACE_READINGS, Reading
from attnmod.parser.repairs import repair
from attnmod.parser.roles import ROLES
from attnmod.parser.weights import Weighted, read_weights
from attnmod.parser.words import read_words


def parse_prompt(text: str, *, model: Any = None, weights: bool = False, places: str = "auto") -> Prompt:
    """Find a prompt's entities, their attributes and what is global.

    Any string gives a Prompt; one that is not English prose or tags gives one without entities and says so in its
    warnings.

    Args:
        text: the prompt.
        model: None for spaCy's small English model, the name of a spaCy model, or a loaded pipeline.
        weights: read weight syntax, "(red hat:1.3)" and "ball++": `Prompt.text` is then the text without it, which is
            the one to encode, and `align_tokens` gives its tokens their weights. Without it such characters are
            global tokens, since a pipeline encodes the text as it is.
        places: what a place is ("in a forest", "on the grass"). "auto" lets preposition and noun decide; with "scene"
            every place after a preposition and every bare tag is global; with "entity" places are things.

    Raises:
        TypeError: text is not a string.
        ValueError: places is none of the three.
        ImportError, OSError: spaCy or the model is not installed; the message has the command that installs it.
    """
    return parse_prompts([text], model=model, weights=weights, places=places)[0]


def parse_prompts(
    texts: Iterable[str], *, model: Any = None, weights: bool = False, places: str = "auto"
) -> list[Prompt]:
    """`parse_prompt` for many texts at once, several times faster a piece."""
    if isinstance(texts, str):
        raise TypeError("texts is one string: it must be a list of strings (parse_prompt takes one)")
    texts = list(texts)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            name = "text" if len(texts) == 1 else f"texts[{place}]"
            raise TypeError(f"{name} is a {type(text).__name__}: it must be a string")
    check_choice("places", places, PLACE_READINGS)
    pipeline = load_model(model)
    weighted = [read_weights(text) if weights else Weighted(text) for text in texts]
    texts = [one.text for one in weighted]
    english = getattr(pipeline, "lang", "en") == "en"
    cleaned = [clean(text, english=english) for text in texts]
    # one text is quicker without the machinery of batches
    readable = [one.readable for one in cleaned]
    docs = [pipeline(readable[0])] if len(texts) == 1 else pipeline.pipe(readable)
    prompts = [
        _assemble(text, one, _read(doc, one, places, english))
        for text, one, doc in zip(texts, cleaned, docs, strict=True)
    ]
    return [
        replace(prompt, weights=one.weights, warnings=(*one.warnings, *prompt.warnings)) if weights else prompt
        for prompt, one in zip(prompts, weighted, strict=True)
    ]


def _read(doc: Any, cleaned: Cleaned, places: str, english: bool) -> Reading:
    """Apply the grammar to one parsed text; the repairs know English sentences only."""
    words = read_words(doc, cleaned.readable)
    if english:
        repair(words)
    reading = Reading(words, find_chunks(words), places=places)
    for rule in ROLES:
        rule(reading)
    nest(reading)
    predicate(reading)
    after_noun(reading)
    return reading


def _assemble(text: str, cleaned: Cleaned, reading: Reading) -> Prompt:
    """The Prompt: ids in reading order with parents before children, spans back to characters."""
    things = [chunk for chunk in reading.chunks if chunk.role == "entity"]
    for chunk in things:  # a rule may have made style or stuff of a parent after another had nested in it
        parent = chunk.parent
        if parent is not None and (parent.role != "entity" or parent.negated or chunk.negated):
            chunk.parent = None
    spans, order = _word_spans(things), []
    children: dict[Chunk | None, list[Chunk]] = {}
    for chunk in sorted(things, key=lambda one: (spans[one][0], one.first), reverse=True):
        children.setdefault(chunk.parent, []).append(chunk)
    waiting = children.get(None, [])
    while waiting:  # depth first, in the order of the text
        order.append(waiting.pop())
        waiting += children.get(order[-1], [])
    ids = {chunk: number for number, chunk in enumerate(order)}
    entities = []
    for chunk in order:
        start, end = reading.words[spans[chunk][0]].start, reading.words[spans[chunk][1] - 1].end
        entities.append(
            Entity(
                id=ids[chunk],
                text=text[start:end],
                span=(start, end),
                head=chunk.head_text or _text_of(text, reading, chunk.head),
                attributes=tuple(_text_of(text, reading, place) for place in attributes(reading, chunk)),
                count=chunk.count,
                parent=None if chunk.parent is None else ids[chunk.parent],
                negated=chunk.negated,
                rule=chunk.rule,
            )
        )
    found = []
    for first, stop, kind, rule in global_phrases(reading, things):
        start, end = reading.words[first].start, reading.words[stop - 1].end
        found.append(Phrase(text[start:end], (start, end), kind, rule))
    found += _syntax_inside(text, cleaned, entities, found)
    found.sort(key=lambda phrase: phrase.span)
    return Prompt(text, tuple(entities), tuple(found), (*cleaned.warnings, *_negations(entities)))


def _syntax_inside(text: str, cleaned: Cleaned, entities: list[Entity], found: list[Phrase]) -> list[Phrase]:
    """Runs of weight syntax inside entities, as global phrases: the text encoder reads them, no entity means them."""

    def inside(parts: Iterable[Entity | Phrase], start: int, end: int) -> bool:
        return any(part.span[0] <= start and end <= part.span[1] for part in parts)

    runs = [run for run in cleaned.syntax if inside(entities, *run) and not inside(found, *run)]
    return [Phrase(text[start:end], (start, end), "other", "weight_syntax") for start, end in runs]


def _word_spans(things: list[Chunk]) -> dict[Chunk, tuple[int, int]]:
    """For each entity its words from the first to the last, its extras and its children's included."""
    spans = {}
    for chunk in things:
        pieces = [(chunk.first, chunk.stop), *chunk.extras]
        spans[chunk] = (min(first for first, _ in pieces), max(stop for _, stop in pieces))
    for chunk in sorted(things, key=lambda one: -len(one.chain())):  # children before their parents
        if chunk.parent is not None:
            (first, stop), (outer_first, outer_stop) = spans[chunk], spans[chunk.parent]
            spans[chunk.parent] = (min(first, outer_first), max(stop, outer_stop))
    return spans


def _text_of(text: str, reading: Reading, place: int) -> str:
    word = reading.words[place]
    return text[word.start : word.end]


def _negations(entities: list[Entity]) -> list[str]:
    names = [" ".join((*entity.attributes, entity.head)) for entity in entities if entity.negated]
    if not names:
        return []
    listed = ", ".join(repr(name) for name in names)
    return [f"a diffusion model does not read negations: put {listed} into the negative prompt instead"]
