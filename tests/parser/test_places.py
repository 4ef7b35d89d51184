"""The option `places`: what cannot be told apart by grammar is the user's choice."""

import pytest

from attnmod.parser.describe import outline
from attnmod.parser.syntax import parse_prompt, parse_prompts

SAID = {
    "a cat in a green forest at night": {
        "auto": "cat x1; [scene: in a green forest]; [scene: at night]",
        "scene": "cat x1; [scene: in a green forest]; [scene: at night]",
        "entity": "cat x1; forest x1: green; [relation: in]; [scene: at night]",
    },
    "a castle near a lake": {
        "auto": "castle x1; lake x1; [relation: near]",
        "scene": "castle x1; [scene: near a lake]",
        "entity": "castle x1; lake x1; [relation: near]",
    },
    "a cat, river, city": {
        "auto": "cat x1; river; [scene: city]",
        "scene": "cat x1; [scene: river]; [scene: city]",
        "entity": "cat x1; river; city",
    },
}
CASES = [(text, places, said) for text, readings in SAID.items() for places, said in readings.items()]


@pytest.mark.parametrize(("text", "places", "said"), CASES)
def test_places(text, places, said):
    assert outline(parse_prompt(text, places=places)) == said
    assert parse_prompts([text], places=places) == [parse_prompt(text, places=places)]


def test_auto_is_the_default():
    assert all(parse_prompt(text) == parse_prompt(text, places="auto") for text in SAID)


def test_other_choices_are_named():
    with pytest.raises(ValueError, match="places is 'thing': it must be one of auto, scene, entity"):
        parse_prompt("a cat", places="thing")
