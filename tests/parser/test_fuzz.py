"""Any text at all: the parser never raises, and what it returns is sound."""

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from attnmod.parser import lexicon
from attnmod.parser.describe import describe, outline
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt

EXAMPLES = int(os.environ.get("ATTNMOD_FUZZ", "250"))  # the nightly run sets 5000

# random characters seldom make a sentence: the words of the rules in random order reach the rules
GRAMMAR = sorted({word for value in vars(lexicon).values() if isinstance(value, frozenset) for word in value})
SMALL = "a a a an the the and and or , , . of of with in on at 's is are that which who not no without ' \" ( ) : ; -"
SPICE = [
    "(",
    ":1.2)",
    "++",
    " BREAK ",
    "🚗",
    "猫",
    "é",
    "\n",
    "\t",
    "  ",
    "\ud800",
    "[",
    "<lora:x:1>",
    "1girl",
    "4k",
    "--no",
    "{a|b}",
]
WORDS = st.one_of(st.sampled_from(SMALL.split()), st.sampled_from(GRAMMAR), st.sampled_from(SPICE))
# lone surrogates too: a Python string may hold them
CHARACTERS = st.characters(exclude_categories=())


def check(text):
    prompt = parse_prompt(text)
    assert prompt.text == text
    for number, entity in enumerate(prompt.entities):
        start, end = entity.span
        assert entity.id == number
        assert 0 <= start < end <= len(text)
        assert text[start:end] == entity.text
        assert entity.rule
        if entity.parent is not None:
            outer = prompt.entities[entity.parent]
            assert outer.id < entity.id
            assert any(low <= start and end <= high for low, high in outer.spans)
        if entity.negated:
            assert entity.parent is None
        assert entity.head in text  # "two green and one grey parrot": the noun may stand outside the span
        said = [text[slice(*span)] for span in entity.spans]
        assert all(any(attribute in one for one in said) or len(prompt.entities) > 1 for attribute in entity.attributes)
    for phrase in prompt.globals:
        assert text[slice(*phrase.span)] == phrase.text
        assert phrase.text.strip() == phrase.text
    starts = [phrase.span for phrase in prompt.globals]
    assert starts == sorted(starts)
    assert all(before[1] <= after[0] for before, after in pairwise(starts))
    assert Prompt.from_json(prompt.to_json()) == prompt
    assert describe(prompt)
    assert isinstance(outline(prompt), str)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(CHARACTERS, max_size=60))
def test_any_characters(text):
    check(text)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(WORDS, max_size=25).map(" ".join))
def test_any_words(text):
    check(text)
