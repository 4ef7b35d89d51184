"""Which text a row came from, however a pipeline lays its batch out."""

import warnings

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from attnmod import ModulationConfig, Prompt, modulate
from attnmod.sampler.pickup import PromptBook
from tests.handwired import colour_latents, stock_mixture, wish_latents
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close, run


def prompt(text):
    return Prompt.from_entities(text, [])


def test_rows_are_matched_by_their_bits_in_any_order():
    first, second, negative = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(0))
    book = PromptBook()
    book.remember(first, prompt("one"))
    book.remember(second, prompt("two"))
    book.remember(negative, None)
    almost = second.clone()
    almost[3, 4] = torch.nextafter(almost[3, 4], torch.tensor(9.0))
    matched = book.match(torch.stack([torch.zeros(7, 16), second, negative, first, almost]))
    assert [row.text if row else None for row in matched.prompts] == [None, "two", None, "one", None]
    assert matched.unknown == 1  # the last one; zeros and negatives are known


def test_the_newest_meaning_of_an_embedding_counts():
    embedding, book = torch.ones(7, 16), PromptBook()
    book.remember(embedding, None)
    book.remember(embedding, prompt("now"))
    assert book.match(embedding[None]).prompts[0].text == "now"


def test_an_embedding_cast_on_the_way_is_still_known():
    embedding, book = torch.randn(7, 16), PromptBook()
    book.remember(embedding, prompt("one"))
    assert book.match(embedding.half()[None]).prompts[0].text == "one"


def test_embeddings_of_other_lengths_are_no_match():
    book = PromptBook()
    book.remember(torch.ones(7, 16), prompt("one"))
    assert book.match(torch.ones(2, 14, 16)).unknown == 2


def test_embeddings_from_elsewhere_run_plain_and_are_told_of_once(handwired):
    embeddings, _, pooled, _ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    given = dict(prompt_embeds=embeddings, pooled_prompt_embeds=pooled)
    with modulate(handwired, MASK) as handle:
        with pytest.warns(UserWarning, match=r"1 of 1 text embeddings.*handle\.set_prompt"):
            picture = run(handwired, None, **given)[0]
        assert close(picture[:, 3, 3], stock_mixture("red", ["red", "blue"]))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            run(handwired, None, **given)
            handle.set_prompt(PROMPT, prompt_embeds=embeddings)
            assert close(run(handwired, None, **given)[0], colour_latents(HALVES))


def test_embeddings_made_by_this_pipeline_before_the_call_are_known(handwired):
    with modulate(handwired, MASK):
        embeddings, negative, pooled, negative_pooled = handwired.encode_prompt(PROMPT)
        for _ in range(2):
            picture = run(
                handwired,
                None,
                guidance=2.0,
                prompt_embeds=embeddings,
                negative_prompt_embeds=negative,
                pooled_prompt_embeds=pooled,
                negative_pooled_prompt_embeds=negative_pooled,
            )[0]
            assert close(picture, colour_latents(HALVES, 2.0))


def test_another_pipeline_on_the_same_unet_runs_plain_even_with_the_same_prompt(handwired):
    other = StableDiffusionXLPipeline(**handwired.components)
    other.set_progress_bar_config(disable=True)
    stock = run(other, PROMPT, guidance=2.0)
    with modulate(handwired, MASK):
        assert close(run(handwired, PROMPT, guidance=2.0)[0], colour_latents(HALVES, 2.0))
        assert torch.equal(run(other, PROMPT, guidance=2.0), stock)
        assert close(run(handwired, PROMPT, guidance=2.0)[0], colour_latents(HALVES, 2.0))


@torch.no_grad()
def test_one_unet_call_per_condition(handwired):
    """As guiders do: conditional and unconditional rows come in calls of their own, or in any other order."""
    with modulate(handwired, ModulationConfig.preset("mask")):
        embeddings, negative, pooled, _ = handwired.encode_prompt([PROMPT, "a green cone"])

        def rgb(rows):
            conditions = {"text_embeds": pooled[:1].repeat(len(rows), 1), "time_ids": torch.zeros(len(rows), 6)}
            latents = wish_latents(HALVES, len(rows))
            return handwired.unet(latents, 500, rows, added_cond_kwargs=conditions).sample[:, :3]

        assert close(rgb(embeddings[:1])[0], colour_latents(HALVES))
        assert close(rgb(negative[:1]), torch.zeros(1, 3, 16, 16))
        mixed = rgb(torch.stack([embeddings[1], negative[0], embeddings[0], embeddings[0]]))
        assert close(mixed[0], colour_latents([["green"] * 8] * 8))
        assert close(mixed[1], torch.zeros(3, 16, 16))
        assert torch.equal(mixed[2], mixed[3])
        assert close(mixed[3], colour_latents(HALVES))


def test_guidance_cut_off_in_mid_run(handwired):
    """A callback that drops the unconditional half hands the UNet a new, smaller conditioning tensor."""

    def cut_off(pipe, step, timestep, tensors):
        if step == 1:
            pipe._guidance_scale = 0.0
            return {name: tensor[-1:] for name, tensor in tensors.items()}
        return {}

    with modulate(handwired, MASK):
        picture = run(
            handwired,
            PROMPT,
            steps=4,
            guidance=2.0,
            callback_on_step_end=cut_off,
            callback_on_step_end_tensor_inputs=["prompt_embeds", "add_text_embeds", "add_time_ids"],
        )[0]
    assert close(picture, colour_latents(HALVES))


def test_embeddings_changed_in_place_are_no_longer_this_prompt(handwired):
    def change(pipe, step, timestep, tensors):
        tensors["prompt_embeds"].mul_(0.5)
        return {}

    with modulate(handwired, MASK), pytest.warns(UserWarning, match="did not come from this pipeline"):
        run(
            handwired,
            PROMPT,
            steps=2,
            callback_on_step_end=change,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )


def test_a_prompt_2_that_differs(handwired):
    """Where the two texts agree an entity keeps its words; elsewhere every patch sees them."""
    with modulate(handwired, MASK) as handle:
        picture = run(handwired, PROMPT, prompt_2="a red cube and a green cone")[0]
        tokens = handle.prompts[0].tokens
    assert [token.entities for token in tokens[1:8]] == [(0,), (0,), (0,), (), (), (), ()]
    assert any("prompt_2" in warning for warning in handle.prompts[0].warnings)
    assert picture[0, 3, 3] > 0.1


def test_embeddings_of_a_long_prompt_in_chunks(handwired):
    """154 positions are two windows of 77, each with its own BOS and EOS; the second one is masked as well."""
    text = f"a red cube, {'very ' * 80}, and a blue sphere"
    windows = [f"a red cube, {'very ' * 70}", f"{'very ' * 9}, and a blue sphere"]
    encoded = [handwired.encode_prompt(window, do_classifier_free_guidance=False) for window in windows]
    embeddings = torch.cat([window[0] for window in encoded], dim=1)
    with modulate(handwired, MASK, maps=True) as handle:
        handle.set_prompt(text, embeddings, split="tokens")
        picture = run(handwired, None, prompt_embeds=embeddings, pooled_prompt_embeds=encoded[0][2])[0]
        tokens = handle.prompts[0].tokens
        assert handle.entity_map()[0, 0].tolist() == [0] * 4 + [1] * 4
    assert [tokens[n].kind for n in (0, 76, 77, 153)] == ["bos", "eos", "bos", "pad"]
    assert close(picture, colour_latents(HALVES))


def test_set_prompt_checks(handwired):
    with modulate(handwired, MASK) as handle:
        with pytest.raises(ValueError, match=r"prompt_embeds has shape \(77, 128\)"):
            handle.set_prompt(PROMPT, prompt_embeds=torch.zeros(77, 128))
        with pytest.raises(ValueError, match="2 prompts need"):
            handle.set_prompt([PROMPT, PROMPT], prompt_embeds=torch.zeros(1, 77, 128))
    with pytest.raises(RuntimeError, match="removed"):
        handle.set_prompt(PROMPT)
