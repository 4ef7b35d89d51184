"""A prompt's text -> entities, attributes and global phrases.

The way: `notation` cuts the text into segments and hides what is not language, spaCy tags and parses, `repairs` mends
the tags, `chunks` finds the noun phrases; `roles`, `links` and `predicates` hold the rules of the grammar, and this
file puts the result together. spaCy is imported when the first text is parsed, not before.

>>> prompt = parse_prompt("a boy wearing a red hat")
>>> [(entity.head, entity.attributes, entity.parent) for entity in prompt.entities]
[('boy', (), None), ('hat', ('red',), 0)]
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from attnmod.parser.checks import check_choice
from attnmod.parser.chunks import Chunk, find_chunks
from attnmod.parser.globals import global_phrases
from attnmod.parser.links import nest
from attnmod.parser.mentions import pronouns, real, same_thing
from attnmod.parser.model import load_model
from attnmod.parser.notation import TIGHT_COMMA, Notation, read_notation
from attnmod.parser.people import of_the_person, what_the_person_is
from attnmod.parser.predicates import after_noun, attributes, predicate, scattered
from attnmod.parser.prompt import Entity, Phrase, Prompt
from attnmod.parser.reading import PLACE_READINGS, Reading
from attnmod.parser.repairs import repair
from attnmod.parser.roles import ROLES
from attnmod.parser.weights import Weighted, read_weights
from attnmod.parser.words import read_words

_NAMED_IN_A_WARNING = 4
MENTIONS = (same_thing, what_the_person_is, pronouns)


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
    notations = [read_notation(text, english=english) for text in texts]
    readable = [_document(pipeline, one) for one in notations]
    # one text is quicker without the machinery of batches
    docs = [pipeline(readable[0])] if len(texts) == 1 else pipeline.pipe(readable)
    prompts = [
        _assemble(text, one, _read(doc, text, one, places, english))
        for text, one, doc in zip(texts, notations, docs, strict=True)
    ]
    return [
        replace(prompt, weights=one.weights, warnings=(*one.warnings, *prompt.warnings)) if weights else prompt
        for prompt, one in zip(prompts, weighted, strict=True)
    ]


def _document(pipeline: Any, notation: Notation) -> Any:
    """The readable text, with its words and the beginnings of its segments where the pipeline can be told of them."""
    if not hasattr(pipeline, "tokenizer"):
        return notation.readable
    pieces, place = [], 0
    for match in TIGHT_COMMA.finditer(notation.readable):  # "a hen,3 chicks,4k"
        pieces.append(pipeline.tokenizer(notation.readable[place : match.start()]))
        pieces.append(pipeline.tokenizer(","))
        place = match.end()
    doc = pipeline.tokenizer(notation.readable[place:])
    if pieces:
        doc = type(doc).from_docs([*pieces, doc], ensure_whitespace=False)
    starts = iter([*(segment.start for segment in notation.segments), len(notation.readable)])
    start = next(starts)
    for token in doc:
        if token.idx >= start:
            token.is_sent_start = True
            while start <= token.idx:
                start = next(starts)
    return doc


def _read(doc: Any, text: str, notation: Notation, places: str, english: bool) -> Reading:
    """Apply the grammar to one parsed text; the repairs know English sentences only."""
    words = read_words(doc, text, notation)
    if english:
        repair(words)
    reading = Reading(words, find_chunks(words), places=places, notation=notation)
    for rule in (*ROLES, *MENTIONS):
        rule(reading)
    nest(reading)
    of_the_person(reading)
    predicate(reading)
    after_noun(reading)
    scattered(reading)
    return reading


def _assemble(text: str, notation: Notation, reading: Reading) -> Prompt:
    """The Prompt: ids in reading order with parents before children, spans back to characters."""
    things = [chunk for chunk in reading.chunks if chunk.role == "entity"]
    for chunk in things:  # a rule may have made style or stuff of a parent after another had nested in it
        parent = None if chunk.parent is None else real(chunk.parent)
        if parent is not None and (parent.role != "entity" or parent.negated or chunk.negated):
            chunk.parent = None
    mentions = _mentions(reading, things)
    spans, order = _word_spans([*things, *(one for several in mentions.values() for one in several)]), []
    children: dict[Chunk | None, list[Chunk]] = {}
    for chunk in sorted(things, key=lambda one: (spans[one][0], one.first), reverse=True):
        children.setdefault(None if chunk.parent is None else real(chunk.parent), []).append(chunk)
    waiting = children.get(None, [])
    while waiting:  # depth first, in the order of the text
        order.append(waiting.pop())
        waiting += children.get(order[-1], [])
    ids = {chunk: number for number, chunk in enumerate(order)}
    entities = []
    for chunk in order:
        said = [spans[one] for one in (chunk, *mentions.get(chunk, ()))]
        start, end = reading.words[said[0][0]].start, reading.words[said[0][1] - 1].end
        entities.append(
            Entity(
                id=ids[chunk],
                text=text[start:end],
                span=(start, end),
                head=chunk.head_text or _text_of(text, reading, chunk.head),
                attributes=_attributes(text, reading, (chunk, *mentions.get(chunk, ()))),
                count=chunk.count,
                parent=None if chunk.parent is None else ids[real(chunk.parent)],
                negated=chunk.negated,
                rule=chunk.rule,
                spans=((start, end), *_apart(reading, said)),
            )
        )
    found = []
    for first, stop, kind, rule in global_phrases(
        reading, [*things, *(c for c in reading.chunks if c.role == "mention")]
    ):
        start, end = reading.words[first].start, reading.words[stop - 1].end
        found.append(Phrase(text[start:end], (start, end), kind, rule))
    found += _syntax_inside(text, notation, entities, found)
    found.sort(key=lambda phrase: phrase.span)
    warnings = (*notation.warnings, *dict.fromkeys(reading.warnings[:_NAMED_IN_A_WARNING]), *_negations(entities))
    segments = tuple((one.start, one.end, one.label or one.kind) for one in notation.segments)
    return Prompt(text, tuple(entities), tuple(found), warnings, segments=segments)


def _mentions(reading: Reading, things: list[Chunk]) -> dict[Chunk, list[Chunk]]:
    """The further mentions of each thing: chunks that are one, and places where a part of it is named apart."""
    found: dict[Chunk, list[Chunk]] = {}
    kept = {id(chunk) for chunk in things}
    apart = [chunk.parent for chunk in things if chunk.parent is not None and chunk.parent.same is not None]
    for chunk in [*(one for one in reading.chunks if one.role == "mention"), *dict.fromkeys(apart)]:
        if chunk.same is not None and id(chunk.same) in kept and chunk not in found.get(chunk.same, ()):
            found.setdefault(chunk.same, []).append(chunk)
    return found


def _apart(reading: Reading, said: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The characters of further mentions, left to right; what touches the first one or another is part of it."""
    (first, stop), spans = said[0], []
    for low, high in sorted(said[1:]):
        if high <= first or low >= stop:
            if spans and low < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(high, spans[-1][1]))
            else:
                spans.append((low, high))
    return [(reading.words[low].start, reading.words[high - 1].end) for low, high in spans]


def _attributes(text: str, reading: Reading, mentions: Iterable[Chunk]) -> tuple[str, ...]:
    """What all mentions say, each word of a further one once."""
    said: list[str] = []
    for number, chunk in enumerate(mentions):
        for place in attributes(reading, chunk):
            word = _text_of(text, reading, place)
            if number == 0 or word.lower() not in [one.lower() for one in said]:
                said.append(word)
    return tuple(said)


def _syntax_inside(text: str, notation: Notation, entities: list[Entity], found: list[Phrase]) -> list[Phrase]:
    """Runs of signs inside entities, as global phrases: the text encoder reads them, no entity means them."""
    taken = [False] * (len(text) + 1)
    for entity in entities:
        if entity.parent is None:  # what is inside its children is inside it
            for start, end in entity.spans:
                taken[start:end] = [True] * (end - start)
    for phrase in found:
        taken[phrase.span[0] : phrase.span[1]] = [False] * len(phrase.text)
    runs = [(start, end) for start, end in notation.hidden if all(taken[start:end])]
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
    more = len(names) - _NAMED_IN_A_WARNING
    listed = ", ".join(map(repr, names[:_NAMED_IN_A_WARNING])) + (f" and {more} more" if more > 0 else "")
    return [f"a diffusion model does not read negations: put {listed} into the negative prompt instead"]
