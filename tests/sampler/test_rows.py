"""More ways of laying out the batch, and of handing over the text; see test_pickup.py and test_handwired.py too."""

import pytest
import torch
from diffusers import StableDiffusionXLPAGPipeline
from diffusers.callbacks import SDXLCFGCutoffCallback

from attnmod import Prompt, align_tokens, modulate
from tests.handwired import COLOURS, STRENGTH, colour_latents, stock_mixture
from tests.sampler.test_handwired import HALVES, MASK, PROMPT, close, run

RED = STRENGTH * torch.tensor(COLOURS["red"])
GUIDANCE = 2.0


@pytest.mark.parametrize("negative", [None, "", "a green cone and a blue sphere", PROMPT])
def test_negative_prompts(handwired, negative):
    """None is a row of zeros here, "" an encoded text without words; the prompt itself counts as a prompt."""
    read = {
        None: torch.zeros(3),
        "": torch.zeros(3),  # its tokens offer no colour
        "a green cone and a blue sphere": stock_mixture("red", ["green", "blue"]),
        PROMPT: RED,
    }[negative]
    with modulate(handwired, MASK) as handle:
        picture = run(handwired, PROMPT, guidance=GUIDANCE, negative_prompt=negative)[0]
        rows = handle._state.rows
        assert rows.has_entities.tolist() == [negative == PROMPT, True]
    assert close(picture[:, 3, 3], read + GUIDANCE * (RED - read))


def test_a_negative_prompt_for_each_of_several_prompts(handwired):
    prompts, negatives = [PROMPT, "a blue sphere"], ["a green cone", PROMPT]
    with modulate(handwired, MASK) as handle:
        run(handwired, prompts, guidance=GUIDANCE, batch=4, negative_prompt=negatives, num_images_per_prompt=2)
        texts = [prompt and prompt.text for prompt in handle._state.rows.prompts]
    # the first prompt is the second one's negative: equal embeddings are equal, and a prompt
    assert texts == [None, None, PROMPT, PROMPT, PROMPT, PROMPT, "a blue sphere", "a blue sphere"]


def test_guidance_cut_off_by_diffusers_own_callback(handwired):
    """SDXLCFGCutoffCallback drops the unconditional half: from then on only the conditional row is left."""
    sizes = []
    with modulate(handwired, MASK) as handle:
        hook = handwired.unet.register_forward_pre_hook(
            lambda unet, args: sizes.append((len(args[0]), handle._state.rows.has_entities.tolist()))
        )
        cut_off = SDXLCFGCutoffCallback(cutoff_step_ratio=0.5)
        picture = run(handwired, PROMPT, steps=4, guidance=GUIDANCE, callback_on_step_end=cut_off)[0]
        hook.remove()
    assert sizes == [(2, [False, True])] * 3 + [(1, [True])]
    assert close(picture, colour_latents(HALVES))


def test_guidance_switched_on_and_off_between_calls(handwired):
    with modulate(handwired, MASK):
        for guidance in (2.0, 1.0, 0.0, 3.0):
            picture = run(handwired, PROMPT, guidance=guidance)[0]
            assert close(picture, colour_latents(HALVES, max(guidance, 1.0))), guidance


@pytest.mark.parametrize("guidance", [0.0, GUIDANCE])
def test_perturbed_attention(handwired, guidance):
    """Rows: (unconditional,) conditional, perturbed; two prompts, and without guidance no unconditional ones."""
    pipe = StableDiffusionXLPAGPipeline(**handwired.components, pag_applied_layers=["mid"])
    pipe.set_progress_bar_config(disable=True)
    with modulate(pipe, MASK) as handle:
        pictures = run(pipe, [PROMPT, "a blue sphere"], guidance=guidance, batch=2, pag_scale=2.0)
        texts = [prompt and prompt.text for prompt in handle._state.rows.prompts]
    unconditional = [None, None] if guidance > 1 else []
    assert texts == [*unconditional, PROMPT, "a blue sphere", PROMPT, "a blue sphere"]
    # self-attention is silent in the wired UNet, and so is its perturbation
    assert close(pictures[0], colour_latents(HALVES, max(guidance, 1.0)))
    assert close(pictures[1], colour_latents([["blue"] * 8] * 8, max(guidance, 1.0)))


# -- long prompts

LONG = f"a red cube, {', '.join(['very nice'] * 40)}, and a blue sphere"


@pytest.mark.parametrize("mode", ["SENTENCES", "PHRASES", "WORDS", "BRUTAL"])
@pytest.mark.parametrize("text", [LONG, LONG.replace("nice, ", "nice. ", 9), LONG.replace(",", "")], ids=len)
def test_windows_are_cut_where_compel_cuts_them(handwired, text, mode):
    compel = pytest.importorskip("compel")
    provider = compel.EmbeddingsProvider(
        handwired.tokenizer,
        handwired.text_encoder,
        truncate=False,
        split_long_text_mode=compel.SplitLongTextMode[mode],
    )
    ids, _, _ = provider.get_token_ids_and_expand_weights([text], [1.0], "cpu")
    split = "tokens" if mode == "BRUTAL" else mode.lower()
    prompt = align_tokens(Prompt.from_entities(text, []), handwired.tokenizer, chunks=len(ids) // 77, split=split)
    names = handwired.tokenizer.convert_ids_to_tokens(ids.tolist())
    assert [token.text.lower() for token in prompt.tokens] == [name.removesuffix("</w>") for name in names]


def test_a_long_prompt_as_compel_lays_it_out(handwired):
    """Without truncation it makes windows of 75 tokens or less, each between its own BOS and EOS."""
    compel = pytest.importorskip("compel")
    tool = compel.Compel(
        tokenizer=[handwired.tokenizer, handwired.tokenizer_2],
        text_encoder=[handwired.text_encoder, handwired.text_encoder_2],
        returned_embeddings_type=compel.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=[False, True],
        truncate_long_prompts=False,
    )
    embeddings, pooled = tool(LONG)
    assert embeddings.shape[1] % 77 == 0
    assert embeddings.shape[1] > 77
    with modulate(handwired, MASK, maps=True) as handle:
        with pytest.warns(UserWarning, match='split="tokens".*"sentences" for Compel'):
            handle.set_prompt(LONG, embeddings)
        handle.set_prompt(LONG, embeddings, split="sentences")
        picture = run(handwired, None, prompt_embeds=embeddings, pooled_prompt_embeds=pooled)[0]
        assert handle.entity_map()[0, 0].tolist() == [0] * 4 + [1] * 4
    assert close(picture, colour_latents(HALVES))


def test_a_long_prompt_as_sd_embed_lays_it_out(handwired):
    """Windows of 75 tokens between BOS and EOS, the last one filled up with EOS in both encoders."""
    ids = handwired.tokenizer(LONG, add_special_tokens=False, truncation=False).input_ids
    windows = [[49406, *ids[i : i + 75], 49407] for i in range(0, len(ids), 75)]
    windows[-1] += [49407] * (77 - len(windows[-1]))
    with torch.no_grad():
        encoded = [
            [
                encoder(torch.tensor([window]), output_hidden_states=True).hidden_states[-2]
                for encoder in (handwired.text_encoder, handwired.text_encoder_2)
            ]
            for window in windows
        ]
    embeddings = torch.cat([torch.cat(both, dim=-1) for both in encoded], dim=1)
    pooled = torch.zeros(1, 64)
    with modulate(handwired, MASK) as handle:
        handle.set_prompt(LONG, embeddings, split="tokens")
        picture = run(handwired, None, prompt_embeds=embeddings, pooled_prompt_embeds=pooled)[0]
    assert close(picture, colour_latents(HALVES))
