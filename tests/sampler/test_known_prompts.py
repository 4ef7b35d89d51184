"""What a handle tells of the prompts it knows, and what texts set by hand mean to embeddings that it knows already."""

import warnings

import pytest
import torch

from attnmod import Prompt, align_tokens, modulate, parse_prompt
from attnmod.sampler import known_prompts
from attnmod.sampler.pickup import REMEMBERED_ROWS, PromptBook
from tests.handwired import colour_latents
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close, run

LEFT = torch.tensor([[1.0] * 4 + [0.0] * 4] * 8)
BLUE, RED = ["a blue sphere"], ["a red cube"]
SWAPPED = [["blue"] * 4 + ["red"] * 4] * 8
LONG = f"a red cube. {'very ' * 80}, and a blue sphere."
CAT, DOG = "a cat", "a dog"


def encoded(pipe, text=PROMPT, **arguments):
    """What a run of this text's embeddings is called with, made now."""
    embeddings, _, pooled, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False, **arguments)
    return dict(prompt_embeds=embeddings, pooled_prompt_embeds=pooled)


def meaning_of(handle, given):
    """The prompt that the only row of these embeddings has."""
    return handle._known.match(given["prompt_embeds"]).prompts[0]


def entities_of(prompt):
    return [entity.text for entity in prompt.entities]


def test_a_text_that_tools_cut_differently_is_told_of_where_it_was_given(handwired):
    """Whatever lies between: the warning is of the caller's line, not of ours."""
    text = "a red cube and a blue sphere, " * 20
    with modulate(handwired) as handle:
        with pytest.warns(UserWarning, match="more than 77 tokens") as warned:
            handle.set_prompt(text, torch.zeros(1, 154, 8))
        assert [warning.filename for warning in warned] == [__file__]
        assert [len(prompt.tokens) for prompt in handle.prompts] == [154]
        with pytest.warns(UserWarning, match="more than 77 tokens") as warned:
            handle.set_prompt(text)
        assert [warning.filename for warning in warned] == [__file__], "also of embeddings that it knows"


# -- set after the embeddings were made


@pytest.mark.parametrize(
    ("entities", "masks", "owners"),
    [
        ([BLUE], [LEFT], [0] * 4 + [-1] * 4),
        ([BLUE, RED], [LEFT, 1 - LEFT], [0] * 4 + [1] * 4),
        ([BLUE, RED], None, [1] * 4 + [0] * 4),  # the vote; the left wants red
    ],
)
def test_what_is_set_holds_for_embeddings_made_before(handwired, entities, masks, owners):
    with modulate(handwired, MASK, maps=True) as handle:
        given = encoded(handwired)
        assert close(run(handwired, None, **given)[0], colour_latents(HALVES))
        handle.set_prompt(PROMPT, entities=entities, masks=masks)
        assert entities_of(handle.prompts[0]) == [*RED, *BLUE], "of the last call"
        picture = run(handwired, None, **given)[0]
        assert handle.entity_map()[0].tolist() == [owners] * 8
        assert entities_of(handle.prompts[0]) == [entity[0] for entity in entities]
        if len(entities) == 2:
            assert close(picture, colour_latents(HALVES if masks is None else SWAPPED))


def test_equal_rows_are_aligned_once(handwired):
    with modulate(handwired, MASK) as handle:
        for _ in range(3):
            encoded(handwired)
        handle.set_prompt(PROMPT, entities=[BLUE])
        rows = [row for row in handle._known.book.rows if row.prompt is not None]
        assert len(rows) == 3
        assert len({id(row.prompt) for row in rows}) == 1


def test_other_texts_and_negative_prompts_stay_what_they_are(handwired):
    with modulate(handwired, MASK) as handle:
        other = encoded(handwired, "a green cone")
        rows = torch.cat(handwired.encode_prompt("a green cone", negative_prompt=PROMPT)[:2])
        handle.set_prompt(PROMPT, entities=[BLUE])
        assert entities_of(meaning_of(handle, other)) == ["a green cone"]
        assert handle._known.match(rows).prompts[1] is None


def test_a_text_set_along_with_embeddings_means_the_same_in_those_known_before(handwired):
    with modulate(handwired, MASK) as handle:
        given = encoded(handwired)
        elsewhere = {**given, "prompt_embeds": 1.5 * given["prompt_embeds"]}
        handle.set_prompt(PROMPT, elsewhere["prompt_embeds"], entities=[BLUE, RED], masks=[LEFT, 1 - LEFT])
        for known in (given, elsewhere):
            assert entities_of(meaning_of(handle, known)) == [*BLUE, *RED]
        assert close(run(handwired, None, **given)[0], colour_latents(SWAPPED))


def test_prompts_of_one_text_that_are_set_with_embeddings_of_their_own_stay_apart(handwired):
    parsed, swapped = parse_prompt(PROMPT), Prompt.from_entities(PROMPT, [BLUE, RED])
    first, second = (torch.full((1, 77, 128), value) for value in (1.0, 2.0))
    with modulate(handwired, MASK) as handle:
        handle.set_prompt([parsed, swapped], torch.cat([first, second]))
        assert entities_of(meaning_of(handle, {"prompt_embeds": first})) == [*RED, *BLUE]
        assert entities_of(meaning_of(handle, {"prompt_embeds": second})) == [*BLUE, *RED]
        assert [entities_of(prompt) for prompt in handle.prompts] == [[*RED, *BLUE], [*BLUE, *RED]]


def test_prompt_2_is_joined_again(handwired):
    """Either text may be set; the other one's part stays what it was."""
    second = "a red cube and a green cone"
    with modulate(handwired, MASK) as handle:
        given = encoded(handwired, prompt_2=second)
        for text, entities, shared in (
            (PROMPT, [["cube"], BLUE], {3: (0,)}),  # "a red" is global in one and the cube's in the other
            (second, [["a green cone"]], {}),
            (second, [["a green cone"], ["cube"]], {3: (0,)}),
            (PROMPT, [BLUE, RED], {3: (1,)}),
            (second, [RED], {1: (1,), 2: (1,), 3: (1,)}),
        ):
            handle.set_prompt(text, entities=entities)
            prompt = meaning_of(handle, given)
            assert {token.index: token.entities for token in prompt.tokens if token.entities} == shared
            assert any("prompt_2" in warning for warning in prompt.warnings)
        assert entities_of(prompt) == [*BLUE, *RED]


def test_tokens_of_a_prompt_are_kept_where_they_fit(handwired):
    prompt = align_tokens(parse_prompt("a (red cube:1.5) and a blue sphere", weights=True), handwired.tokenizer)
    with modulate(handwired, MASK) as handle:
        given = encoded(handwired)
        longer = torch.ones(1, 154, 128)
        handle.set_prompt(PROMPT, longer)
        handle.set_prompt(prompt)
        assert meaning_of(handle, given) is prompt
        assert len(meaning_of(handle, {"prompt_embeds": longer}).tokens) == 154


def test_windows_stay_cut_where_they_were_told_to_be(handwired):
    """Also when the text is set along with other embeddings, whose split is their own."""
    compel, sd_embed = (torch.full((1, 154, 128), value) for value in (1.0, 2.0))
    cut = {
        split: align_tokens(parse_prompt(LONG), handwired.tokenizer, length=77, chunks=2, split=split).tokens
        for split in ("tokens", "sentences")
    }
    assert cut["tokens"] != cut["sentences"]
    with modulate(handwired) as handle:
        with pytest.warns(UserWarning, match="more than 77 tokens"):
            handle.set_prompt(LONG, compel)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            handle.set_prompt(LONG, compel, split="sentences")
            handle.set_prompt(LONG, sd_embed, split="tokens")
            handle.set_prompt(LONG, entities=[["a red cube"], ["a blue sphere"]])
        for embeddings, split in ((compel, "sentences"), (sd_embed, "tokens")):
            tokens = meaning_of(handle, {"prompt_embeds": embeddings}).tokens
            assert [token.text for token in tokens] == [token.text for token in cut[split]]
        handle.set_prompt(LONG, split="sentences")
        assert meaning_of(handle, {"prompt_embeds": sd_embed}).tokens == cut["sentences"]


def test_a_set_prompt_that_fails_changes_nothing(handwired):
    with modulate(handwired) as handle:
        with pytest.warns(UserWarning, match="more than 77 tokens"):
            handle.set_prompt(LONG, torch.ones(1, 154, 128))
        before, rows = dict(handle._known.by_hand), list(handle._known.book.rows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="more than 77 tokens"):
                handle.set_prompt(LONG, entities=[["a blue sphere"]], masks=[LEFT])
        assert handle._known.by_hand == before
        assert list(handle._known.book.rows) == rows
        assert not handle._known._masks


# -- set again, and set often


def test_a_text_set_again_is_parsed_again(handwired):
    with modulate(handwired, MASK) as handle:
        handle.set_prompt(PROMPT, entities=[BLUE])
        run(handwired, PROMPT)
        assert entities_of(handle.prompts[0]) == BLUE
        handle.set_prompt(PROMPT)
        assert close(run(handwired, PROMPT)[0], colour_latents(HALVES))
        assert entities_of(handle.prompts[0]) == [*RED, *BLUE]


def test_what_was_set_first_is_forgotten_first_with_its_masks(handwired, monkeypatch):
    monkeypatch.setattr(known_prompts, "KEPT_BY_HAND", 2)
    with modulate(handwired, MASK) as handle:
        known = handle._known
        for text in (PROMPT, CAT, PROMPT, DOG):  # set anew, the first is no longer the oldest
            handle.set_prompt(text, masks=[LEFT] * (1 + (text == PROMPT)))
        assert list(known.by_hand) == list(known._masks) == [PROMPT, DOG]
        handle.set_prompt([CAT, DOG, "a bird"])
        assert list(known.by_hand) == [DOG, "a bird"]
        assert not known._masks
        run(handwired, PROMPT)
        assert entities_of(handle.prompts[0]) == [*RED, *BLUE]


def test_as_many_rows_are_remembered_as_is_said():
    book = PromptBook()
    for n in range(REMEMBERED_ROWS + 3):
        book.remember(torch.full((1, 1), float(n)), None)
    assert [row.embedding.item() for row in book.rows] == [*range(REMEMBERED_ROWS + 2, 2, -1)]


def test_as_many_are_kept_as_is_said(handwired):
    texts = [f"a cat number {n}" for n in range(known_prompts.KEPT_BY_HAND + 3)]
    with modulate(handwired) as handle:
        handle.set_prompt([Prompt.from_entities(text, []) for text in texts])
        assert list(handle._known.by_hand) == texts[3:]


def test_warmup_leaves_what_is_known_as_it_is(handwired):
    """Its own texts may be the user's, too: with other entities, with masks, with embeddings that are kept."""
    with modulate(handwired, "mask") as handle:
        handle.set_prompt(PROMPT, entities=[BLUE], masks=[LEFT])
        embeddings, *_ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        before = handle._known.match(embeddings)
        handle.warmup()
        after = handle._known.match(embeddings)
    assert [entity.text for entity in before.prompts[0].entities] == ["a blue sphere"]
    assert after.prompts == before.prompts
    assert torch.equal(after.masks[0][0], LEFT)


def test_another_reader_takes_the_parsers_place():
    read = []

    def reader(text):
        read.append(text)
        return Prompt.from_entities(text, [text])

    known = known_prompts.KnownPrompts(None, None, reader)
    assert known._read("a red cube").entities[0].attributes == ("red",)
    assert read == ["a red cube"]
    with pytest.raises(TypeError, match="reader is a str"):
        known_prompts.KnownPrompts(None, None, "spacy")
    with pytest.raises(ValueError, match="spacy_model and reader are both given"):
        known_prompts.KnownPrompts(None, "en_core_web_sm", reader)
