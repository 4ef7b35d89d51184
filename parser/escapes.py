"""Text of a stranger's as a terminal may be shown it: control characters as escapes, never raw.

A prompt may hold ESC and BEL, C1 controls, which some terminals obey as well, and bidirectional overrides, which make a
line read otherwise than it is stored.
"""

import re
from typing import TextIO

_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
_CONTROL = re.compile(f"[{_UNSAFE}]")
# what colours and the tree are drawn with, where an encoding lacks it
_DRAWN = str.maketrans({"\u251c": "|", "\u2514": "`", "\u2500": "-", "\u2502": "|"})


def escaped(text: str) -> str:
    """The text with control characters, bidirectional marks and lone surrogates as escapes; line breaks and tabs stay.

    >>> escaped("a \\x1b[31mred\\x07 cat")
    'a \\\\x1b[31mred\\\\x07 cat'
    """
    return _CONTROL.sub(lambda match: _escape(ord(match[0])), text)


def escaped_json(text: str) -> str:
    """The same for a JSON document, whose strings know one kind of escape."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def write(text: str, stream: TextIO, *, end: str = "\n") -> None:
    """Print a text that has been escaped; characters that the stream's encoding lacks become ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_DRAWN).encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        pass
    stream.write(text + end)
