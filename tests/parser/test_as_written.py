"""Prompts as people write them, each with its reading, gone through by hand: a change of any of them shows here.

`tests/data/readings.txt` has two lines a prompt: the text and, indented, its `outline`. They were written to find
faults (photographs, tags, relative clauses, lists, counts, owners, negations, places, texts on things, brands,
requests to a machine). What the parser still misreads was left out: this is a guard, the gold set is the measurement.
"""

from pathlib import Path

from attnmod.parser.describe import outline
from attnmod.parser.syntax import parse_prompts

READINGS = Path(__file__).parents[1] / "data" / "readings.txt"


def test_prompts_as_people_write_them():
    lines = READINGS.read_text(encoding="utf-8").splitlines()
    texts, readings = lines[::2], [line.strip() for line in lines[1::2]]
    assert len(texts) == len(set(texts)) >= 300
    assert all(line.startswith("  ") for line in lines[1::2])
    changed = {
        text: (outline(prompt), reading)
        for text, reading, prompt in zip(texts, readings, parse_prompts(texts), strict=True)
        if outline(prompt) != reading
    }
    assert changed == {}
