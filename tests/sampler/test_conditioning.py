"""Prompts -> tensors, without a UNet."""

import contextlib
import dataclasses
import math

import pytest
import torch

from attnmod import ModulationConfig, Prompt, align_tokens
from attnmod.parser.align import load_tokenizer
from attnmod.sampler.conditioning import MOST_EQUALIZED, condition_rows
from attnmod.sampler.untrained import CLIP_BPE

PLAIN = dict(
    temperature=0.5,
    hidden_weight=0,
    global_weight=1,
    detail_weight=1,
    balanced=False,
    ownership="layer",
    eos="plain",
    padding="plain",
)
TEXT = "a red robot with a blue hat and a cat"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(CLIP_BPE)


@pytest.fixture
def nested(tokenizer):
    entities = [["a red robot with a blue hat"], ["a blue hat"], ["a cat"]]
    prompt = Prompt.from_entities(TEXT, entities)
    robot = dataclasses.replace(prompt.entities[0], head="robot")
    return align_tokens(dataclasses.replace(prompt, entities=(robot, *prompt.entities[1:])), tokenizer)


def rows_for(*prompts, **values):
    return condition_rows(prompts, 77, ModulationConfig(**{**PLAIN, **values}), "cpu")


def words(prompt):
    return [token.text for token in prompt.tokens[1:11]]


def test_bits(nested):
    rows = rows_for(nested)
    assert words(nested) == ["a", "red", "robot", "with", "a", "blue", "hat", "and", "a", "cat"]
    assert rows.entity_bits[0, :13].tolist() == [-1, 1, 1, 1, 1, 3, 3, 3, -1, 4, 4, -1, -1]
    assert rows.entity_bits.dtype == torch.int32
    assert rows.slots == [[0, 1, 2]]
    assert rows.affinity is None  # the kernels' own default: the sum, for the innermost entity


@pytest.mark.parametrize(
    ("vote", "expected"),
    [
        ("mean", {0: [0.25] * 4, 1: [1 / 3] * 3, 2: [0.5] * 2}),
        ("head", {0: [0, 0, 1, 0], 1: [0, 0, 1], 2: [0, 1]}),
    ],
)
def test_votes(nested, vote, expected):
    affinity = rows_for(nested, vote=vote).affinity[0]
    places = {0: [1, 2, 3, 4], 1: [5, 6, 7], 2: [9, 10]}
    for entity, votes in expected.items():
        assert affinity[places[entity], entity].tolist() == pytest.approx(votes)
    assert (affinity > 0).sum() == sum(vote > 0 for votes in expected.values() for vote in votes)


def test_the_background_votes_with_the_global_words(nested):
    rows = rows_for(nested, unowned_background=True)
    assert rows.slots == [[0, 1, 2, -1]]
    assert rows.affinity[0, :, 3].nonzero().flatten().tolist() == [8]  # "and"
    assert all(bits & 8 for bits in rows.entity_bits[0].tolist())


def test_rows_without_a_prompt_are_plain(nested):
    rows = rows_for(None, nested, None)
    assert rows.entity_bits[[0, 2]].eq(-1).all()
    assert rows.own_log_weights.eq(0).all()
    assert rows.is_conditional.tolist() == rows.has_entities.tolist() == [False, True, False]
    assert rows.modulates_self_attention
    assert rows.modulates_cross_attention


def test_temperature_on_all_rows_of_a_call_that_has_a_prompt(nested):
    assert rows_for(None, nested, temperature_rows="all").is_conditional.tolist() == [True, True]
    assert rows_for(None, None, temperature_rows="all").is_conditional.tolist() == [False, False]


def test_an_empty_prompt_changes_nothing(tokenizer):
    rows = rows_for(align_tokens(Prompt.from_entities("  ", []), tokenizer))
    assert not rows.modulates_self_attention
    assert not rows.modulates_cross_attention


def test_a_prompt_without_entities_is_sharpened_only(tokenizer):
    rows = rows_for(align_tokens(Prompt.from_entities("mist at dawn", []), tokenizer), global_weight=0.5)
    assert rows.modulates_self_attention
    assert not rows.modulates_cross_attention
    assert not rows.is_global.any()


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("treatment", ["plain", "global", "masked", "absent"])
def test_special_tokens(nested, treatment, background):
    config = dict(bos=treatment, eos=treatment, padding=treatment, unowned_background=background)
    rows = rows_for(nested, **config, global_weight=0.5)
    special = [n for n, token in enumerate(nested.tokens) if token.kind in ("bos", "eos", "pad")]
    assert len(special) == 77 - 10
    assert rows.own_log_weights[0, special].eq(-math.inf).all() == (treatment == "absent")
    assert rows.is_global[0, special].tolist() == [treatment == "global"] * 67
    assert rows.is_global[0, 8]  # "and"
    seen_by_background_alone = 1 << len(rows.slots[0]) - 1 if background else 0
    assert rows.entity_bits[0, special].eq(seen_by_background_alone).all() == (treatment == "masked")


def test_of_a_single_entity_nothing_is_masked(tokenizer):
    prompt = align_tokens(Prompt.from_entities("a red robot", [["a red robot"]]), tokenizer)
    rows = rows_for(prompt, eos="masked", padding="masked")
    special = [n for n, token in enumerate(prompt.tokens) if token.kind in ("eos", "pad")]
    assert rows.entity_bits[0, special].eq(-1).all()


def test_more_entities_than_bits(tokenizer):
    text = " ".join(f"item{i}" for i in range(36))
    prompt = align_tokens(Prompt.from_entities(text, [[f"item{i}"] for i in range(36)]), tokenizer, length=154)
    with pytest.warns(UserWarning, match=r"36 entities.*first 32"):
        rows = condition_rows([prompt], 154, ModulationConfig(**PLAIN), "cpu")
    bits = [value & 0xFFFFFFFF for value in rows.entity_bits[0].tolist()]
    assert {value for value in bits if value != 0xFFFFFFFF} == {1 << g for g in range(32)}


@pytest.mark.parametrize("count", [30, 31, 36])
def test_a_background_beside_as_many_entities_as_bits(tokenizer, count):
    """Masked tokens are the background's alone; its bit may be the sign of int32."""
    words = [f"item{i}" for i in range(count)]
    prompt = align_tokens(Prompt.from_entities(" ".join(words), [[word] for word in words]), tokenizer, length=154)
    config = ModulationConfig(**{**PLAIN, "unowned_background": True, "eos": "masked", "padding": "masked"})
    with pytest.warns(UserWarning, match="first 31") if count > 31 else contextlib.nullcontext():
        rows = condition_rows([prompt], 154, config, "cpu")
    slot = min(count, 31)
    assert rows.slots[0][slot] == -1
    bits = [value & 0xFFFFFFFF for value in rows.entity_bits[0].tolist()]
    by_kind = {
        kind: {bits[n] for n, token in enumerate(prompt.tokens) if token.kind == kind} for kind in ("eos", "pad")
    }
    assert by_kind == {"eos": {1 << slot}, "pad": {1 << slot}}
    assert {value for value in bits if value not in (0xFFFFFFFF, 1 << slot)} == {
        1 << g | 1 << slot for g in range(slot)
    }


def test_a_prompt_of_another_length_is_refused(nested):
    with pytest.raises(ValueError, match=r"77 tokens.*154"):
        condition_rows([nested], 154, ModulationConfig(), "cpu")


def test_the_mean_affinity_starts_anew_with_every_run(nested):
    """Equal embeddings for run after run: what one has seen must not leak into the next image."""
    rows = rows_for(nested, balanced=True)
    for _ in range(2):
        for t, begins in ((999.0, True), (500.0, False), (500.0, False), (1.0, False)):
            assert bool(rows.starts_run(torch.tensor([t]))) == begins
            assert rows.mean_affinity.eq(1).all() == begins
            rows.mean_affinity.fill_(0.3)


def test_balancing_undoes_the_strength_of_an_entity(nested):
    rows = rows_for(nested, balanced=True)
    rows.mean_affinity[0, :3] = torch.tensor([0.5, 0.05, 0.0])
    rows.balance()
    votes = rows.balanced_affinity[0].amax(dim=0)[:2]
    assert votes.tolist() == pytest.approx([2.0, 20.0])
    assert rows.balanced_affinity.isfinite().all(), "an entity that nobody looks at"


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_equalizing_weighs_the_neglected_entity_up(nested, strength):
    """Attended to at 4 : 1 : 2, they are twice, half and once their geometric mean."""
    rows = rows_for(None, nested, equalize_entities=strength)
    assert rows.equalization(strength).eq(0).all(), "before anything was seen"
    rows.mean_affinity[1, :3] = torch.tensor([0.4, 0.1, 0.2])
    change = rows.equalization(strength)
    assert change[0].eq(0).all()
    voting = rows.affinity[1] > 0  # [T, G]
    assert change[1][voting[:, 0]].tolist() == pytest.approx([-strength * math.log(2)] * int(voting[:, 0].sum()))
    assert change[1][voting[:, 1]].tolist() == pytest.approx([strength * math.log(2)] * int(voting[:, 1].sum()))
    others = ~voting[:, :2].any(1)
    assert change[1][others].abs().max() < 1e-6, "the third entity, and words of none"


def test_equalizing_has_a_limit_and_leaves_the_background_alone(nested):
    rows = rows_for(nested, equalize_entities=1.0, unowned_background=True)
    rows.mean_affinity[0, :3] = torch.tensor([1.0, 1e-8, 1e-8])
    change = rows.equalization(1.0)[0]
    assert change.max() == pytest.approx(MOST_EQUALIZED)
    assert change.min() == pytest.approx(-MOST_EQUALIZED)
    assert change[rows.is_global[0]].eq(0).all()
