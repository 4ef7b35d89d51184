"""Long prompts in chunks, learnt words of several vectors, and prompt_2."""

import pytest

from attnmod.parser.align import align_tokens, load_tokenizer
from attnmod.parser.prompt import Prompt
from attnmod.parser.second import join_second
from attnmod.parser.syntax import parse_prompt
from tests.parser import tokenizers_for_tests as tokenizers

LONG = "a red cube and a blue sphere, " * 12  # 96 tokens


# -- chunks


def reference_layout(ids, chunks):
    """What Compel and sd_embed hand to the text encoder: 75 ids at a time between bos and eos, eos as padding."""
    body = ids[1:-1]
    rows = []
    for number in range(chunks):
        row = [49406, *body[number * 75 : (number + 1) * 75], 49407]
        rows += row + [49407] * (77 - len(row))
    return rows


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_chunks_lie_as_compel_and_sd_embed_lay_them(chunks):
    tokenizer = tokenizers.first()
    ids = tokenizer(LONG, verbose=False)["input_ids"]
    prompt = align_tokens(parse_prompt(LONG), tokenizer, chunks=chunks)
    layout = reference_layout(ids, chunks)
    assert len(prompt.tokens) == len(layout) == 77 * chunks
    for token, number in zip(prompt.tokens, layout, strict=True):
        if token.kind in ("entity", "global"):
            assert tokenizer.convert_ids_to_tokens(number).replace("</w>", "") == token.text
        else:
            assert number == (49406 if token.kind == "bos" else 49407)
    assert [token.index for token in prompt.tokens if token.kind == "bos"] == [77 * n for n in range(chunks)]
    assert any("reads" in warning for warning in prompt.warnings) == (chunks == 1)


@pytest.mark.parametrize("tokenizer", [tokenizers.first(), tokenizers.Slow()], ids=["fast", "slow"])
def test_as_many_chunks_as_it_needs(tokenizer):
    prompt = parse_prompt(LONG)
    assert len(align_tokens(prompt, tokenizer, chunks=None).tokens) == 154
    assert len(align_tokens(parse_prompt("a cat"), tokenizer, chunks=None).tokens) == 77
    assert len(align_tokens(parse_prompt(""), tokenizer, chunks=None).tokens) == 77
    assert align_tokens(prompt, tokenizer, chunks=None).warnings == prompt.warnings
    assert align_tokens(prompt, tokenizer, length=12, chunks=None).tokens[12].kind == "bos"


def test_an_entity_across_the_border_keeps_all_its_tokens():
    prompt = align_tokens(Prompt.from_entities("cat " * 74 + "red cube", ["red cube"]), tokenizers.first(), chunks=2)
    places = [token.index for token in prompt.tokens if token.entities == (0,)]
    assert places == [75, 78]  # eos and bos lie between
    assert prompt.warnings == ()


@pytest.mark.parametrize("chunks", [0, -1, True, 1.5, "2"])
def test_bad_chunks(chunks):
    with pytest.raises(ValueError, match="chunks is"):
        align_tokens(parse_prompt("a cat"), tokenizers.first(), chunks=chunks)


@pytest.mark.parametrize("length", [2, 3])
def test_little_room(length):
    prompt = align_tokens(parse_prompt("a cat"), tokenizers.first(), length=length, chunks=2)
    assert len(prompt.tokens) == 2 * length


# -- learnt words


@pytest.fixture(scope="module")
def learnt():
    """A tokenizer as `load_textual_inversion` leaves it: a word of three vectors, one of a single one."""
    tokenizer = load_tokenizer(tokenizers.CLIP_BPE)
    tokenizer.add_tokens(["<toy>", "<toy>_1", "<toy>_2", "<one>"])
    return tokenizer


class SlowLearnt(tokenizers.Slow):
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.added_tokens_encoder = tokenizer.added_tokens_encoder

    def __call__(self, text, add_special_tokens=True, **_):
        return {"input_ids": self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]}


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_all_vectors_of_a_learnt_word_are_its_entity(learnt, slow):
    text = "a red <toy> and a blue <one> here"
    tokenizer = SlowLearnt(learnt) if slow else learnt
    prompt = align_tokens(Prompt.from_entities(text, ["a red <toy>", "a blue <one>"]), tokenizer)
    seen = [(token.text, token.entities) for token in prompt.tokens[1:12]]
    assert seen[:5] == [("a", (0,)), ("red", (0,)), *[("<toy>", (0,))] * 3]
    assert seen[5:10] == [("and", ()), ("a", (1,)), ("blue", (1,)), ("<one>", (1,)), ("here", ())]
    assert prompt.tokens[11].kind == "eos"


def test_the_ids_are_those_of_diffusers(learnt):
    from diffusers.loaders import TextualInversionLoaderMixin

    text = "a red <toy> and <toy>, a cat"
    converted = TextualInversionLoaderMixin().maybe_convert_prompt(text, learnt)
    ids = learnt(converted)["input_ids"]
    prompt = align_tokens(Prompt.from_entities(text, ["a red <toy>"]), learnt)
    assert sum(token.kind != "pad" for token in prompt.tokens) == len(ids)
    assert [token.text for token in prompt.tokens].count("<toy>") == 6


# -- prompt_2


def both(first, second):
    return join_second(
        align_tokens(parse_prompt(first), tokenizers.first()), align_tokens(parse_prompt(second), tokenizers.second())
    )


def test_the_same_text_changes_nothing():
    prompt = align_tokens(parse_prompt("a red cube"), tokenizers.first())
    assert both("a red cube", "a red cube") == prompt


def test_only_what_both_mean_is_masked():
    prompt = both("a red cube and a blue sphere", "a big cube and the night sky")
    assert [token.entities for token in prompt.tokens[1:8]] == [(0,), (0,), (0,), (), (), (), ()]
    assert prompt.tokens[8].kind == "eos"
    assert "prompt_2 differs" in prompt.warnings[0]
    assert "'a blue sphere'" in prompt.warnings[1]


def test_a_shifted_text_loses_what_does_not_coincide():
    prompt = both("a red cube and a dog", "one a red cube and a dog")
    for token in prompt.tokens:
        assert set(token.entities) <= {0, 1}
    assert prompt.tokens[0].kind == "bos"


def test_words_beside_padding_are_global():
    prompt = both("a cat", "a cat in a forest")
    # cat and cat agree; the first text's eos and padding lie beside "in a forest"
    assert [token.kind for token in prompt.tokens[:8]] == ["bos", "entity", "entity", *["global"] * 4, "pad"]
    assert prompt.tokens[70].kind == "pad"


def test_lengths_have_to_agree():
    with pytest.raises(ValueError, match="align both"):
        join_second(parse_prompt("a"), parse_prompt("b"))
