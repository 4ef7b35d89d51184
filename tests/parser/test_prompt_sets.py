"""Bindings on whole prompt sets: every prompt of the plain pattern "a C1 X and a C2 Y", against that pattern.

The floors are what was measured (444 of 444 on CC-500, 236 of 236 on the colour kind of T2I-CompBench), less two
prompts each, since another version of spaCy or its model may tag a word otherwise.
"""

import re
from pathlib import Path

import pytest

from attnmod.parser.syntax import parse_prompts

PROMPTS = Path(__file__).parents[1] / "data" / "prompts"
SIDE = r"(?:an?|the) ((?:\w+ ){1,2})(\w+)"
PATTERN = re.compile(rf"{SIDE} and {SIDE}", re.IGNORECASE)


@pytest.mark.parametrize(("name", "matching", "floor"), [("cc500", 444, 442), ("t2i_compbench_color_val", 236, 234)])
def test_two_coloured_things(name, matching, floor):
    lines = (PROMPTS / f"{name}.txt").read_text().splitlines()
    matches = [match for line in lines if (match := PATTERN.fullmatch(line.strip()))]
    assert len(matches) == matching
    wrong = []
    for match, prompt in zip(matches, parse_prompts([match[0] for match in matches]), strict=True):
        found = [(entity.head, entity.attributes, entity.count, entity.parent) for entity in prompt.entities]
        first, second = (match[2], tuple(match[1].split())), (match[4], tuple(match[3].split()))
        if found != [(*first, 1, None), (*second, 1, None)]:
            wrong.append((match[0], found))
    assert matching - len(wrong) >= floor, wrong


@pytest.mark.parametrize("name", ["cc500", "t2i_compbench_color_val"])
def test_every_line_gives_entities(name):
    lines = (PROMPTS / f"{name}.txt").read_text().splitlines()
    for prompt in parse_prompts(lines):
        assert len(prompt.entities) >= 1 or not prompt.text.strip(), prompt.text
