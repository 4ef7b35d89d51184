"""The examples in the docstrings, run under the modules' one true name."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["configs", "ops", "reference"])
def test_examples(name):
    results = doctest.testmod(importlib.import_module(f"attnmod.kernels.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
