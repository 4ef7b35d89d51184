"""Weight syntax: the text without it, and the tokens' weights."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnmod.parser.align import align_tokens
from attnmod.parser.describe import outline
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt, parse_prompts
from attnmod.parser.weights import read_weights
from tests.parser import tokenizers_for_tests as tokenizers


@pytest.mark.parametrize(
    ("text", "stripped", "weighted"),
    [
        ("a red hat", "a red hat", []),
        ("a (red hat)", "a red hat", [("red hat", 1.1)]),
        ("a ((red hat))", "a red hat", [("red hat", 1.21)]),
        ("a (red hat:1.3)", "a red hat", [("red hat", 1.3)]),
        ("a (red hat: 0.5 )", "a red hat", [("red hat", 0.5)]),
        ("a (red hat:.5)", "a red hat", [("red hat", 0.5)]),
        ("a [red] hat", "a red hat", [("red", 0.909091)]),
        ("a [[red]] hat", "a red hat", [("red", 0.826446)]),
        ("a (red (tall:2) hat:1.5)", "a red tall hat", [("red ", 1.5), ("tall", 3.0), (" hat", 1.5)]),
        ("a ([red]) hat", "a red hat", []),
        ("a ball++", "a ball", [("ball", 1.21)]),
        ("a ball-- here", "a ball here", [("ball", 0.81)]),
        ("a ball+, a cube", "a ball, a cube", [("ball", 1.1)]),
        ("a (red ball)++ here", "a red ball here", [("red ball", 1.21)]),
        ("a (red ball)", "a red ball", [("red ball", 1.1)]),
        ("a t-shirt++", "a t-shirt", [("t-shirt", 1.21)]),
        ("a (hat:0)", "a hat", [("hat", 0.0)]),
        (r"a \(red\) hat", "a (red) hat", []),
        ("a hat :( and (", "a hat :( and (", []),
        ("a ) b (c", "a ) b (c", []),
        ("a (b] c", "a (b] c", []),
        ("a:1.5 b", "a:1.5 b", []),
        ("3 + 4 and a-b and x--y", "3 + 4 and a-b and x--y", []),
        ("breakfast, BREAKING, break", "breakfast, BREAKING, break", []),
        ("", "", []),
        ("()", "", []),
        ("a (" + "(" * 50 + "hat" + ")" * 51, "a hat", [("hat", 1.1**51)]),
    ],
)
def test_syntax(text, stripped, weighted):
    read = read_weights(text)
    assert read.text == stripped
    assert [stripped[start:end] for start, end, _ in read.weights] == [words for words, _ in weighted]
    assert [weight for *_, weight in read.weights] == pytest.approx([weight for _, weight in weighted])
    assert read.warnings == ()


@pytest.mark.parametrize(
    ("text", "stripped", "warning"),
    [
        ("a castle <lora:drag_v2:0.8> at night", "a castle at night", "<lora:drag_v2:0.8> is taken out"),
        ("a castle BREAK a dragon", "a castle a dragon", "BREAK is taken out"),
        ("a [red:0.5] hat", "a red hat", "prompt editing"),
        ("a (red:-2) hat", "a red hat", "-2 is below 0"),
    ],
)
def test_what_cannot_be_done_is_said(text, stripped, warning):
    read = read_weights(text)
    assert read.text == stripped
    assert len(read.warnings) == 1
    assert warning in read.warnings[0]


def test_tokens_carry_the_weights():
    prompt = parse_prompt("a (red hat:1.3) and a striped ball++", weights=True)
    assert prompt.text == "a red hat and a striped ball"
    assert outline(prompt) == "hat x1: red; ball x1: striped"
    assert prompt.warnings == ()
    tokens = align_tokens(prompt, tokenizers.first()).tokens
    assert [token.weight for token in tokens[:9]] == [1.0, 1.0, 1.3, 1.3, 1.0, 1.0, 1.0, 1.21, 1.0]
    assert [token.kind for token in tokens[:9]] == ["bos", *["entity"] * 3, "global", *["entity"] * 3, "eos"]


def test_json_holds_them_only_where_there_are_any():
    prompt = parse_prompt("a (red hat:1.3)", weights=True)
    assert Prompt.from_json(prompt.to_json()) == prompt
    assert prompt.to_dict()["weights"] == [[2, 9, 1.3]]
    assert "weights" not in parse_prompt("a red hat", weights=True).to_dict()


def test_without_the_option_the_text_is_left_alone():
    text = "a (red hat:1.3) on a ball++"
    prompt = align_tokens(parse_prompt(text), tokenizers.first())
    assert prompt.text == text
    assert any("weight syntax" in warning for warning in prompt.warnings)
    signs = [token for token in prompt.tokens if token.text and token.kind not in ("bos", "eos", "pad")]
    signs = [token for token in signs if not any(character.isalpha() for character in token.text)]
    assert signs
    assert {token.kind for token in signs} == {"global"}
    assert {token.weight for token in prompt.tokens} == {1.0}


def test_batch_equals_single():
    texts = ["a (red hat:1.3)", "a ball++ BREAK a cube", "a cat"]
    assert parse_prompts(texts, weights=True) == [parse_prompt(text, weights=True) for text in texts]


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([(0, 2, 1.0)], "must be a tuple"),
        (((0, 2),), r"weights\[0\]"),
        (((0, 99, 1.0),), "within 5 characters"),
        (((2, 4, 1.0), (1, 3, 1.0)), "ascend"),
        (((0, 2, -1.0),), "at least 0"),
        (((0, 2, float("nan")),), "finite"),
    ],
)
def test_bad_weights_are_named(weights, named):
    with pytest.raises(ValueError, match=named):
        Prompt("a cat", weights=weights)


PIECES = (
    "(",
    ")",
    "[",
    "]",
    ":1.2",
    ":",
    "+",
    "++",
    "--",
    "\\",
    " ",
    "red",
    "hat",
    "BREAK",
    "<lora:a:1>",
    ",",
    "\ud800",
)


@settings(max_examples=int(os.environ.get("ATTNMOD_FUZZ", "250")), deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_syntax(text):
    read = read_weights(text)
    before = 0
    for start, end, weight in read.weights:
        assert before <= start < end <= len(read.text)
        assert 0 <= weight <= 1000
        before = end
    assert parse_prompt(text, weights=True).text == read.text
    assert read.text.count("red") >= text.count("red") - text.count("<lora:")
