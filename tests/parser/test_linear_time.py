"""Twice the text may take twice the time: sizes doubled, and the ratio of the times, so that no second is asserted."""

import sys
import time

import pytest

from attnmod.parser.align import align_tokens
from attnmod.parser.describe import describe
from attnmod.parser.explain import explain
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt
from attnmod.parser.weights import read_weights
from tests.parser import tokenizers_for_tests as tokenizers

# what made one of the rules, spaCy's tokenizer or the scanner work through everything again for each of its words
PIECES = {
    "adjectives": "red ",
    "adjectives with commas": "red, ",
    "pairs": "red and ",
    "openers": "his ",
    "numbers": "two ",
    "parts of parts": "leg of a ",
    "underscores": "_",
    "one word": "a",
    "hyphens": "a-",
    "list": "a cat, ",
    "joined": "a cat and ",
    "tags": "1girl, red hair, blue dress, ",
    "sentences": "a cat. ",
    "mentions": "the kettle is red. ",
    "pronouns": "She wears a hat. ",
    "owners": "a man with his hat and ",
    "quotes": '"a" ',
    "ellipsis": "two cars, one red and ",
    "predicates": "the cat is red and ",
    "networks": "<lora:",
    "style": "4k, by greg, ",
    "lines": "a cat\n",
    "negations": "no cats, ",
    "flags": "--ar ",
    "signs": "a++ ",
    "scenes": "in a forest, ",
    "verbs": "wearing ",
    "weights": "(a cat:1.2) ",
    "labels": "style: ",
    "foreign": "un chat noir, ",
    "choices": "{a|b} ",
    "turns": "[a:b:0.5] ",
}
LONG = 8_000
MOST = 3.0  # a square has 4; a load of the machine, or a memory that grows, shows between


def ratio(work, small, large):
    """How much longer the large one takes than the small one, half of it: the best of several tries of each."""

    def best(given):
        times = []
        for _ in range(3):
            start = time.process_time()
            work(given)
            times.append(time.process_time() - start)
        return min(times)

    work(small)
    quick, slow = best(small), best(large)
    return slow / max(quick, 0.01)  # less is noise, and no square


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_parsing_is_linear(piece):
    text = piece * (LONG // len(piece))
    assert ratio(parse_prompt, text[: LONG // 2], text) < MOST


@pytest.mark.parametrize("piece", ["(", "((a:1.1)", "a++ ", "[", "1.1::a:: "])
def test_weights_are_linear(piece):
    text = piece * (LONG // len(piece))
    nested = "(" * (LONG // 2) + "a" + ")" * (LONG // 2)
    assert ratio(read_weights, text[: LONG // 2], text) < MOST
    assert ratio(read_weights, "(" * (LONG // 4) + "a" + ")" * (LONG // 4), nested) < MOST


def test_what_shows_a_prompt_is_linear():
    small, large = (parse_prompt("a red cat, " * number) for number in (500, 1000))
    for work in (describe, explain, lambda prompt: describe(prompt, colour=True)):
        assert ratio(work, small, large) < MOST


def test_aligning_looks_at_what_is_read():
    tokenizer = tokenizers.first()
    small, large = (parse_prompt("a red cat, " * number) for number in (500, 1000))
    assert ratio(lambda prompt: align_tokens(prompt, tokenizer), small, large) < MOST


@pytest.mark.parametrize("text", ["red, " * 2000 + "cat", "(" * 5000 + "a" + ")" * 5000, "leg of a " * 2000 + "cat"])
def test_nothing_recurses(text):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(150 + len(__import__("inspect").stack()))
    try:
        prompt = parse_prompt(text)
    finally:
        sys.setrecursionlimit(limit)
    assert isinstance(prompt, Prompt)


def test_what_lies_beyond_is_global_and_said():
    prompt = parse_prompt("a red cube, " + "a cat, " * 3000 + "a blue sphere")
    assert prompt.entities[-1].span[1] <= 20_000
    assert "what lies beyond is global" in prompt.warnings[0]
