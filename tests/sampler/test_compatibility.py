"""The table of what works with what is the one that the tests make, and every line of it has a test that runs."""

import inspect
import sys

import pytest

from tests.sampler import test_matrix
from tests.sampler.compatibility import FILE, REFUSED, TABLE, TOLD, UNKNOWN, WORKS, Line, markdown, where

LINES = [line for lines in TABLE.values() for line in lines]


def test_the_committed_table_is_this_one():
    assert FILE.read_text(encoding="utf-8") == markdown(), "run python -m tests.sampler.compatibility"


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.case)
def test_each_line_is_shown_by_tests_or_unknown(line: Line):
    assert line.status in (WORKS, REFUSED, TOLD, UNKNOWN)
    assert bool(line.proofs) == (line.status != UNKNOWN)
    if line.status == UNKNOWN:
        assert line.note, "what is unknown says why"
    for proof in line.proofs:
        module = sys.modules[proof.__module__]
        assert proof.__name__.startswith("test_"), "or pytest would not collect it"
        assert getattr(module, proof.__name__) is proof, "another test of the same name hides it"
        marks = {mark.name for mark in getattr(proof, "pytestmark", [])}
        assert not marks & {"skip", "skipif", "xfail"}, where(proof)
        source = inspect.getsource(inspect.unwrap(proof))
        if line.status == REFUSED:
            assert "pytest.raises" in source, f"{where(proof)} shows no refusal"
        if line.status == TOLD:
            assert "pytest.warns" in source or "pytest.raises(UserWarning" in source, f"{where(proof)} shows no warning"


def test_no_case_is_told_twice():
    assert len({line.case for line in LINES}) == len(LINES)


def test_the_pairs_are_the_parameters_of_their_test():
    marks = {mark.args[0]: list(mark.args[1]) for mark in test_matrix.test_pair.pytestmark}
    assert marks == {"make": list(test_matrix.PIPELINES), "tool": list(test_matrix.TOOLS)}
