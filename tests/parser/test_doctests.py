"""The examples in the docstrings, found by the modules' attnmod names (a second name would load a second copy)."""

import doctest
import importlib

import pytest

from attnmod.parser.describe import outline
from attnmod.parser.grammar import STEPS, explain_rule
from attnmod.parser.syntax import parse_prompt

MODULES = (
    "abstract", "chunks", "describe", "escapes", "evidence", "explain", "grammar", "known", "languages", "links",
    "marks", "mentions", "notation", "nouns", "people", "places", "plurals", "predicates", "prompt", "readers",
    "repairs", "roles", "style", "syntax", "weights",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"attnmod.parser.{name}")
    # the rules' examples are written in the one-line notation
    names = {} if hasattr(module, "outline") else {"outline": lambda text: outline(parse_prompt(text))}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_rule_has_an_example_and_a_sentence():
    for step, rules in STEPS.items():
        for rule in rules:
            if step not in ("phrases", "the rest"):
                assert ">>> outline(" in (rule.__doc__ or ""), rule.__name__
            assert explain_rule(rule.__name__) != rule.__name__
