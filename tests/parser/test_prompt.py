"""The data classes: the JSON schema both ways, what is refused and how, and prompts made by hand."""

import json
import re
from dataclasses import FrozenInstanceError, replace

import pytest

from attnmod.parser.prompt import Entity, Phrase, Prompt, Token

TEXT = "a boy wearing a red hat at night, no cars"
PROMPT = Prompt(
    text=TEXT,
    entities=(
        Entity(0, "a boy wearing a red hat", (0, 23), "boy", (), 1, None, False, "noun_phrase"),
        Entity(1, "a red hat", (14, 23), "hat", ("red",), 1, 0, False, "worn"),
        Entity(2, "no cars", (34, 41), "cars", (), None, None, True, "negation"),
    ),
    globals=(Phrase("at night", (24, 32), "scene"),),
    warnings=("put 'cars' into the negative prompt",),
    tokens=(
        Token(0, "<|startoftext|>", "bos"),
        Token(1, "hat", "entity", (0, 1), 1.5),
        Token(2, "cars", "global"),
        Token(3, "<|endoftext|>", "eos"),
        Token(4, "!", "pad"),
    ),
)


def test_schema():
    assert PROMPT.to_dict() == {
        "text": TEXT,
        "warnings": ["put 'cars' into the negative prompt"],
        "entities": [
            {
                "id": 0,
                "text": "a boy wearing a red hat",
                "span": [0, 23],
                "head": "boy",
                "attributes": [],
                "count": 1,
                "parent": None,
                "negated": False,
                "rule": "noun_phrase",
            },
            {
                "id": 1,
                "text": "a red hat",
                "span": [14, 23],
                "head": "hat",
                "attributes": ["red"],
                "count": 1,
                "parent": 0,
                "negated": False,
                "rule": "worn",
            },
            {
                "id": 2,
                "text": "no cars",
                "span": [34, 41],
                "head": "cars",
                "attributes": [],
                "count": None,
                "parent": None,
                "negated": True,
                "rule": "negation",
            },
        ],
        "globals": [{"text": "at night", "span": [24, 32], "kind": "scene"}],
        "tokens": [
            {"index": 0, "text": "<|startoftext|>", "kind": "bos", "entities": [], "weight": 1.0},
            {"index": 1, "text": "hat", "kind": "entity", "entities": [0, 1], "weight": 1.5},
            {"index": 2, "text": "cars", "kind": "global", "entities": [], "weight": 1.0},
            {"index": 3, "text": "<|endoftext|>", "kind": "eos", "entities": [], "weight": 1.0},
            {"index": 4, "text": "!", "kind": "pad", "entities": [], "weight": 1.0},
        ],
    }


def test_round_trip():
    assert Prompt.from_dict(PROMPT.to_dict()) == PROMPT
    assert Prompt.from_json(PROMPT.to_json(indent=2)) == PROMPT
    assert Prompt.from_json(Prompt("\ud800 ü").to_json()).text == "\ud800 ü"
    assert hash(Prompt.from_dict(PROMPT.to_dict())) == hash(PROMPT)


def test_short_json_has_defaults():
    prompt = Prompt.from_dict({"text": "cat", "entities": [{"id": 0, "text": "cat", "span": [0, 3], "head": "cat"}]})
    assert prompt == Prompt("cat", (Entity(0, "cat", (0, 3), "cat"),))
    assert prompt.entities[0].rule == "given"


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        PROMPT.text = "other"
    assert replace(PROMPT, warnings=()).warnings == ()


def test_family():
    assert PROMPT.ancestors(1) == (0,)
    assert PROMPT.children(0) == (PROMPT.entities[1],)
    assert [entity.id for entity in PROMPT.roots()] == [0, 2]
    assert PROMPT.owner(0, 1) == 0
    assert PROMPT.owner(16, 19) == 1
    assert PROMPT.owner(24, 26) is None  # a scene
    assert PROMPT.owner(37, 41) is None  # negated
    assert PROMPT.owner(12, 16) == 0  # over the edge of the hat, a child of the boy
    assert Prompt.from_entities("the car beside a dog is red", [["the car", "red"], "a dog"]).owner(16, 22) is None


def test_of_equal_spans_the_innermost_entity_owns():
    twins = Prompt("cat", (Entity(0, "cat", (0, 3), "cat"), Entity(1, "cat", (0, 3), "cat", parent=0)))
    assert twins.owner(0, 3) == 1
    assert Prompt("cat", (Entity(0, "cat", (0, 3), "cat"),), (Phrase("cat", (0, 3)),)).owner(0, 3) == 0


def changed(path, value):
    """The JSON object of PROMPT with one value changed (or removed, for ...)."""
    data = json.loads(PROMPT.to_json())
    *way, last = path
    place = data
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


BAD = [
    (("text",), 3, "Prompt.text is 3: it must be a string"),
    (("text",), ..., "prompt lacks text: it has warnings, entities"),
    (("text",), "a boy", "Prompt.entities[0].span is (0, 23): the text has 5 characters"),
    (("extra",), 1, "prompt has the unknown key extra: allowed are text, warnings, entities, globals, tokens"),
    (("warnings",), "one", "prompt.warnings is 'one': it must be a list"),
    (("warnings",), [1], "Prompt.warnings is (1,): it must be a tuple of strings"),
    (("entities",), {}, "prompt.entities is {}: it must be a list"),
    (("entities", 0), 7, "entities[0] is 7: it must be an object with the keys id, text, span, head"),
    (("entities", 0, "head"), ..., "entities[0] lacks head"),
    (("entities", 0, "colour"), "red", "entities[0] has the unknown key colour"),
    (("entities", 0, "id"), 5, "Prompt.entities[0].id is 5: ids must be 0, 1, 2, ... in order, here 0"),
    (("entities", 0, "id"), True, "Entity.id is True: it must be an integer of at least 0"),
    (("entities", 0, "text"), "a girl", "Prompt.entities[0].text is 'a girl': the text at (0, 23) is"),
    (("entities", 0, "span"), [5, 5], "entities[0].span is (5, 5): it must be (start, end) with 0 <= start < end"),
    (("entities", 0, "span"), [-1, 5], "0 <= start < end"),
    (("entities", 0, "span"), [0, 1.5], "0 <= start < end"),
    (("entities", 0, "span"), "0-5", "entities[0].span is '0-5': it must be a list"),
    (("entities", 0, "attributes"), "red", "entities[0].attributes is 'red': it must be a list"),
    (("entities", 0, "attributes"), [3], "Entity.attributes is (3,): it must be a tuple of strings"),
    (("entities", 0, "count"), -1, "Entity.count is -1: it must be an integer of at least 0, or None"),
    (("entities", 0, "count"), 1.0, "Entity.count is 1.0"),
    (("entities", 1, "parent"), 1, "a parent's id must be lower than its child's"),
    (("entities", 0, "parent"), 2, "a parent's id must be lower than its child's"),
    (("entities", 2, "parent"), 1, "Prompt.entities[2].span is (34, 41): it must lie inside (14, 23)"),
    (("entities", 0, "negated"), 0, "Entity.negated is 0: it must be true or false"),
    (("globals", 0, "kind"), "mood", "Phrase.kind is 'mood': it must be one of relation, action, scene, style, other"),
    (("globals", 0, "text"), "at noon", "Prompt.globals[0].text is 'at noon'"),
    (("tokens", 0, "kind"), "start", "Token.kind is 'start': it must be one of bos, entity, global, eos, pad"),
    (("tokens", 0, "index"), 1, "Prompt.tokens[0].index is 1: it must be its position, 0"),
    (("tokens", 1, "entities"), [3], "Prompt.tokens[1].entities is (3,): the prompt has 3 entities"),
    (("tokens", 1, "entities"), [1, 0], "Token.entities is (1, 0): ids must ascend, each once"),
    (("tokens", 1, "entities"), [], "tokens of kind 'entity' have entities, others have none"),
    (("tokens", 2, "entities"), [0], "tokens of kind 'entity' have entities, others have none"),
    (("tokens", 1, "weight"), -0.5, "tokens[1].weight is -0.5: it must be a finite number of at least 0"),
    (("tokens", 1, "weight"), float("nan"), "weight is nan"),
    (("tokens", 1, "weight"), "2", "weight is '2'"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=lambda value: None)
def test_bad_json_is_named(path, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Prompt.from_dict(changed(path, value))


@pytest.mark.parametrize("text", ["", "{", "[1]", '"a cat"', "null"])
def test_not_a_prompt_in_json(text):
    with pytest.raises(ValueError, match="prompt"):
        Prompt.from_json(text)


def test_constructor_wants_tuples():
    with pytest.raises(ValueError, match="must be a tuple of Entity"):
        Prompt("cat", [Entity(0, "cat", (0, 3), "cat")])


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_from_phrases():
    prompt = Prompt.from_entities("a red cube and two blue spheres", [["a red cube"], ["two blue spheres"]])
    assert [(e.text, e.head, e.attributes, e.count, e.parent) for e in prompt.entities] == [
        ("a red cube", "cube", ("red",), 1, None),
        ("two blue spheres", "spheres", ("blue",), 2, None),
    ]
    assert prompt.globals == ()
    assert all(entity.rule == "given" for entity in prompt.entities)


def test_from_spans_and_single_phrases():
    text = "a red cube and a blue sphere"
    given = Prompt.from_entities(text, [(0, 10), "a blue sphere"])
    assert given == Prompt.from_entities(text, [["a red cube"], [(15, 28)]])


def test_repeated_phrases_take_the_next_place():
    prompt = Prompt.from_entities("a cat, a cat and a cat", ["a cat", "a cat"])
    assert [entity.span for entity in prompt.entities] == [(0, 5), (7, 12)]
    with pytest.raises(ValueError, match="the text has it 3 times, and all are used"):
        Prompt.from_entities("a cat, a cat and a cat", ["a cat"] * 4)


def test_words_between_the_phrases_of_one_entity_stay_global():
    prompt = Prompt.from_entities("the car parked there is red", [["the car", "red"]])
    assert prompt.entities[0].span == (0, 27)
    assert prompt.entities[0].attributes == ("red",)
    assert [(phrase.text, phrase.kind) for phrase in prompt.globals] == [("parked there is", "other")]
    assert prompt.owner(8, 14) is None
    assert prompt.owner(24, 27) == 0


def test_nested_by_hand():
    text = "a boy wearing a red hat and a dog"
    prompt = Prompt.from_entities(text, ["a boy wearing a red hat", "red hat", "a dog"])
    assert [entity.parent for entity in prompt.entities] == [None, 0, None]
    between = Prompt.from_entities("the car beside a dog is red", [["the car", "red"], "a dog"])
    assert [entity.parent for entity in between.entities] == [None, None]
    assert between.owner(17, 20) == 1


def test_whole_words_in_any_case_and_other_scripts():
    prompt = Prompt.from_entities("a scarf, A  Car and 白い猫と犬", ["a car", "猫"])
    assert [entity.text for entity in prompt.entities] == ["A  Car", "猫"]


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        (["a green cube"], "entities[0][0] is 'a green cube': it is not in the text 'a red cube"),
        ([["a red cube", "cub"]], "entities[0][1] is 'cub': it is not in the text"),
        ([""], "a phrase needs at least one word"),
        ([[]], "entities[0] is []: it must be a list of phrases or (start, end) spans, at least one"),
        ([7], "entities[0] is 7"),
        ([[7]], "entities[0][0] is 7: it must be a phrase of the text or a (start, end) span"),
        ("a red cube", "entities is 'a red cube': it must be a list"),
        (7, "entities is 7"),
        ([(5, 99)], "entities[0][0] is (5, 99): the text has 28 characters"),
        ([(5, 5)], "0 <= start < end"),
        (["cube", "a red cube"], "entities[0] lies inside entities[1]: give the outer entity first"),
        ([(0, 10), (6, 20)], "overlaps"),
        ([(0, 10), (0, 10)], "overlaps"),
        ([["red", "blue"], ["cube", "sphere"]], "overlaps"),
    ],
    ids=lambda value: None,
)
def test_bad_entities_are_named(entities, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Prompt.from_entities("a red cube and a blue sphere", entities)


def test_text_must_be_a_string():
    with pytest.raises(ValueError, match="text is None"):
        Prompt.from_entities(None, [])
