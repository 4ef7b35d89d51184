"""A prompt's parse as text, for people: the tree that `attnmod parse` prints, and a one-line outline."""

from attnmod.parser.escapes import escaped
from attnmod.parser.owners import Owners
from attnmod.parser.prompt import Entity, Prompt

# 256-colour codes that read on dark and light terminals, cycled by entity id
_PALETTE = (203, 39, 76, 214, 170, 44, 178, 105, 209, 71)
_RESET = "\x1b[0m"


def describe(prompt: Prompt, *, colour: bool = False) -> str:
    """A readable account of a parse: the text, the tree of entities, global phrases, tokens and warnings.

    Args:
        prompt: parsed, given by hand, aligned or not.
        colour: ANSI colours, one for each entity; the text is printed with its entities' words coloured.
    """
    lines = [_painted_text(prompt) if colour else escaped(prompt.text) or "(empty prompt)", ""]
    if len(prompt.segments) > 1:
        lines += ["read piece by piece:"]
        lines += [f'  {kind:<9}"{escaped(prompt.text[start:end])}"' for start, end, kind in prompt.segments] + [""]
    lines += _entity_lines(prompt, colour) or ["no entities: nothing will be masked"]
    if prompt.globals:
        lines += ["", "seen by every patch:"]
        kinds = list(dict.fromkeys(phrase.kind for phrase in prompt.globals))
        for kind in kinds:
            phrases = ", ".join(f'"{escaped(phrase.text)}"' for phrase in prompt.globals if phrase.kind == kind)
            lines.append(f"  {kind:<9}{phrases}")
    if prompt.weights:
        named = ", ".join(f'"{escaped(prompt.text[start:end])}" {weight:g}' for start, end, weight in prompt.weights)
        lines += ["", f"weights: {named}"]
    if prompt.tokens:
        lines += ["", "tokens:", *_token_lines(prompt, colour)]
    if prompt.warnings:
        lines += [""] + [f"warning: {escaped(warning)}" for warning in prompt.warnings]
    return "\n".join(lines)


def _entity_lines(prompt: Prompt, colour: bool) -> list[str]:
    """The tree, drawn from the ids: they are in depth-first order or at least have parents before children."""
    children: dict[int | None, list[Entity]] = {}
    for entity in prompt.entities:
        children.setdefault(entity.parent, []).append(entity)
    lines = []
    waiting = [(entity, "", "") for entity in reversed(children.get(None, []))]
    while waiting:
        entity, branch, below = waiting.pop()
        lines.append(f"{branch}{_entity_line(prompt.text, entity, colour)}")
        inner = children.get(entity.id, [])
        last = inner[-1] if inner else None
        for child in reversed(inner):
            waiting.append(
                (
                    child,
                    below + ("  └─ " if child is last else "  ├─ "),
                    below + ("     " if child is last else "  │  "),
                )
            )
    return lines


def _entity_line(text: str, entity: Entity, colour: bool) -> str:
    name = f'{entity.id} "{escaped(entity.text)}"'
    facts = [f"head {escaped(entity.head)}"]
    if entity.attributes:
        facts.append(f"attributes {escaped(', '.join(entity.attributes))}")
    if entity.count is not None:
        facts.append(f"count {entity.count}")
    if entity.negated:
        facts.append("negated")
    if len(entity.spans) > 1:
        facts.append("also " + ", ".join(f'"{escaped(text[start:end])}"' for start, end in entity.spans[1:]))
    facts.append(f"rule {entity.rule}")
    return f"{paint(name, entity.id) if colour else name}  {'; '.join(facts)}"


def _token_lines(prompt: Prompt, colour: bool) -> list[str]:
    """One line for each stretch of tokens with the same kind and entities."""
    lines = []
    place = 0
    while place < len(prompt.tokens):
        token, first = prompt.tokens[place], place
        while place < len(prompt.tokens) and prompt.tokens[place].kind == token.kind:
            if prompt.tokens[place].entities != token.entities:
                break
            place += 1
        numbers = str(first) if place == first + 1 else f"{first}-{place - 1}"
        owners = f" {', '.join(map(str, token.entities))}" if token.entities else ""
        special = token.kind in ("bos", "eos", "pad")
        texts = "" if special else escaped(" ".join(one.text for one in prompt.tokens[first:place]))
        line = f"  {numbers:<7}{token.kind + owners:<13}{texts}".rstrip()
        lines.append(paint(line, token.entities[-1]) if colour and token.entities else line)
    return lines


def _painted_text(prompt: Prompt) -> str:
    """The text with each entity's own words in its colour."""
    painted, current, owners = [], None, Owners(prompt)
    for place, character in enumerate(prompt.text):
        owner = owners.of(place, place + 1)
        if owner != current:
            painted.append((_RESET if current is not None else "") + (_start(owner) if owner is not None else ""))
            current = owner
        painted.append(escaped(character))
    return "".join(painted) + (_RESET if current is not None else "")


def paint(text: str, entity: int) -> str:
    return f"{_start(entity)}{text}{_RESET}"


def _start(entity: int) -> str:
    return f"\x1b[38;5;{_PALETTE[entity % len(_PALETTE)]}m"


def outline(prompt: Prompt) -> str:
    """One line: entities as "noun xcount: attributes < parent", then global phrases as "[kind: text]".

    >>> outline(Prompt.from_entities("a red cube", ["a red cube"]))
    'cube x1: red'
    """
    parts = []
    for entity in prompt.entities:
        text = ("not " if entity.negated else "") + entity.head
        text += f" x{entity.count}" if entity.count is not None else ""
        text += f": {', '.join(entity.attributes)}" if entity.attributes else ""
        text += f" < {prompt.entities[entity.parent].head}" if entity.parent is not None else ""
        parts.append(text)
    parts += [f"[{phrase.kind}: {phrase.text}]" for phrase in prompt.globals]
    return "; ".join(parts)
