"""The parser on the gold set: floors that were measured, and the set itself."""

import doctest
import json
import re
from collections import Counter

import pytest

from benchmarks import parser as benchmark

# F1 of bindings and entities as measured with spaCy 3.8's small English model, less 0.02 for another version of it
FLOORS = {
    ("development", "simple"): (0.97, 0.97),
    ("development", "hard"): (0.97, 0.97),
    ("held-out", "simple"): (0.98, 0.98),
    ("held-out", "hard"): (0.94, 0.95),
    ("blind", "simple"): (0.94, 0.97),
    ("blind", "hard"): (0.97, 0.97),
}


@pytest.fixture(scope="module")
def examples():
    return benchmark.read_gold()


@pytest.fixture(scope="module")
def rows(examples):
    return {(row["split"], row["kind"], row["provider"]): row for row in benchmark.measure(examples)}


@pytest.mark.parametrize(("group", "floors"), FLOORS.items(), ids=lambda value: "-".join(map(str, value)))
def test_floors(rows, group, floors):
    row = rows[*group, "attnmod"]
    assert row["bindings"].f1 >= floors[0]
    assert row["entities"].f1 >= floors[1]
    assert row["bindings"].f1 > rows[*group, "noun_chunks"]["bindings"].f1


def test_the_gold_set_is_sound(examples):
    assert len(examples) >= 200
    assert len({example.text for example in examples}) == len(examples)
    splits = Counter(example.split for example in examples)
    assert 0.29 <= splits["held-out"] / (splits["held-out"] + splits["development"]) <= 0.34
    assert splits["blind"] >= 60
    for example in examples:
        text = example.text.lower()
        for thing in example.things:
            assert thing.head.lower() in text, example
            for attribute in thing.attributes:
                assert attribute.lower() in text, example
        for _, words in example.phrases:
            for word in re.findall(r"[\w'-]+", words.lower()):
                assert word in text, example


def test_the_first_measurement_of_the_blind_draw_is_of_these_prompts(examples):
    """The kept figures count what is annotated in the files, kind by kind: not one annotation was changed since."""
    rows, commit = benchmark.read_first(benchmark.RESULTS / benchmark.FIRST)
    assert commit
    blind = [example for example in examples if example.split == "blind"]
    perfect = [benchmark.facts(example.things, example.phrases) for example in blind]
    for row in rows:
        kinds = {"simple": benchmark.SIMPLE, "hard": benchmark.HARD, "all": tuple({one.kind for one in blind})}
        members = kinds.get(row["kind"], (row["kind"],))
        chosen = [pair for pair in zip(blind, perfect, strict=True) if pair[0].kind in members]
        scores = benchmark.score(*zip(*chosen, strict=True))
        assert row["prompts"] == len(chosen)
        assert {fact: row[fact].gold for fact in benchmark.FACTS} == {fact: scores[fact].gold for fact in scores}


def test_a_draw_is_blind_once(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    (tmp_path / benchmark.FIRST).write_text("{}")
    with pytest.raises(FileExistsError, match="blind once"):
        benchmark.main(["--first"])


def test_a_perfect_answer_scores_one_and_none_scores_nothing(examples):
    perfect = [benchmark.facts(example.things, example.phrases) for example in examples]
    assert {score.f1 for score in benchmark.score(examples, perfect).values()} == {1.0}
    nothing = [benchmark.facts((), ()) for _ in examples]
    assert {score.f1 for score in benchmark.score(examples, nothing).values()} == {0.0}


def test_a_swapped_binding_costs():
    def facts(line):
        return benchmark.facts(*benchmark.read_annotation(line))

    example = benchmark.Example("x", "development", "", *benchmark.read_annotation("cat x1: red; cat x2: blue < cat"))
    score = benchmark.score([example], [facts("cat x1: blue; cat x2: blue")])
    assert score["bindings"] == (1, 2, 2)
    assert score["entities"].f1 == score["counts"].f1 == 1.0
    assert (score["parents"].precision, score["parents"].recall) == (1.0, 0.0)


@pytest.mark.parametrize("line", ["cat x1 x2", "[a scene: x]", "hat < girl", "cat: "])
def test_a_bad_annotation_is_named(line):
    with pytest.raises(ValueError, match=re.escape(line.strip()[:4])):
        benchmark.read_annotation(line)


def test_no_gold_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no gold set"):
        benchmark.read_gold(tmp_path)


def test_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    benchmark.main(["--kind", "spatial", "--save"])
    assert "| held-out | spatial |" in capsys.readouterr().out
    data = json.loads((tmp_path / "parser.json").read_text())
    assert data["times"]["single_ms"] > 0
    assert (tmp_path / "parser.md").read_text().startswith("F1")
    benchmark.main(["--failures", "development"])
    assert "bindings:" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmark.main(["--kind", "nothing"])


def test_examples():
    assert doctest.testmod(benchmark).failed == 0
