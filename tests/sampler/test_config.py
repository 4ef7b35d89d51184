import json

import pytest
import torch

from attnmod import Curve, ModulationConfig, modulate
from attnmod.sampler.config import PRESETS
from attnmod.sampler.untrained import sdxl_shaped_pipeline


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset, tmp_path):
    config = ModulationConfig.preset(preset)
    assert ModulationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.save(tmp_path / "config.json")
    assert ModulationConfig.load(tmp_path / "config.json") == config
    assert hash(config) == hash(ModulationConfig.preset(preset))


def test_presets_are_the_mechanisms_one_by_one():
    flags = {name: ModulationConfig.preset(name) for name in PRESETS}
    assert {name: (c.modulates_self_attention, c.modulates_cross_attention) for name, c in flags.items()} == {
        "default": (True, True),
        "described": (True, True),
        "neutral": (False, False),
        "temperature": (True, False),
        "mask": (False, True),
        "reweighting": (False, True),
    }
    assert [name for name, config in flags.items() if config.is_neutral] == ["neutral"]


def test_absent_tokens_are_a_modulation():
    neutral = ModulationConfig.preset("neutral").to_dict()
    assert not ModulationConfig.from_dict({**neutral, "padding": "absent"}).is_neutral


def test_numbers_become_constant_curves():
    assert ModulationConfig(temperature=0.5).temperature == Curve("constant", 0.5)


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        ({"temprature": 1}, ValueError, "temprature"),
        ({"temperature": 0}, ValueError, "temperature"),
        ({"temperature": {"kind": "linear", "start": 1, "end": 0}}, ValueError, "temperature"),
        ({"temperature": {"kind": "linear", "start": 1, "end": -1}}, ValueError, "temperature.*end"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"hidden_weight": 1.5}, ValueError, "hidden_weight"),
        ({"global_weight": {"kind": "linear", "start": 1, "end": -0.5}}, ValueError, "global_weight.*end"),
        ({"vote": "max"}, ValueError, "vote.*max"),
        ({"bos": "gone"}, ValueError, "bos"),
        ({"backend": "cuda"}, ValueError, "backend"),
        ({"temperature_rows": "some"}, ValueError, "temperature_rows"),
        ({"balanced": 1}, TypeError, "balanced"),
        ({"ownership": "step"}, ValueError, "ownership"),
        ({"deciding_sizes": "8x8"}, ValueError, "deciding_sizes"),
        ({"average_decay": 1.0}, ValueError, "average_decay"),
        ({"average_decay": "0.5"}, TypeError, "average_decay"),
        ({"average_smoothing": -0.1}, ValueError, "average_smoothing"),
        ({"average_smoothing": 0.6}, ValueError, "average_smoothing"),
        ({"average_smoothing": float("nan")}, ValueError, "average_smoothing"),
        ({"owned_above": -1, "ownership": "average"}, ValueError, "owned_above"),
        ({"owned_above": float("inf"), "ownership": "average"}, ValueError, "owned_above"),
        ({"owned_above": True, "ownership": "average"}, TypeError, "owned_above"),
        ({"equalize_entities": 1.1}, ValueError, "equalize_entities"),
        ({"self_attention_layers": "mid*"}, TypeError, "self_attention_layers"),
        ({"self_attention_layers": None}, TypeError, "self_attention_layers is None"),
        ({"cross_attention_layers": 3}, TypeError, "cross_attention_layers is 3"),
        ({"cross_attention_layers": ["mid*", 3]}, TypeError, "cross_attention_layers"),
        ({"cross_attention_layers": (pattern for pattern in "*")}, TypeError, "cross_attention_layers"),
    ],
)
def test_bad_values_are_refused_by_name(values, error, named):
    with pytest.raises(error, match=named):
        ModulationConfig.from_dict(values)


def test_heads_share_a_map_that_they_are_handed_whether_they_are_told_to_or_not():
    pipe = sdxl_shaped_pipeline(channels=(64, 128), transformer_layers=(1, 1), vae_channels=(32, 32, 32, 32))
    pipe.set_progress_bar_config(disable=True)
    text, left = "a red cube and a blue sphere", torch.tensor([[1.0, 0.0]])

    def latents(masks, **settings):
        with modulate(pipe, ModulationConfig(hidden_weight=0.0, owned_above=0.0, **settings)) as handle:
            handle.set_prompt(text, masks=masks)
            call = dict(height=64, width=64, num_inference_steps=3, output_type="latent")
            return pipe(text, generator=torch.Generator().manual_seed(0), **call).images

    for ownership, masks, is_handed in (
        ("average", None, True),
        ("layer", [left, 1 - left], True),
        ("layer", None, False),
    ):
        shared, own = (latents(masks, ownership=ownership, share_heads=share) for share in (True, False))
        assert torch.equal(shared, own) == is_handed


def test_a_file_that_is_no_configuration(tmp_path):
    path = tmp_path / "config.json"
    for text in ("{", "[1]", '{"vote": "max"}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            ModulationConfig.load(path)
