"""The shipped miniature as the default of `attnmod generate`."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from attnmod.sampler import miniature
from attnmod.sampler.cli import main
from attnmod.sampler.generate import Settings, generate, load_pipeline
from attnmod.sampler.untrained import sdxl_shaped_pipeline

WORDS = {"shapes": ["circle", "circles"], "colours": ["red", "blue"], "numbers": ["a", "two"], "others": ["and", "the"]}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A pipeline in the miniature's place."""
    folder = tmp_path / "miniature"
    pipe = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32), sample_size=8)
    pipe.save_pretrained(folder)
    (folder / "words.json").write_text(json.dumps(WORDS))
    for module in ("miniature", "generate"):
        monkeypatch.setattr(f"attnmod.sampler.{module}.MINIATURE", folder)
    monkeypatch.chdir(tmp_path)
    return pipe


def test_it_is_what_generate_loads_when_no_model_is_named(stand_in):
    loaded = load_pipeline(Settings("a red circle", device="cpu"))
    assert torch.equal(loaded.unet.conv_in.weight, stand_in.unet.conv_in.weight)
    assert loaded.unet.dtype == torch.float32


def test_generate_uses_it_without_a_word(stand_in, capsys):
    assert main(["generate", "two red circles", "--steps", "1", "--out", "x.png"]) == 0
    printed = capsys.readouterr()
    assert "note" not in printed.out
    assert "warning" not in printed.err
    assert Image.open("x.png").size == (16, 16)


@pytest.mark.filterwarnings("default::UserWarning")
def test_a_prompt_beyond_its_world_is_drawn_with_a_warning(stand_in, capsys):
    assert main(["generate", "a red Boy and a boy's 2 circles", "--steps", "1", "--out", "x.png"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "never seen the words boy, s." in line
    assert "shapes (circle, circles); colours (red, blue)" in line
    assert "others" not in line
    assert Image.open("x.png").size == (16, 16)


def test_no_warning_for_a_model_that_was_named(stand_in, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_pipeline(Settings("a boy", model=str(tmp_path / "miniature"), device="cpu"))
    assert main(["generate", "a boy", "--model", "miniature", "--steps", "1", "--out", "x.png"]) == 0


def test_weight_syntax_is_no_word(stand_in, capsys):
    assert main(["generate", "a (red circle:1.3)", "--steps", "1", "--out", "x.png"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_an_installation_may_lack_it(tmp_path, monkeypatch):
    monkeypatch.setattr(miniature, "MINIATURE", tmp_path)
    assert not miniature.is_shipped()


# -- the one that is shipped


def test_the_shipped_one_is_small_has_its_card_and_only_safetensors():
    files = [path for path in miniature.MINIATURE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24 * 10**6
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors"}
    assert (miniature.MINIATURE / "README.md").is_file()
    assert miniature.beyond_the_world("two striped red circles above a star, at night") is None


def test_the_shipped_one_draws_the_light_that_is_asked_for():
    settings = [Settings(f"a yellow star, {light}", steps=8, modulation=False) for light in ("at night", "in daylight")]
    pipe = load_pipeline(dataclasses.replace(settings[0], device="cpu"))
    pipe.set_progress_bar_config(disable=True)
    night, day = (generate(one, pipe).image for one in settings)
    assert night.size == day.size == (64, 64)
    assert np.asarray(night).mean() + 60 < np.asarray(day).mean()
