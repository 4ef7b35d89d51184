"""The text as spaCy should see it: the same length, so that every character keeps its offset.

Prompts carry things that are no language: weight syntax, LoRA tags, emoji, line breaks, capitals. Each such
character is replaced by a blank (or a comma, where it separates), never removed.
"""

import re
import unicodedata
from dataclasses import dataclass

from attnmod.parser.lexicon import words

# a text longer than this is cut for the parse: spaCy's time and memory grow with it, text encoders read 77 tokens
MAX_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What to parse, and what the user should know about it."""

    readable: str
    warnings: tuple[str, ...] = ()
    syntax: tuple[tuple[int, int], ...] = ()  # runs of weight syntax, which belong to no entity


_NETWORK = re.compile(r"<(?:lora|lyco|hypernet|lbw):[^<>]*>", re.IGNORECASE)
_WEIGHT = re.compile(r":\s*-?\d+(?:\.\d*)?(?=\s*[)\]])")
_PLUSES = re.compile(r"(?<=[\w)])(?:\+{1,}|-{2,})(?=[\s,.)]|$)")
_BREAK = re.compile(r"\bBREAK\b")
# no language, and spaCy's tokenizer takes seconds for thousands of signs without a blank
_RUBBLE = re.compile(r"[^\w\s]{9,}")
# what people put between tags, and a dash that hangs on a word: "a dog- brown -"
_SEPARATOR = re.compile(r"[|\u2022\u00b7](?=\s)|(?<=\w)-(?=\s)")
_HIDDEN = re.compile("x+")
_NESTED = re.compile(r"\({2,}|\[[^\[\]]*\]|\{[^{}]*\}")


def clean(text: str, *, english: bool = True) -> Cleaned:
    """Blank out what is not language.

    >>> clean("a (red hat:1.3)++").readable
    'a  red hat       '
    """
    warnings = []
    if len(text) > MAX_CHARACTERS:
        warnings.append(f"only the first {MAX_CHARACTERS} of the prompt's {len(text)} characters were parsed")
        text = text[:MAX_CHARACTERS]
    if english and _is_another_script(text):
        warnings.append("the parser reads English: no entities were looked for in another script; give them by hand")
        return Cleaned("", tuple(warnings))
    if english and _is_another_language(text):
        warnings.append(
            "the parser reads English, and this looks like another language: give a model, or entities by hand"
        )
    readable = _without_syntax(text)
    syntax = tuple((run.start(), run.end()) for run in _HIDDEN.finditer(_difference(text, readable)))
    if readable != text:
        warnings.append(
            "weight syntax is not interpreted: its characters stay in the text that is encoded, as global tokens"
        )
    readable = _RUBBLE.sub(lambda match: " " * len(match[0]), "".join(map(_plain, readable)))
    readable = re.sub(r"(?<![\s,.;:!?])\n", ",", readable).replace("\n", " ").replace("\r", " ").replace("\t", " ")
    readable = _SEPARATOR.sub(",", readable)
    return Cleaned(_lowered(readable), tuple(warnings), syntax)


def _without_syntax(text: str) -> str:
    """Weights, brackets, BREAK and LoRA tags as blanks. Plain parentheses stay: people write asides in them."""
    weighted = bool(_WEIGHT.search(text) or _NESTED.search(text) or _PLUSES.search(text))
    for pattern in (_NETWORK, _WEIGHT, _PLUSES):
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    text = _BREAK.sub("  .  ", text)
    return re.sub(r"[()\[\]{}]", " ", text) if weighted else text


def _difference(text: str, readable: str) -> str:
    """Where the two differ, as marks."""
    if text == readable:
        return ""
    return "".join(" " if one == other else "x" for one, other in zip(text, readable, strict=True))


def _plain(character: str) -> str:
    """A blank for emoji, control and private characters and lone surrogates; spaCy cannot even hash the latter."""
    if character.isascii():
        return character if character.isprintable() or character in "\n\r\t" else " "
    category = unicodedata.category(character)
    return " " if category in ("So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me") else character


def _is_another_script(text: str) -> bool:
    """Whether most letters are not Latin."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(character < "\u0250" or "\u1e00" <= character < "\u1f00" for character in letters)
    return latin * 2 < len(letters)


# little words of some other languages that English, names and artists' names do not have
_FOREIGN = words(
    "un une les avec dans et sur est el los las con una y del eine einen einem und mit der das ist auf il gli della "
    "uma com na em een het op"
)


def _is_another_language(text: str) -> bool:
    """Whether at least two words, and a fifth of all, are such little words."""
    said = re.findall(r"[^\W\d_]+", text.lower()[:2000])
    foreign = sum(word in _FOREIGN for word in said)
    return foreign >= 2 and foreign * 5 >= len(said)


def _lowered(text: str) -> str:
    """Capitals make a tagger see names everywhere: "A RED CAR" and "A Red Car" are read in lower case."""
    words = [word for word in re.findall(r"[^\W\d_]+", text) if len(word) > 2]
    capitals = sum(word[0].isupper() for word in words)
    if len(words) < 2 or capitals * 4 < len(words) * 3:
        return text
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)
