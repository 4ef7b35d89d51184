"""Other readers: any callable that makes a Prompt of a text can take the place of `parse_prompt`.

>>> def everything(text):
...     return Prompt.from_entities(text, [text])
>>> read_with(everything, "a red cube").entities[0].head
'cube'
"""

from collections.abc import Callable
from typing import Any

from attnmod.parser.prompt import Prompt

Reader = Callable[[str], Prompt]


def check_reader(reader: Any, name: str = "reader") -> None:
    """
    Raises:
        TypeError: reader is no callable.
    """
    if not callable(reader):
        raise TypeError(f"{name} is a {type(reader).__name__}: it must be a callable that makes a Prompt of a text")


def read_with(reader: Reader, text: str) -> Prompt:
    """What a reader makes of a text.

    Raises:
        TypeError: it returned something else than a Prompt.
        ValueError: it returned the Prompt of another text, whose spans mean nothing in this one; or it made one whose
            spans lie outside the text, which Prompt itself refuses.
    """
    named = getattr(reader, "__name__", type(reader).__name__)
    try:
        prompt = reader(text)
    except ValueError as error:
        raise ValueError(f"reader {named} failed on {text[:60]!r}: {error}") from error
    if not isinstance(prompt, Prompt):
        raise TypeError(f"reader {named} returned a {type(prompt).__name__} for {text[:60]!r}: it must return a Prompt")
    if prompt.text != text:
        raise ValueError(
            f"reader {named} returned a Prompt of {prompt.text[:60]!r} for {text[:60]!r}: it must be of the same text"
        )
    return prompt
