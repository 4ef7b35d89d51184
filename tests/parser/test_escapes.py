"""Control characters of a prompt reach no terminal."""

import io
import json

import pytest

from attnmod.parser.describe import describe
from attnmod.parser.escapes import escaped, escaped_json, write
from attnmod.parser.explain import explain
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt

# ESC, BEL, DEL, C1's CSI, a right-to-left override, an isolate, a lone surrogate
NASTY = ["\x1b[31m", "\x07", "\x7f", "\x9b31m", "\u202e", "\u2066", "\ud800"]


def is_safe(text):
    return not any(
        (ord(one) < 32 and one not in "\n\t") or 0x7F <= ord(one) < 0xA0 or one in "\u202e\u2066\ud800" for one in text
    )


@pytest.mark.parametrize("sign", NASTY, ids=ascii)
def test_nothing_raw_is_shown(sign):
    prompt = parse_prompt(f"a red{sign}cat {sign} on a mat{sign}")
    given = Prompt.from_entities(f"a {sign} cat", [(0, 3 + len(sign))])
    for one in (prompt, given):
        assert is_safe(describe(one))
        assert is_safe(explain(one))
        written = escaped_json(json.dumps(one.to_dict(), ensure_ascii=False))
        assert is_safe(written)
        assert json.loads(written) == json.loads(one.to_json())
    plain = describe(prompt, colour=True).replace("\x1b[38;5;", "").replace("\x1b[0m", "")
    assert is_safe(plain)


def test_what_is_harmless_stays():
    assert escaped("a café,\n\t猫 e\u0301") == "a café,\n\t猫 e\u0301"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_an_old_encoding_gets_ascii(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    write(describe(parse_prompt("a girl with a café and a 猫")), stream)
    stream.flush()
    said = raw.getvalue().decode(encoding)
    assert "girl" in said
    assert ("猫" in said) == (encoding == "utf-8")
