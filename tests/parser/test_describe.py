"""The account that `attnmod parse` prints."""

import re

from attnmod.parser.align import align_tokens
from attnmod.parser.describe import describe, outline
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt
from tests.parser import tokenizers_for_tests as tokenizers

TEXT = "a girl with blue eyes wearing a red hat, no cars, at night"
PLAIN = """\
a girl with blue eyes wearing a red hat, no cars, at night

0 "a girl with blue eyes wearing a red hat"  head girl; count 1; rule noun_phrase
  ├─ 1 "blue eyes"  head eyes; attributes blue; rule with_part
  └─ 2 "a red hat"  head hat; attributes red; count 1; rule worn
3 "no cars"  head cars; negated; rule negation

seen by every patch:
  scene    "at night"

warning: a diffusion model does not read negations: put 'cars' into the negative prompt instead"""


def test_plain():
    assert describe(parse_prompt(TEXT)) == PLAIN


def test_tokens_in_stretches():
    text = describe(align_tokens(parse_prompt("a girl with a hat at night"), tokenizers.first()))
    assert text.endswith(
        """
tokens:
  0      bos
  1-3    entity 0     a girl with
  4-5    entity 0, 1  a hat
  6-7    global       at night
  8      eos
  9-76   pad"""
    )


def test_deeper_trees_are_drawn_below_their_parents():
    lines = describe(parse_prompt("a man wearing a hat with a feather, holding a cup")).splitlines()[2:]
    assert [re.sub(r'".*', "", line) for line in lines[:4]] == ["0 ", "  ├─ 1 ", "  │    └─ 2 ", "  └─ 3 "]


def test_colour_adds_nothing_but_colour():
    prompt = align_tokens(parse_prompt(TEXT), tokenizers.second())
    painted = describe(prompt, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == describe(prompt)
    first_line = painted.splitlines()[0]
    girl, eyes, hat = (re.search(rf"\x1b\[38;5;(\d+)m{words}", first_line)[1] for words in ("a girl", "blue", "a red"))
    assert len({girl, eyes, hat}) == 3
    assert re.search(rf"\x1b\[38;5;{hat}m2 \"a red hat\"", painted)
    assert first_line.endswith("\x1b[0m, no cars, at night")


def test_nothing_found():
    assert describe(parse_prompt("")) == "(empty prompt)\n\nno entities: nothing will be masked"


def test_every_colour_is_closed():
    painted = describe(Prompt.from_entities("a cat", ["a cat"]), colour=True)
    assert painted.splitlines()[0].endswith("\x1b[0m")


def test_outline():
    prompt = parse_prompt("a girl with blue eyes, no cars, at night")
    assert outline(prompt) == "girl x1; eyes: blue < girl; not cars; [scene: at night]"


def test_weights_are_shown():
    said = describe(parse_prompt("a (red hat:1.3) and a ball++", weights=True))
    assert 'weights: "red hat" 1.3, "ball" 1.21' in said
    assert "weights" not in describe(parse_prompt("a red hat"))
