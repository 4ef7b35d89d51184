"""What a prompt says: its entities, its global phrases and, once aligned, its tokens.

Everything here is plain data: frozen, hashable, checked when it is made, and the same in JSON. A Prompt comes
from the parser, from JSON, or from the hand of somebody who knows better than the parser:

>>> prompt = Prompt.from_entities("a red cube on a blue sphere", [["a red cube"], ["a blue sphere"]])
>>> [(entity.id, entity.head, entity.attributes, entity.count) for entity in prompt.entities]
[(0, 'cube', ('red',), 1), (1, 'sphere', ('blue',), 1)]
>>> Prompt.from_json(prompt.to_json()) == prompt
True

Spans are character offsets into the text, end exclusive. A parent's id is lower than its children's: the kernels decide
nesting by the highest bit, so the order of ids is part of the meaning. A part's span lies inside a mention of its
owner: in "1girl, red hair" the hair is one more place that speaks of the girl.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from attnmod.parser.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_keys,
    check_mentions,
    check_span,
    check_strings,
    check_text,
    check_weight,
    check_weights,
    list_of,
    span_of,
)
from attnmod.parser.given import locate_entities
from attnmod.parser.owners import Owners

PHRASE_KINDS = ("relation", "action", "scene", "style", "other")
TOKEN_KINDS = ("bos", "entity", "global", "eos", "pad")


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing the picture shows, with what the prompt says about it.

    Attributes:
        id: its place in `Prompt.entities`, and its bit in the kernels.
        text: the prompt's text at `span`.
        span: (start, end): the noun, its modifiers, its predicate ("the car is red") and its children.
        head: the noun itself, as written.
        attributes: one item per modifier word, hyphenated words whole.
        count: how many, or None where the prompt does not say ("cats", "several cats", "water").
        parent: the id of the entity this one is worn by, held by or a part of.
        negated: the prompt says it is absent ("no cars"): its tokens stay global.
        rule: the name of the grammar rule that found it; "given" for one made by hand.
        spans: its mentions, none overlapping: `span` first, which names it, then those further on in the text, as "The
            kettle" and "its lid" after "a copper kettle". Left out, `span` alone; in JSON the key is there only if
            there are several.
    """

    id: int
    text: str
    span: tuple[int, int]
    head: str
    attributes: tuple[str, ...] = ()
    count: int | None = None
    parent: int | None = None
    negated: bool = False
    rule: str = "given"
    spans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        check_integer("Entity.id", self.id, at_least=0)
        check_text("Entity.text", self.text)
        check_span("Entity.span", self.span)
        if not self.spans:
            object.__setattr__(self, "spans", (self.span,))
        check_mentions("Entity.spans", self.spans, self.span)
        check_text("Entity.head", self.head)
        check_strings("Entity.attributes", self.attributes)
        if self.count is not None:
            check_integer("Entity.count", self.count, at_least=0, alternative="None")
        if self.parent is not None:
            check_integer("Entity.parent", self.parent, at_least=0, alternative="None")
            if self.parent >= self.id:
                raise ValueError(
                    f"Entity.parent is {self.parent} for the entity of id {self.id}: a parent's id must be lower than "
                    f"its child's"
                )
        check_flag("Entity.negated", self.negated)
        check_text("Entity.rule", self.rule)

    def to_dict(self) -> dict[str, Any]:
        data = {
            "id": self.id,
            "text": self.text,
            "span": list(self.span),
            "head": self.head,
            "attributes": list(self.attributes),
            "count": self.count,
            "parent": self.parent,
            "negated": self.negated,
            "rule": self.rule,
        }
        return data | ({"spans": [list(span) for span in self.spans]} if len(self.spans) > 1 else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "entity") -> Self:
        check_keys(name, data, required=("id", "text", "span", "head"), optional=_ENTITY_OPTIONAL)
        return cls(
            id=data["id"],
            text=data["text"],
            span=span_of(f"{name}.span", data["span"]),
            head=data["head"],
            attributes=tuple(list_of(f"{name}.attributes", data.get("attributes", ()))),
            count=data.get("count"),
            parent=data.get("parent"),
            negated=data.get("negated", False),
            rule=data.get("rule", "given"),
            spans=tuple(span_of(f"{name}.spans", one) for one in list_of(f"{name}.spans", data.get("spans", ()))),
        )


_ENTITY_OPTIONAL = ("attributes", "count", "parent", "negated", "rule", "spans")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that belong to the whole picture.

    Attributes:
        text, span: the words, and their characters.
        kind: one of PHRASE_KINDS.
        rule: name of the rule that found them, for explanations only: neither compared nor part of the JSON.
    """

    text: str
    span: tuple[int, int]
    kind: str = "other"
    rule: str = field(default="given", compare=False)

    def __post_init__(self):
        check_text("Phrase.text", self.text)
        check_span("Phrase.span", self.span)
        check_choice("Phrase.kind", self.kind, PHRASE_KINDS)

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "span": list(self.span), "kind": self.kind}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "phrase") -> Self:
        check_keys(name, data, required=("text", "span"), optional=("kind",))
        return cls(text=data["text"], span=span_of(f"{name}.span", data["span"]), kind=data.get("kind", "other"))


@dataclass(frozen=True, slots=True)
class Token:
    """One position of the text encoder.

    Attributes:
        index: its position, the key index n of the attention.
        text: the slice of the prompt it stands for; the token's own string for bos, eos and pad.
        kind: one of TOKEN_KINDS.
        entities: ids of every entity that sees it, innermost last, ascending; empty unless kind is "entity".
        weight: the user's weight for it, 1.0 where none was given.
    """

    index: int
    text: str
    kind: str
    entities: tuple[int, ...] = ()
    weight: float = 1.0

    def __post_init__(self):
        check_integer("Token.index", self.index, at_least=0)
        check_text("Token.text", self.text)
        check_choice("Token.kind", self.kind, TOKEN_KINDS)
        if not isinstance(self.entities, tuple):
            raise ValueError(f"Token.entities is {self.entities!r}: it must be a tuple of entity ids")
        for entity in self.entities:
            check_integer("Token.entities", entity, at_least=0)
        if list(self.entities) != sorted(set(self.entities)):
            raise ValueError(f"Token.entities is {self.entities!r}: ids must ascend, each once")
        if bool(self.entities) != (self.kind == "entity"):
            raise ValueError(
                f"Token.entities is {self.entities!r} for kind {self.kind!r}: tokens of kind 'entity' have entities, "
                f"others have none"
            )
        check_weight("Token.weight", self.weight)

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "text": self.text,
            "kind": self.kind,
            "entities": list(self.entities),
            "weight": self.weight,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "token") -> Self:
        check_keys(name, data, required=("index", "text", "kind"), optional=("entities", "weight"))
        weight = data.get("weight", 1.0)
        check_weight(f"{name}.weight", weight)
        return cls(
            index=data["index"],
            text=data["text"],
            kind=data["kind"],
            entities=tuple(list_of(f"{name}.entities", data.get("entities", ()))),
            weight=float(weight),
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's text and what was found in it.

    Attributes:
        text: the prompt, untouched.
        entities: the entities; `entities[i].id == i`.
        globals: phrases that every patch sees. Words in neither list ("and", commas) are global too.
        warnings: what the user should know, in sentences.
        tokens: one per position of the text encoder, empty until `align_tokens` fills it.
        weights: (start, end, weight) of the characters that the user weighted, left to right, none overlapping; empty
            unless weight syntax was read. In JSON the key is there only then.
        segments: (start, end, kind) of the pieces that the parser read one by one, for explanations only: neither
            compared nor part of the JSON.
    """

    text: str
    entities: tuple[Entity, ...] = ()
    globals: tuple[Phrase, ...] = ()
    warnings: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()
    weights: tuple[tuple[int, int, float], ...] = ()
    segments: tuple[tuple[int, int, str], ...] = field(default=(), compare=False)

    def __post_init__(self):
        check_text("Prompt.text", self.text)
        check_weights("Prompt.weights", self.weights, len(self.text))
        _check_tuple_of("Prompt.entities", self.entities, Entity)
        _check_tuple_of("Prompt.globals", self.globals, Phrase)
        _check_tuple_of("Prompt.tokens", self.tokens, Token)
        check_strings("Prompt.warnings", self.warnings)
        for place, entity in enumerate(self.entities):
            name = f"Prompt.entities[{place}]"
            if entity.id != place:
                raise ValueError(f"{name}.id is {entity.id}: ids must be 0, 1, 2, ... in order, here {place}")
            self._check_slice(name, entity)
            for start, end in entity.spans:
                if end > len(self.text):
                    raise ValueError(f"{name}.spans has {(start, end)}: the text has {len(self.text)} characters")
            if entity.parent is not None:
                mentions = self.entities[entity.parent].spans
                if not any(low <= entity.span[0] and entity.span[1] <= high for low, high in mentions):
                    said = f"{mentions[0]}, the span" if len(mentions) == 1 else f"one of {mentions}, the mentions"
                    raise ValueError(
                        f"{name}.span is {entity.span}: it must lie inside {said} of its parent {entity.parent}"
                    )
        for place, phrase in enumerate(self.globals):
            self._check_slice(f"Prompt.globals[{place}]", phrase)
        for place, token in enumerate(self.tokens):
            if token.index != place:
                raise ValueError(f"Prompt.tokens[{place}].index is {token.index}: it must be its position, {place}")
            if token.entities and token.entities[-1] >= len(self.entities):
                raise ValueError(
                    f"Prompt.tokens[{place}].entities is {token.entities}: the prompt has {len(self.entities)} entities"
                )

    def _check_slice(self, name: str, part: Entity | Phrase) -> None:
        start, end = part.span
        if end > len(self.text):
            raise ValueError(f"{name}.span is {part.span}: the text has {len(self.text)} characters")
        if part.text != self.text[start:end]:
            raise ValueError(f"{name}.text is {part.text!r}: the text at {part.span} is {self.text[start:end]!r}")

    def ancestors(self, entity: int) -> tuple[int, ...]:
        """The ids above an entity, innermost first."""
        chain = []
        parent = self.entities[entity].parent
        while parent is not None:
            chain.append(parent)
            parent = self.entities[parent].parent
        return tuple(chain)

    def owner(self, start: int, end: int) -> int | None:
        """The innermost entity whose words these characters are; None if they are global.

        The shortest span that holds them all decides: a scene phrase inside an entity ("a man in a park wearing a
        hat") stays global, a child takes its words from its parent, a negated entity gives them to everybody.
        Characters that reach over the edge of something else belong to nobody, those over a child's edge to the parent.
        Whoever asks for many pieces of one prompt makes an `Owners` of it once.
        """
        return Owners(self).of(start, end)

    def weight(self, start: int, end: int) -> float:
        """What these characters weigh: the weight of the stretch that most of them lie in, 1.0 outside of all."""
        for first, last, weight in self.weights:
            if min(end, last) - max(start, first) > (end - start) / 2:
                return weight
        return 1.0

    def children(self, entity: int | None) -> tuple[Entity, ...]:
        """The entities right below one; with None, those that have no parent."""
        return tuple(other for other in self.entities if other.parent == entity)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of DESIGN section 4."""
        data: dict[str, Any] = {
            "text": self.text,
            "warnings": list(self.warnings),
            "entities": [entity.to_dict() for entity in self.entities],
            "globals": [phrase.to_dict() for phrase in self.globals],
            "tokens": [token.to_dict() for token in self.tokens],
        }
        return data | ({"weights": [list(one) for one in self.weights]} if self.weights else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returns; lists that are left out are empty.

        Raises:
            ValueError: names the field, what it was and what is allowed.
        """
        check_keys(
            "prompt", data, required=("text",), optional=("warnings", "entities", "globals", "tokens", "weights")
        )

        def read(key: str, kind: type) -> tuple:
            items = list_of(f"prompt.{key}", data.get(key, ()))
            return tuple(kind.from_dict(item, f"{key}[{place}]") for place, item in enumerate(items))

        return cls(
            text=data["text"],
            entities=read("entities", Entity),
            globals=read("globals", Phrase),
            warnings=tuple(list_of("prompt.warnings", data.get("warnings", ()))),
            tokens=read("tokens", Token),
            weights=tuple(
                tuple(list_of("prompt.weights", one)) for one in list_of("prompt.weights", data.get("weights", ()))
            ),
        )

    def to_json(self, *, indent: int | None = None) -> str:
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not a prompt in JSON: {error}") from None
        return cls.from_dict(data)

    @classmethod
    def from_entities(cls, text: str, entities: Iterable[Any]) -> Self:
        """A prompt whose entities are given by hand; see `attnmod.parser.given`.

        Args:
            text: the prompt.
            entities: for each entity a list of phrases or (start, end) spans; a single one needs no list. A phrase is
                looked for at its first place that no earlier phrase took, whole words, in any case. What lies
                between the phrases of one entity stays global. An entity inside a phrase of an earlier one
                becomes its child.

        Raises:
            ValueError: a phrase is not in the text (any more), a span is outside it, or two entities overlap without
                one being inside the other.
        """
        located, between = locate_entities(text, entities)
        found = [Entity(number, text[slice(*one.span)], *one) for number, one in enumerate(located)]
        return cls(text, tuple(found), tuple(Phrase(text[slice(*span)], span, "other") for span in between))

    def with_tokens(self, tokens: Sequence[Token], warnings: Iterable[str] = ()) -> Self:
        """The same prompt with other tokens and further warnings, each warning once."""
        merged = tuple(dict.fromkeys((*self.warnings, *warnings)))
        return replace(self, tokens=tuple(tokens), warnings=merged)

    def roots(self) -> Iterator[Entity]:
        """The entities without a parent, in order."""
        return (entity for entity in self.entities if entity.parent is None)


def _check_tuple_of(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        raise ValueError(f"{name} is {value!r}: it must be a tuple of {kind.__name__}")
