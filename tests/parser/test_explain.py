"""Which word went where."""

import pytest

from attnmod.parser.explain import explain, place_words
from attnmod.parser.prompt import Entity, Prompt
from attnmod.parser.syntax import parse_prompt

TEXT = "a girl's red hat and no cars at night"


def test_every_word_is_placed_once():
    prompt = parse_prompt(TEXT)
    placed = [(TEXT[word.start : word.end], word.part, word.entity, word.kind) for word in place_words(prompt)]
    assert placed == [
        ("a", "word", 0, ""),
        ("girl", "head", 0, ""),
        ("'s", "word", 0, ""),
        ("red", "attribute", 1, ""),
        ("hat", "head", 1, ""),
        ("and", "nothing", None, ""),
        ("no", "negated", 2, ""),
        ("cars", "negated", 2, ""),
        ("at", "global", None, "scene"),
        ("night", "global", None, "scene"),
    ]


def test_the_account():
    assert explain(parse_prompt(TEXT)).splitlines() == [
        "a      belongs to entity 0 (girl)",
        "girl   entity 0 (girl), by noun_phrase",
        "'s     belongs to entity 0 (girl)",
        "red    attribute of entity 1 (hat)",
        "hat    entity 1 (hat), inside 0 (girl), by possessive",
        "and    connects; seen by every patch",
        "no     entity 2 (cars) is said to be absent; seen by every patch",
        "cars   entity 2 (cars) is said to be absent; seen by every patch",
        "at     scene: where or when the picture is, by scene; seen by every patch",
        "night  scene: where or when the picture is, by scene; seen by every patch",
        "",
        "rules:",
        "  noun_phrase  a noun with the words before it that describe it",
        "  possessive   the owner's part",
        '  negation     "no cars", "without a hat": named, marked, and visible to nobody in particular',
        '  scene        where and when the whole picture is: a place or a time after "in", "on", "at"',
    ]


def test_colours():
    assert "\x1b[38;5;" in explain(parse_prompt(TEXT), colour=True)
    assert "\x1b" not in explain(parse_prompt(TEXT))


def test_by_hand():
    prompt = Prompt.from_entities("a red-haired man, red, red", ["a red-haired man, red", "a"][:1])
    assert "entity 0 (red), by given" in explain(prompt)
    assert "given by hand" in explain(prompt)


def test_an_attribute_is_one_word():
    entity = Entity(0, "red red cube", (0, 12), "cube", ("red",))
    words = place_words(Prompt("red red cube", (entity,)))
    assert [word.part for word in words] == ["attribute", "word", "head"]


@pytest.mark.parametrize("text", ["", " ", "🚗", "\ud800", "!"])
def test_nothing_to_explain(text):
    assert explain(parse_prompt(text))


def test_the_last_of_equal_words_is_the_head():
    words = place_words(parse_prompt("a cat cat"))
    assert [word.part for word in words] == ["word", "attribute", "head"]
