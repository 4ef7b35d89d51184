"""Which word of a prompt went where, and by which rule: what `attnmod parse --explain` prints."""

import re
from dataclasses import dataclass

from attnmod.parser.describe import paint
from attnmod.parser.escapes import escaped
from attnmod.parser.owners import Owners
from attnmod.parser.prompt import Entity, Phrase, Prompt

# words with their hyphens and apostrophes, but 's apart; single signs
_WORD = re.compile(r"(?:(?!['\u2019]s\b)[\w'\u2019-])+|['\u2019]s\b|[^\w\s]")
_KINDS = {
    "relation": "how things stand to each other",
    "action": "what is done",
    "scene": "where or when the picture is",
    "style": "how the picture looks",
    "other": "said of no thing in particular",
}


@dataclass(frozen=True, slots=True)
class PlacedWord:
    """A word and what it became.

    Attributes:
        start, end: its characters.
        part: head, attribute, word (any other word of an entity), global, negated, or nothing (belongs nowhere).
        entity: the innermost entity it belongs to, or None.
        kind, rule: of the global phrase that it stands in, or "".
    """

    start: int
    end: int
    part: str
    entity: int | None = None
    kind: str = ""
    rule: str = ""


def place_words(prompt: Prompt) -> list[PlacedWord]:
    """Every word of the prompt, left to right.

    >>> from attnmod.parser.prompt import Prompt
    >>> [(word.part, word.entity) for word in place_words(Prompt.from_entities("a red cube here", ["a red cube"]))]
    [('word', 0), ('attribute', 0), ('head', 0), ('nothing', None)]
    """
    attributes = {entity.id: [text.lower() for text in entity.attributes] for entity in prompt.entities}
    owners = Owners(prompt)
    heads = {entity.id: _head_place(prompt, owners, entity) for entity in prompt.entities}
    placed = []
    for match in _WORD.finditer(prompt.text):
        start, end = match.span()
        owner = owners.of(start, end)
        holding = owners.holding(start, end)
        negated = next((one for one in holding if isinstance(one, Entity) and one.negated), None)
        phrases = [one for one in holding if isinstance(one, Phrase)]
        if owner is not None:
            part = "word"
            if heads[owner] == start:
                part = "head"
            elif match[0].lower() in attributes[owner]:
                attributes[owner].remove(match[0].lower())
                part = "attribute"
            placed.append(PlacedWord(start, end, part, owner))
        elif negated is not None:
            placed.append(PlacedWord(start, end, "negated", negated.id))
        elif phrases:
            placed.append(PlacedWord(start, end, "global", None, phrases[0].kind, phrases[0].rule))
        else:
            placed.append(PlacedWord(start, end, "nothing"))
    return placed


def explain(prompt: Prompt, *, colour: bool = False) -> str:
    """One line a word, then the rules that were used, each in a sentence."""
    from attnmod.parser.grammar import explain_rule  # the whole grammar, needed only here

    lines = []
    words = place_words(prompt)
    width = min(max((word.end - word.start for word in words), default=0), 30)
    for word in words:
        text = escaped(prompt.text[word.start : word.end])
        line = f"{text:<{width}}  {_where(prompt, word)}"
        lines.append(paint(line, word.entity) if colour and word.entity is not None else line)
    rules = dict.fromkeys([one.rule for one in prompt.entities] + [word.rule for word in words if word.rule])
    if rules:
        longest = max(map(len, rules))
        lines += ["", "rules:", *(f"  {rule:<{longest}}  {explain_rule(rule)}" for rule in rules)]
    return "\n".join(lines) if lines else "no words"


def _where(prompt: Prompt, word: PlacedWord) -> str:
    if word.entity is None:
        if word.part == "nothing":
            return "connects; seen by every patch"
        by = "" if word.rule == "given" else f", by {word.rule}"
        return f"{word.kind}: {_KINDS[word.kind]}{by}; seen by every patch"
    entity = prompt.entities[word.entity]
    name = f"entity {entity.id} ({escaped(entity.head)})"
    if word.part == "negated":
        return f"{name} is said to be absent; seen by every patch"
    if word.part == "attribute":
        return f"attribute of {name}"
    if word.part == "word":
        return f"belongs to {name}"
    nests = (
        "" if entity.parent is None else f", inside {entity.parent} ({escaped(prompt.entities[entity.parent].head)})"
    )
    return f"{name}{nests}, by {entity.rule}"


def _head_place(prompt: Prompt, owners: Owners, entity: Entity) -> int | None:
    """Where the head stands: its last place among the words that are the entity's own."""
    start, end = entity.span
    for match in reversed([*re.finditer(rf"(?<!\w){re.escape(entity.head)}(?!\w)", prompt.text[start:end])]):
        if owners.of(start + match.start(), start + match.end()) == entity.id:
            return start + match.start()
    return None
