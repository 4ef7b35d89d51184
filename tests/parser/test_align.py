"""Characters to token positions, with both SDXL tokenizers and with one that has no offsets."""

import json
import logging
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnmod.parser.align import align_tokens, load_tokenizer
from attnmod.parser.prompt import Prompt
from attnmod.parser.syntax import parse_prompt
from tests.parser import tokenizers_for_tests as tokenizers

TOKENIZERS = {"first": tokenizers.first, "second": tokenizers.second, "slow": tokenizers.Slow}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def owned(prompt, entity):
    """The texts of the tokens that an entity sees."""
    return [token.text for token in prompt.tokens if entity in token.entities]


def test_layout(tokenizer):
    prompt = align_tokens(Prompt.from_entities("a red cube!", ["a red cube"]), tokenizer)
    kinds = [token.kind for token in prompt.tokens]
    assert kinds == ["bos", "entity", "entity", "entity", "global", "eos", *["pad"] * 71]
    assert [token.index for token in prompt.tokens] == list(range(77))
    assert [token.text for token in prompt.tokens[:6]] == ["<|startoftext|>", "a", "red", "cube", "!", "<|endoftext|>"]
    assert prompt.tokens[-1].text == tokenizer.pad_token
    assert all(token.weight == 1.0 for token in prompt.tokens)
    assert prompt.warnings == ()


def test_positions_are_those_of_the_ids(tokenizer):
    text = "a red-haired woman's café, two cats!"
    ids = tokenizers.first()(text)["input_ids"]
    prompt = align_tokens(parse_prompt(text), tokenizer)
    assert sum(token.kind != "pad" for token in prompt.tokens) == len(ids)
    vocabulary = tokenizers.first()
    for token, number in zip(prompt.tokens, ids, strict=False):
        piece = vocabulary.convert_ids_to_tokens(number).replace("</w>", "")
        assert piece.isascii() is False or piece == token.text.lower()


def test_nested_tokens_are_visible_to_all_ancestors(tokenizer):
    prompt = align_tokens(parse_prompt("a boy wearing a red hat with a feather"), tokenizer)
    assert owned(prompt, 0) == ["a", "boy", "wearing", "a", "red", "hat", "with", "a", "feather"]
    assert owned(prompt, 1) == ["a", "red", "hat", "with", "a", "feather"]
    assert owned(prompt, 2) == ["a", "feather"]
    assert prompt.tokens[9].entities == (0, 1, 2)


def test_globals_inside_an_entity_stay_global(tokenizer):
    prompt = align_tokens(parse_prompt("a man in a dark forest wearing a red hat"), tokenizer)
    assert prompt.entities[0].text == "a man in a dark forest wearing a red hat"
    assert [token.text for token in prompt.tokens if token.kind == "global"] == ["in", "a", "dark", "forest"]
    assert owned(prompt, 0) == ["a", "man", "wearing", "a", "red", "hat"]


def test_negated_tokens_are_global(tokenizer):
    prompt = align_tokens(parse_prompt("a street with no red cars"), tokenizer)
    assert prompt.entities[1].negated
    assert owned(prompt, 0) == ["a", "street"]
    assert owned(prompt, 1) == []
    assert not any("no token" in warning for warning in prompt.warnings)


@pytest.mark.parametrize(
    ("text", "phrase", "pieces"),
    [
        ("a  red   cube", "red   cube", ["red", "cube"]),
        ("a\nred\n\tcube\n", "red\n\tcube", ["red", "cube"]),
        ("  a red cube", "red cube", ["red", "cube"]),
        ("A RED CUBE", "RED CUBE", ["RED", "CUBE"]),
        ("a Café here", "Café", ["Café"]),
        ("a cafe\u0301 here", "cafe\u0301", None),  # a letter and its accent become one
        ("İ red cube", "red cube", ["red", "cube"]),  # becomes longer in lower case
        ("a 🚗 and a red cube", "red cube", ["red", "cube"]),
        ("a 🚗", "🚗", ["🚗"]),
        ("a “red” cube", "“red” cube", None),
        ('say "red cube" now', "red cube", ["red", "cube"]),
        ("a red-haired woman", "red-haired", ["red", "-", "haired"]),
        ("a dog's collar", "dog's", ["dog", "'s"]),
        ("a tie-dye t-shirt", "t-shirt", ["t", "-", "shirt"]),
        ("red red bear", "red bear", ["red", "bear"]),
        ("a\u00a0red cube", "red cube", ["red", "cube"]),
        ("a red cube \ud800", "red cube", ["red", "cube"]),
        ("supercalifragilistic cube", "supercalifragilistic", None),
        ("hello <|endoftext|> red cube", "red cube", ["red", "cube"]),
    ],
    ids=lambda value: None,
)
def test_offsets_survive_what_clip_does_to_text(tokenizer, text, phrase, pieces):
    prompt = align_tokens(Prompt.from_entities(text, [phrase]), tokenizer)
    found = owned(prompt, 0)
    assert found, prompt.warnings
    if pieces is not None:
        assert found == pieces
    spaceless = "".join(prompt.text[slice(*prompt.entities[0].span)].split())
    assert set("".join(found)) <= set(spaceless)
    assert prompt.warnings == ()


def test_a_script_without_blanks():
    prompt = Prompt.from_entities("白い猫と犬", ["猫"])
    assert set(owned(align_tokens(prompt, tokenizers.first()), 0)) == {"猫"}
    # without offsets the whole run of letters is one piece, and a warning says so
    slow = align_tokens(prompt, tokenizers.Slow())
    assert owned(slow, 0) == []
    assert any("no token lies wholly inside" in warning for warning in slow.warnings)


def test_repeated_words_go_to_their_own_entity(tokenizer):
    prompt = align_tokens(parse_prompt("two cats, two cats and red red bears"), tokenizer)
    positions = [[token.index for token in prompt.tokens if entity.id in token.entities] for entity in prompt.entities]
    assert positions == [[1, 2], [4, 5], [7, 8, 9]]


def test_a_literal_pad_sign_is_no_padding():
    prompt = align_tokens(parse_prompt("a red cube! ! !"), tokenizers.second())
    assert [token.kind for token in prompt.tokens].index("eos") == 7
    assert [token.text for token in prompt.tokens[4:7]] == ["!"] * 3


def test_a_word_cut_by_a_span_is_global_with_a_warning(tokenizer):
    prompt = align_tokens(Prompt.from_entities("a cube", [(2, 4)]), tokenizer)
    assert owned(prompt, 0) == []
    assert any("no token lies wholly inside" in warning and "'cu'" in warning for warning in prompt.warnings)


def test_empty_prompt(tokenizer):
    prompt = align_tokens(parse_prompt(""), tokenizer)
    assert [token.kind for token in prompt.tokens] == ["bos", "eos", *["pad"] * 75]


# -- truncation -------------------------------------------------------------------------------------------------------


def test_truncation(tokenizer):
    prompt = parse_prompt("a red cube, a blue sphere and a green cone")
    cut = align_tokens(prompt, tokenizer, length=8)
    assert [token.kind for token in cut.tokens] == [
        "bos", "entity", "entity", "entity", "global", "entity", "entity", "eos",
    ]  # fmt: skip
    assert cut.entities == prompt.entities
    assert (owned(cut, 1), owned(cut, 2)) == (["a", "blue"], [])
    halved, dropped = cut.warnings[-2:]
    assert "cut in half" in halved
    assert "'a blue sphere'" in halved
    assert "cut off" in dropped
    assert "'a green cone'" in dropped


def test_a_whole_prompt_has_no_truncation_warning(tokenizer):
    text = " ".join(["cat"] * 75)
    assert align_tokens(Prompt(text), tokenizer).warnings == ()
    assert len(align_tokens(Prompt(text + " cat"), tokenizer).warnings) == 1


@pytest.mark.parametrize("length", [2, 3, 77, 154])
def test_length(tokenizer, length):
    prompt = align_tokens(parse_prompt("a red cube, a blue sphere"), tokenizer, length=length)
    assert len(prompt.tokens) == length
    assert [token.kind for token in prompt.tokens].count("eos") == 1


def test_ten_thousand_characters(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        prompt = align_tokens(parse_prompt("a red cat with a hat, " * 455), tokenizer)
    assert len(prompt.tokens) == 77
    assert prompt.tokens[76].kind == "eos"
    assert sum(map(len, prompt.warnings)) < 600
    assert not caplog.records  # neither does transformers complain by its own ways


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_no_room(tokenizer, length):
    with pytest.raises(ValueError, match=f"length is {length}: it must be at least 2"):
        align_tokens(parse_prompt("a cat"), tokenizer, length=length)


@pytest.mark.parametrize("length", [7.0, "77", True])
def test_length_is_an_integer(length):
    with pytest.raises(TypeError, match="length is"):
        align_tokens(parse_prompt("a cat"), tokenizers.first(), length=length)


def test_only_prompts():
    with pytest.raises(TypeError, match="prompt is a str"):
        align_tokens("a cat", tokenizers.first())


def test_aligning_again_changes_nothing(tokenizer):
    once = align_tokens(parse_prompt("a red cube without a blue sphere"), tokenizer, length=6)
    assert align_tokens(once, tokenizer, length=6) == once


def test_a_tokenizer_without_bos_and_offsets_of_numpy_kind():
    class Words:
        """Whole words and an eos, as T5's family has it."""

        eos_token, eos_token_id, pad_token, bos_token_id = "</s>", 1, None, None

        def __call__(self, text, **_):
            words = text.split()
            ends = [text.index(word) + len(word) for word in words]
            spans = [[end - len(word), end] for word, end in zip(words, ends, strict=True)]
            return {"input_ids": [*range(5, 5 + len(words)), 1], "offset_mapping": [*spans, [0, 0]]}

    prompt = align_tokens(Prompt.from_entities("one red cube", ["red cube"]), Words(), length=6)
    assert [token.kind for token in prompt.tokens] == ["global", "entity", "entity", "eos", "pad", "pad"]


# -- properties -------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ("a", "the", "red", "blue", "cat", "dog", "hat", "with", "wearing", "in", "and", "no", "two", "of", "'s", ",", ".",
     "!", "don't", "t-shirt", "café", "cafe\u0301", "\u0130", "\n", "\u00a0", "\U0001f697", "\u732b", "\u201cx\u201d",
     "<|endoftext|>", "\ud800", ""),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join), st.sampled_from([2, 5, 20, 77]))
def test_properties(text, length):
    prompt = parse_prompt(text)
    aligned = {name: align_tokens(prompt, make(), length=length) for name, make in TOKENIZERS.items()}
    assert aligned["first"].warnings == aligned["second"].warnings
    for name, one in aligned.items():
        assert len(one.tokens) == length
        kinds = [token.kind for token in one.tokens]
        end = kinds.index("eos")
        assert kinds[0] == "bos"
        assert set(kinds[1:end]) <= {"entity", "global"}
        assert set(kinds[end + 1 :]) <= {"pad"}
        for token in one.tokens:
            for entity in token.entities:
                assert any(token.text in one.text[slice(*span)] for span in one.entities[entity].spans)
                assert not one.entities[entity].negated
                assert set(one.ancestors(entity)) <= set(token.entities)
        if name != "slow" and len(tokenizers.first()(tokenizable(text))["input_ids"]) <= length:
            # nothing but blanks is lost: the tokens' characters are those of the text
            covered = {character for token in one.tokens[1:end] for character in token.text}
            assert covered >= {c for c in text if c.isalnum()}
    # without offsets tokens may share a wider slice, but they never go to an entity that the offsets deny
    for slow, fast in zip(aligned["slow"].tokens, aligned["first"].tokens, strict=True):
        assert set(slow.entities) <= set(fast.entities)


def tokenizable(text):
    return text.replace("\ud800", "\ufffd")


def test_slow_and_fast_agree_on_plain_words():
    for text in ("a red-haired woman's hat, 3 cats and a café", "two cats, two cats", "a girl wearing a t-shirt"):
        prompt = parse_prompt(text)
        assert align_tokens(prompt, tokenizers.Slow()) == align_tokens(prompt, tokenizers.first())


# -- loading ----------------------------------------------------------------------------------------------------------


def test_load_tokenizer():
    tokenizer = load_tokenizer(str(tokenizers.CLIP_BPE))
    assert tokenizer.model_max_length == 77
    assert tokenizer("a cat")["input_ids"] == [49406, 320, 2368, 49407]


def test_load_tokenizer_reads_its_config(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(tokenizers.CLIP_BPE / name)
    config = {"tokenizer_class": "CLIPTokenizer", "pad_token": "!", "model_max_length": 77}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("!", 0)
    assert len(align_tokens(parse_prompt("a cat"), tokenizer).tokens) == 77


def test_load_tokenizer_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer folder at"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no vocab\.json and no merges\.txt"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has no merges\.txt"):
        load_tokenizer(tmp_path)


def test_imports_stay_light():
    """Hand-built prompts and alignment load neither torch nor spaCy; transformers only to load a tokenizer."""
    code = f"""
        import sys
        import attnmod.parser.prompt, attnmod.parser.align, attnmod.parser.describe
        def loaded():
            return [name for name in ("torch", "spacy", "transformers", "diffusers") if name in sys.modules]
        prompt = attnmod.parser.prompt.Prompt.from_entities("a red cube and a dog", ["a red cube"])
        assert loaded() == [], loaded()
        tokenizer = attnmod.parser.align.load_tokenizer({str(tokenizers.CLIP_BPE)!r})
        prompt = attnmod.parser.align.align_tokens(prompt, tokenizer)
        assert [token.entities for token in prompt.tokens[:5]] == [(), (0,), (0,), (0,), ()]
        attnmod.parser.describe.describe(prompt)
        assert loaded() == ["transformers"], loaded()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=tokenizers.CLIP_BPE.parents[2])


def test_a_folder_with_one_file(tmp_path):
    whole = load_tokenizer(tokenizers.CLIP_BPE)
    whole.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    one = load_tokenizer(tmp_path)
    text = "a red cube"
    assert one(text)["input_ids"] == whole(text)["input_ids"]
    assert align_tokens(parse_prompt(text), one) == align_tokens(parse_prompt(text), whole)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="no tokenizer can be made of .*" + tmp_path.name):
        load_tokenizer(tmp_path)
