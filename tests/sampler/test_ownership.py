"""Ownership from a running average, and the means that balance a vote."""

import doctest
import math
import warnings

import pytest
import torch

import attnmod.sampler.ownership as ownership
from attnmod import ModulationConfig, Prompt, align_tokens, modulate
from attnmod.kernels.ops import trusted_cross_attention
from attnmod.sampler.conditioning import condition_rows
from attnmod.sampler.ownership import AttentionLevel, RunningAffinity, gaussian_rows
from attnmod.sampler.untrained import sdxl_shaped_pipeline
from tests.handwired import COLOURS, STRENGTH, stock_mixture, wish_latents

PROMPT = "a red cube and a blue sphere"
HALVES = [["red"] * 4 + ["blue"] * 4] * 8
AVERAGE = dict(
    temperature=1,
    hidden_weight=0,
    global_weight=1,
    detail_weight=1,
    balanced=False,
    deciding_sizes="all",
    average_smoothing=0,
    owned_above=0,
    eos="plain",
)


def test_doctests():
    assert doctest.testmod(ownership).failed == 0


@pytest.fixture(scope="module")
def prompt(tokenizer):
    return align_tokens(Prompt.from_entities(PROMPT, [["a red cube"], ["a blue sphere"]]), tokenizer)


def running(prompt, levels=(0,), size=(4, 4), **config):
    config = ModulationConfig(**{**AVERAGE, **config})
    rows = condition_rows([None, prompt], 77, config, "cpu")
    average = RunningAffinity(rows, levels, config)
    average.fit(size)
    return average


def level_that_votes(prompt, lean: torch.Tensor) -> AttentionLevel:
    """A layer whose patches, [M], attend to "cube" by e^lean and to "sphere" by e^-lean, in both rows."""
    texts = [token.text for token in prompt.tokens]
    key = torch.zeros(2, 1, 77, 2)
    key[:, :, texts.index("cube"), 0] = 1
    key[:, :, texts.index("sphere"), 0] = -1
    query = torch.stack([lean, torch.zeros_like(lean)], dim=-1) * 2**0.5  # undoes the scale of two channels
    return AttentionLevel(query=query.expand(2, 1, -1, -1), key=key)


def test_owners_follow_the_affinity_of_conditional_rows(prompt):
    average = running(prompt)
    lean = torch.tensor([3.0] * 8 + [-3.0] * 8)
    average.observe({0: level_that_votes(prompt, lean)})
    assert average.owners[0].tolist() == [[-1] * 16, [0] * 8 + [1] * 8]


def test_the_average_remembers(prompt):
    """At a decay of 0.9 one call that says otherwise does not outvote ten; at 0 it does."""
    lean = torch.full((16,), 2.0)
    for decay, owner in ((0.9, 0), (0.0, 1)):
        average = running(prompt, average_decay=decay)
        for _ in range(10):
            average.observe({0: level_that_votes(prompt, lean)})
        average.observe({0: level_that_votes(prompt, -lean)})
        assert average.owners[0][1].tolist() == [owner] * 16


def test_a_run_begins_with_nothing(prompt):
    average = running(prompt)
    average.observe({0: level_that_votes(prompt, torch.full((16,), 2.0))})
    average.restart(torch.tensor([True, True]))
    assert average.owners[0].eq(-1).all()
    assert average.averages[0].eq(0).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_a_patch_is_nobodys_where_no_entity_stands_out(prompt, balanced):
    """Two patches lean to the cube, two to the sphere, twelve to neither: those are owned only without a threshold."""
    lean = torch.tensor([4.0] * 2 + [0.0] * 12 + [-4.0] * 2)
    owned = {}
    for least in (0.0, 1.1):
        average = running(prompt, balanced=balanced, owned_above=least)
        average.observe({0: level_that_votes(prompt, lean)})
        owned[least] = average.owners[0][1].tolist()
    assert -1 not in owned[0.0]
    assert owned[1.1] == [0] * 2 + [-1] * 12 + [1] * 2


def test_a_single_vote_that_errs_is_smoothed_away(prompt):
    """One patch in the middle of the cube's half leans to the sphere, and one the other way round."""
    lean = torch.tensor([2.0] * 32 + [-2.0] * 32).reshape(8, 8)
    lean[1, 3], lean[6, 4] = -1.0, 1.0
    owned = {}
    for smoothing in (0.0, 0.125):  # one patch
        average = running(prompt, size=(8, 8), average_smoothing=smoothing)
        average.observe({0: level_that_votes(prompt, lean.flatten())})
        owned[smoothing] = average.owners[0][1].reshape(8, 8).long()
    halves = torch.tensor([0] * 32 + [1] * 32).reshape(8, 8)
    assert (owned[0.0] != halves).nonzero().tolist() == [[1, 3], [6, 4]]
    assert torch.equal(owned[0.125], halves)


def test_smoothing_is_a_gaussian_that_keeps_what_is_even():
    matrix = gaussian_rows(15, 1.5, torch.zeros(1))
    assert torch.allclose(matrix.sum(1), torch.ones(15))
    expected = torch.exp(-((torch.arange(15) - 7.0) ** 2) / (2 * 1.5**2))
    assert torch.allclose(matrix[7], expected / expected.sum(), atol=1e-3)  # it ends at three deviations
    assert matrix[0, 0] == pytest.approx(matrix[7, :8].sum().item(), rel=1e-5), "edges go on"
    assert gaussian_rows(1, 3.0, torch.zeros(1)).tolist() == [[pytest.approx(1)]]


def test_a_wide_picture_is_smoothed_as_a_square_one_of_its_height(prompt):
    owned = []
    for width in (8, 24):
        average = running(prompt, size=(8, width), average_smoothing=0.125)
        lean = torch.full((8, width), -1.0)
        lean[3:5, 2:4] = 4.0  # which a Gaussian three times as wide would smooth away
        average.observe({0: level_that_votes(prompt, lean.flatten())})
        owned.append(average.owners[0][1].reshape(8, width)[:, :6])
    assert owned[0].eq(0).any()
    assert torch.equal(*owned)


def test_smoothing_is_exact_under_autocast(prompt):
    average = running(prompt, size=(8, 8), average_smoothing=0.2)
    lean = torch.randn(64, generator=torch.Generator().manual_seed(0))
    averages = []
    for enabled in (False, True):
        average.restart(torch.tensor([True, True]))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            average.observe({0: level_that_votes(prompt, lean)})
        averages.append(average.owners[0].clone())
    assert torch.equal(*averages)


def test_a_run_of_no_numbers_leaves_nothing_behind(prompt):
    average = running(prompt)
    average.observe({0: level_that_votes(prompt, torch.full((16,), math.nan))})
    average.restart(torch.tensor([True, True]))
    average.observe({0: level_that_votes(prompt, torch.tensor([3.0] * 8 + [-3.0] * 8))})
    assert average.owners[0][1].tolist() == [0] * 8 + [1] * 8


def test_rows_restart_apart(prompt):
    average = running(prompt)
    average.observe({0: level_that_votes(prompt, torch.full((16,), 2.0))})
    average.restart(torch.tensor([True, False]))
    assert average.owners[0][1].eq(0).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_balancing_gives_the_weak_entity_its_patches(prompt, balanced):
    """The cube leads everywhere, less so in the last four patches: balanced, those are the sphere's."""
    average = running(prompt, balanced=balanced)
    lean = torch.tensor([3.0] * 12 + [1.0] * 4)
    average.observe({0: level_that_votes(prompt, lean)})
    assert average.owners[0][1].tolist() == [0] * 12 + ([1] if balanced else [0]) * 4
    average.rows.balance()
    mean = average.rows.mean_affinity[1, :2]
    tokens = [prompt.tokens.index(next(t for t in prompt.tokens if t.text == word)) for word in ("cube", "sphere")]
    for entity, token in enumerate(tokens):
        vote = average.rows.balanced_affinity[1, token, entity]
        assert vote.item() == pytest.approx(1 / mean[entity].item(), rel=1e-5)


def test_levels_share_one_map(prompt):
    """The fine level says nothing clear; the coarse one decides for both."""
    average = running(prompt, levels=(0, 1))
    coarse = torch.tensor([3.0, -3.0, 3.0, -3.0])
    average.observe({0: level_that_votes(prompt, torch.zeros(16)), 1: level_that_votes(prompt, coarse)})
    assert average.owners[1][1].tolist() == [0, 1, 0, 1]
    assert average.owners[0][1].reshape(4, 4)[:, [0, 3]].tolist() == [[0, 1]] * 4


@pytest.mark.parametrize(("deciding", "expected"), [("finest", [[0] * 4, [0] * 16]), ("coarsest", [[1] * 4, [1] * 16])])
def test_one_size_may_decide_alone(prompt, deciding, expected):
    average = running(prompt, levels=(0, 1), deciding_sizes=deciding)
    levels = {0: level_that_votes(prompt, torch.full((16,), 1.0)), 1: level_that_votes(prompt, torch.full((4,), -3.0))}
    average.observe(levels)
    assert [average.owners[level][1].tolist() for level in (1, 0)] == expected


def test_merged_patches_are_told_of_where_nobody_else_decides(prompt):
    average = running(prompt, levels=(0, 1), deciding_sizes="finest")
    merged = level_that_votes(prompt, torch.zeros(5))
    with pytest.warns(UserWarning, match="merged the patches"):
        average.observe({0: merged, 1: level_that_votes(prompt, torch.ones(4))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        average.observe({0: merged, 1: AttentionLevel()})  # told once
        running(prompt, levels=(0, 1)).observe({0: merged, 1: level_that_votes(prompt, torch.ones(4))})


def test_the_finest_is_the_finest_of_the_modulated():
    """A pattern that leaves the finest layers out must not leave everything to nobody."""
    pipe = sdxl_shaped_pipeline(
        channels=(64, 64, 64), transformer_layers=(1, 1, 1), vae_channels=(32, 32), sample_size=8, norm_groups=32
    )
    pipe.set_progress_bar_config(disable=True)
    config = ModulationConfig(**{**AVERAGE, "deciding_sizes": "finest"}, cross_attention_layers=("mid_block.*",))
    with modulate(pipe, config, maps=True) as handle:
        pipe(PROMPT, num_inference_steps=2, output_type="latent")
        assert handle.entity_map(step=-1).ge(0).all()


def test_a_level_that_did_not_run_or_was_merged_is_left_out(prompt):
    average = running(prompt, levels=(0, 1))
    lean = torch.full((4,), -2.0)
    average.observe({0: AttentionLevel(), 1: level_that_votes(prompt, lean)})
    assert average.owners[0][1].eq(1).all()
    before = average.averages[1].clone()
    with pytest.warns(UserWarning, match="merged the patches"):
        average.observe({0: AttentionLevel(), 1: level_that_votes(prompt, torch.zeros(3))})
    assert torch.equal(average.averages[1], before)


def test_tensors_stay_where_they_are(prompt):
    """A captured CUDA graph reads the same addresses at every step."""
    average = running(prompt)
    before = average.owners[0].data_ptr(), average.averages[0].data_ptr(), average.rows.mean_affinity.data_ptr()
    average.observe({0: level_that_votes(prompt, torch.ones(16))})
    average.restart(torch.tensor([True, True]))
    average.fit((4, 4))
    assert before == (
        average.owners[0].data_ptr(), average.averages[0].data_ptr(), average.rows.mean_affinity.data_ptr()
    )  # fmt: skip


# -- in a pipeline


def run(pipe, text, steps, wishes=HALVES, **call):
    return pipe(
        text, latents=wish_latents(wishes), num_inference_steps=steps, guidance_scale=1.0, output_type="latent", **call
    ).images[:, :3]


def test_the_first_call_is_plain_and_the_rest_masked(handwired):
    with modulate(handwired, ModulationConfig(**AVERAGE), maps=True) as handle:
        first = run(handwired, PROMPT, steps=1)[0]
        assert torch.allclose(first[:, 3, 3], stock_mixture("red", ["red", "blue"]), atol=1e-4)
        picture = run(handwired, PROMPT, steps=3)[0]
        owners = handle.entity_map()
    assert torch.allclose(picture[:, 3, 3], STRENGTH * torch.tensor(COLOURS["red"]), atol=1e-4)
    assert torch.allclose(picture[:, 3, 12], STRENGTH * torch.tensor(COLOURS["blue"]), atol=1e-4)
    assert owners.tolist() == [[[0] * 4 + [1] * 4] * 8]


def test_no_layer_votes(handwired, monkeypatch):
    """One launch a step and level votes; the layers are handed its map."""
    import attnmod.sampler.processor as processor

    calls = []

    def watched(*args, **options):
        calls.append(options.get("owner") is not None)
        return trusted_cross_attention(*args, **options)

    monkeypatch.setattr(processor, "trusted_cross_attention", watched)
    with modulate(handwired, ModulationConfig(**AVERAGE)) as handle:
        run(handwired, PROMPT, steps=2)
        assert calls == [True] * 2 * len(handle.cross_attention_layers)


def test_runs_do_not_leak_into_each_other(handwired):
    with modulate(handwired, ModulationConfig(**AVERAGE)):
        run(handwired, PROMPT, steps=3, wishes=[line[::-1] for line in HALVES])
        again = run(handwired, PROMPT, steps=3)
    with modulate(handwired, ModulationConfig(**AVERAGE)):
        fresh = run(handwired, PROMPT, steps=3)
    assert torch.equal(again, fresh)


@pytest.mark.parametrize("options", [{}, {"share_heads": False}, {"ownership": "average"}])
def test_balanced_runs_are_repeatable(handwired, options):
    config = ModulationConfig(**{**AVERAGE, "ownership": "layer", "balanced": True, **options})
    with modulate(handwired, config):
        first, second = (run(handwired, PROMPT, steps=3) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(first[0, :, 3, 3], STRENGTH * torch.tensor(COLOURS["red"]), atol=1e-4)


def test_other_sizes_in_turn(handwired):
    with modulate(handwired, ModulationConfig(**AVERAGE), maps=True) as handle:
        for width in (8, 4, 8):
            wishes = [["red"] * (width // 2) + ["blue"] * (width // 2)] * 4
            run(handwired, PROMPT, steps=2, wishes=wishes)
            assert handle.entity_map().tolist() == [[[0] * (width // 2) + [1] * (width // 2)] * 4]


@torch.no_grad()
def test_what_changes_per_step_changes_in_place(handwired):
    """A compiled UNet and a captured graph find each step's values where the last one's were."""
    with modulate(handwired) as handle:
        embeddings, _, pooled, _ = handwired.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        conditions = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        seen = []
        for timestep in (900, 500, 100):
            handwired.unet(wish_latents(HALVES), timestep, embeddings, added_cond_kwargs=conditions)
            rows = handle._state.rows
            changing = rows.temperature, rows.hidden_weight, rows.log_weights, rows.balanced_affinity
            seen.append(([tensor.data_ptr() for tensor in changing], [tensor.clone() for tensor in changing]))
    assert seen[0][0] == seen[1][0] == seen[2][0]
    assert not torch.equal(seen[0][1][0], seen[2][1][0]), "tau has changed"
    assert not torch.equal(seen[0][1][2], seen[2][1][2]), "and so have the weights"
