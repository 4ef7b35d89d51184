"""One thing, several mentions; and what belongs to the only person."""

import pytest

from attnmod.parser.align import align_tokens
from attnmod.parser.describe import describe, outline
from attnmod.parser.prompt import Entity, Prompt
from attnmod.parser.syntax import parse_prompt
from tests.parser import tokenizers_for_tests as tokenizers

KETTLE = "A copper kettle stands on a stove. The kettle has a black handle."


def entities(text):
    return "; ".join(part for part in outline(parse_prompt(text)).split("; ") if not part.startswith("["))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (KETTLE, "kettle x1: copper; handle x1: black < kettle; stove x1"),
        (
            "A painter sits in a garden. She wears a straw hat. Her dog is white.",
            "painter x1; hat x1: straw < painter; dog x1: white < painter",
        ),
        (
            "an old clerk in a corridor, his glasses resting on his nose",
            "clerk x1: old; glasses < clerk; nose x1 < clerk",
        ),
        ("a clear case contains pens, its lid open", "case x1: clear; pens < case; lid x1: open < case"),
        ("A red car and a blue car. The red car has a flag.", "car x1: red; flag x1 < car; car x1: blue"),
        ("cat, black cat, yellow eyes", "cat: black; eyes: yellow < cat"),
        ("1girl, elf, long hair, blonde hair, holding sword", "girl x1; hair: long, blonde < girl; sword < girl"),
        ("2girls, red hair, blue dress", "girls x2; hair: red; dress: blue"),
        ("a hat on a chair, a boy", "hat x1; chair x1; boy x1"),
    ],
)
def test_reading(text, said):
    assert entities(text) == said


def test_spans_and_tokens_are_in_both_places():
    prompt = align_tokens(parse_prompt(KETTLE), tokenizers.first())
    kettle = prompt.entities[0]
    assert kettle.span == kettle.spans[0] == (0, 15)
    assert [KETTLE[slice(*span)] for span in kettle.spans] == ["A copper kettle", "The kettle has a black handle"]
    seen = [token.text for token in prompt.tokens if 0 in token.entities]
    assert seen == ["A", "copper", "kettle", "The", "kettle", "has", "a", "black", "handle"] or seen == [
        word.lower() for word in ("A", "copper", "kettle", "The", "kettle", "has", "a", "black", "handle")
    ]
    assert Prompt.from_json(prompt.to_json()) == prompt
    assert "spans" not in parse_prompt("a cat").to_dict()["entities"][0]
    assert 'also "The kettle has a black handle"' in describe(prompt)


def test_two_that_are_equally_likely_are_neither():
    prompt = parse_prompt("A red car and a blue car. The car has a flag.")
    assert [entity.head for entity in prompt.entities if entity.parent is None] == ["car", "car", "flag"]
    assert any("'The car' can mean" in warning for warning in prompt.warnings)
    prompt = parse_prompt("A nurse and a doctor. Her hat is white.")
    assert all(entity.parent is None for entity in prompt.entities)
    assert any("neither was taken" in warning for warning in prompt.warnings)


@pytest.mark.parametrize(
    ("spans", "named"),
    [
        (((3, 6), (0, 2)), "must begin with the entity's span"),
        (((0, 2), (1, 4)), "must not overlap"),
        ([(0, 2)], "must be a tuple"),
        (((0, 2), (6, 5)), "0 <= start < end"),
    ],
)
def test_bad_mentions_are_named(spans, named):
    with pytest.raises(ValueError, match=named):
        Entity(0, "ab", (0, 2), "ab", spans=spans)
    with pytest.raises(ValueError, match="the text has 6 characters"):
        Prompt("ab cde", (Entity(0, "ab", (0, 2), "ab", spans=((0, 2), (3, 9))),))
