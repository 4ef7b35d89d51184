"""Any callable can read; what it returns is checked."""

import pytest

from attnmod.parser.prompt import Entity, Prompt
from attnmod.parser.readers import check_reader, read_with
from attnmod.parser.syntax import parse_prompt


def test_the_parser_is_a_reader_like_any_other():
    assert read_with(parse_prompt, "a red cat") == parse_prompt("a red cat")
    assert read_with(lambda text: Prompt(text), "a red cat").entities == ()


@pytest.mark.parametrize(
    ("reader", "error", "named"),
    [
        (lambda text: {"text": text}, TypeError, "returned a dict"),
        (lambda text: None, TypeError, "must return a Prompt"),
        (lambda text: Prompt("another"), ValueError, "Prompt of 'another'"),
        (lambda text: Prompt(text, (Entity(0, "cat", (90, 93), "cat"),)), ValueError, "failed on 'a cat'.*characters"),
    ],
)
def test_what_is_no_prompt_is_named(reader, error, named):
    with pytest.raises(error, match=named):
        read_with(reader, "a cat")


def test_no_callable():
    with pytest.raises(TypeError, match="reader is a str"):
        check_reader("en_core_web_sm")
