"""The examples in the docstrings, found by the modules' attnmod names (a second name would load a second copy)."""

import doctest
import importlib

import pytest

from attnmod.parser.describe import outline
from attnmod.parser.links import NESTING
from attnmod.parser.predicates import after_noun, predicate
from attnmod.parser.roles import ROLES
from attnmod.parser.syntax import parse_prompt
from attnmod.parser.words import REPAIRS

MODULES = ("chunks", "clean", "describe", "lexicon", "links", "predicates", "prompt", "roles", "syntax", "words")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"attnmod.parser.{name}")
    # the rules' examples are written in the one-line notation
    names = {} if hasattr(module, "outline") else {"outline": lambda text: outline(parse_prompt(text))}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_rule_has_an_example():
    for rule in (*REPAIRS, *ROLES, *NESTING, predicate, after_noun):
        assert ">>> outline(" in (rule.__doc__ or ""), rule.__name__
