"""`attnmod generate`, as a function and as a command."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from attnmod import ModulationConfig, Prompt
from attnmod.sampler import generate as generation
from attnmod.sampler.cli import main
from attnmod.sampler.generate import Settings, free_name, load_pipeline, output_files, read_record
from attnmod.sampler.untrained import sdxl_shaped_pipeline

PROMPT = "a red cube and a blue sphere"
WEIGHTED = "a (red cube:1.5) and a blue sphere"
QUICK = ["--steps", "2", "--width", "64", "--height", "96"]


@pytest.fixture(scope="session")
def small():
    pipe = sdxl_shaped_pipeline(channels=(64, 64), transformer_layers=(1, 1), vae_channels=(32, 32, 32, 32))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def model(tmp_path_factory, small):
    """The small pipeline saved as safetensors."""
    folder = tmp_path_factory.mktemp("model")
    small.save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attnmod(*arguments, expect=0):
    code = 0
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == expect
    return code


def error_of(capsys, *arguments):
    """The one line that a failing command prints, after the progress bar if it came so far."""
    attnmod(*arguments, expect=2)
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "%|" not in line]
    assert len(lines) == 1, lines
    return lines[0]


# -- what is written


def test_image_map_and_record(here, model, capsys):
    attnmod("generate", PROMPT, "--model", model, "--out", "x.png", *QUICK)
    image, overlay = Image.open("x.png"), Image.open("x.map.png")
    assert image.size == (64, 96)
    assert overlay.width == 256, "enlarged for its legend"
    assert overlay.height > 96
    record = json.loads((here / "x.json").read_text())
    assert record["settings"]["prompt"] == PROMPT
    assert [entity.text for entity in Prompt.from_dict(record["prompt"]).entities] == ["a red cube", "a blue sphere"]
    assert {owner for line in record["entity_map"] for owner in line} <= {-1, 0, 1}
    assert record["versions"]["torch"]
    assert sorted(path.name for path in here.iterdir()) == ["x.json", "x.map.png", "x.png"]
    printed = capsys.readouterr().out
    assert "x.map.png" in printed
    assert "a blue sphere" in printed


def test_the_map_step_by_step(here, model):
    attnmod("generate", PROMPT, "--model", model, "--strip", "--out", "x.png", *QUICK)
    assert Image.open("x.steps.png").width > 2 * 64


def test_the_same_image_again_from_the_record(here, model):
    attnmod("generate", PROMPT, "--model", model, "--seed", 5, "--guidance-scale", 3, "--out", "x.png", *QUICK)
    attnmod("generate", "--from", "x.json", "--out", "y.png")
    assert np.array_equal(np.asarray(Image.open("x.png")), np.asarray(Image.open("y.png")))
    first, second = (json.loads((here / name).read_text()) for name in ("x.json", "y.json"))
    assert first == second
    attnmod("generate", "--from", "x.json", "--seed", 6, "--out", "z.png")
    assert not np.array_equal(np.asarray(Image.open("x.png")), np.asarray(Image.open("z.png")))
    assert json.loads((here / "z.json").read_text())["settings"]["guidance_scale"] == 3


def test_without_modulation_it_is_the_stock_image(here, model):
    attnmod("generate", PROMPT, "--model", model, "--no-modulation", "--out", "stock.png", *QUICK)
    attnmod("generate", PROMPT, "--model", model, "--config", "neutral", "--out", "neutral.png", *QUICK)
    attnmod("generate", PROMPT, "--model", model, "--out", "on.png", *QUICK)
    stock, neutral, modulated = (np.asarray(Image.open(f"{name}.png")) for name in ("stock", "neutral", "on"))
    pipe = load_pipeline(Settings(PROMPT, model=str(model)))
    by_hand = pipe(
        PROMPT,
        num_inference_steps=2,
        width=64,
        height=96,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert np.array_equal(stock, np.asarray(by_hand))
    assert np.array_equal(stock, neutral)
    assert not np.array_equal(stock, modulated)
    assert not (here / "stock.map.png").exists()


def test_an_installation_without_the_miniature_says_that_it_draws_noise(here, monkeypatch, capsys):
    monkeypatch.setattr("attnmod.sampler.miniature.MINIATURE", here / "nowhere")
    attnmod("generate", PROMPT, *QUICK)
    assert "this picture is noise" in capsys.readouterr().out
    assert (here / "generated" / "a-red-cube-and-a-blue-sphere-1.png").exists()


def test_a_config_file(here, model):
    config = ModulationConfig(temperature=0.5, vote="head")
    config.save("mine.json")
    attnmod("generate", PROMPT, "--model", model, "--config", "mine.json", "--out", "x.png", *QUICK)
    assert read_record(here / "x.json").config == config


def test_weight_syntax_is_taken_out_and_weighs(here, model):
    attnmod("generate", "a (red cube:1.5) and a blue sphere", "--model", model, "--out", "x.png", *QUICK)
    attnmod("generate", PROMPT, "--model", model, "--out", "y.png", *QUICK)
    weighted, plain = (json.loads((here / name).read_text())["prompt"] for name in ("x.json", "y.json"))
    assert weighted["text"] == plain["text"] == PROMPT
    assert [token["weight"] for token in weighted["tokens"][:6]] == [1, 1, 1.5, 1.5, 1, 1]
    assert not np.array_equal(np.asarray(Image.open("x.png")), np.asarray(Image.open("y.png")))


@pytest.mark.parametrize("prompt", ["", "x" * 10_000, "красный куб и синий шар"])
def test_odd_prompts(here, model, prompt):
    attnmod("generate", prompt, "--model", model, "--out", "x.png", *QUICK)
    assert read_record(here / "x.json").prompt == prompt


@pytest.mark.parametrize(
    "options",
    [
        dict(modulation=False),
        dict(config=ModulationConfig.preset("neutral")),
        dict(config=ModulationConfig.preset("temperature")),
        dict(config=ModulationConfig(cross_attention_layers=())),
    ],
)
def test_weights_that_nothing_reads_are_told_of_once(small, options):
    quick = dict(steps=1, width=64, height=64)
    with pytest.warns(UserWarning, match="word weights have no effect") as warned:
        weighted = generation.generate(Settings(WEIGHTED, **quick, **options), small)
    assert [warning.filename for warning in warned if warning.category is UserWarning] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for prompt in (PROMPT, "a (red cube:1.0) and a blue sphere"):
            plain = generation.generate(Settings(prompt, **quick, **options), small)
    assert np.array_equal(np.asarray(weighted.image), np.asarray(plain.image)), "no effect indeed"


@pytest.mark.parametrize("preset", ["default", "mask", "reweighting"])
def test_weights_that_are_read_are_no_matter(small, preset):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        settings = Settings(WEIGHTED, steps=1, width=64, height=64, config=ModulationConfig.preset(preset))
        generation.generate(settings, small)


def test_settings_survive_json():
    settings = Settings(PROMPT, steps=3, width=64, config=ModulationConfig.preset("mask"))
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_free_names_do_not_collide(here):
    assert free_name("A boy, in front!", here).name == "a-boy-in-front-1.png"
    (here / "a-boy-in-front-1.json").touch()
    assert free_name("A boy, in front!", here).name == "a-boy-in-front-2.png"
    assert free_name("?!", here).name == "image-1.png"
    assert len(free_name("word" * 100, here).name) < 80


# -- nothing is lost


def test_files_that_exist_are_kept(here, model, capsys):
    (here / "x.map.png").write_text("mine")
    message = error_of(capsys, "generate", PROMPT, "--model", model, "--out", "x.png", *QUICK)
    assert "x.map.png exists" in message
    assert "--force" in message
    assert (here / "x.map.png").read_text() == "mine"
    attnmod("generate", PROMPT, "--model", model, "--out", "x.png", "--force", *QUICK)
    assert Image.open("x.map.png").width == 256


def test_a_failing_run_leaves_no_file(here, model, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(generation, "generate", fail)
    assert "out of memory" in error_of(capsys, "generate", PROMPT, "--out", "x.png")
    assert not list(here.iterdir())


def test_a_failing_write_leaves_no_file(here, model, monkeypatch, capsys):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Settings, "to_dict", fail)  # the record is written last
    assert "No space left" in error_of(capsys, "generate", PROMPT, "--model", model, "--out", "x.png", *QUICK)
    assert not list(here.iterdir())


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--width", "100"], "width is 100"),
        (["--height", "0"], "height is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--guidance-scale", "nan"], "guidance_scale is nan"),
        (["--seed", "-1"], "seed is -1"),
        (["--dtype", "int8"], "dtype is 'int8'"),
        (["--device", "abacus"], "device is 'abacus'"),
        (["--out", "x.txt"], "x.txt"),
        (["--out", "nowhere/x.png"], "does not exist"),
        (["--config", "nothing.json"], "nothing.json"),
        (["--model", "./nothing"], "'./nothing'"),
        (["--model", "no such thing"], "'no such thing'"),
        (["--steps", "many"], "many"),
        (["--from", "nothing.json"], "nothing.json"),
    ],
)
def test_bad_arguments_are_one_line(here, capsys, arguments, named):
    assert named in error_of(capsys, "generate", PROMPT, *arguments)
    assert not [path for path in here.iterdir() if path.name != "generated"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", None),
        ("negative_prompt", 3),
        ("model", 3),
        ("steps", "20"),
        ("steps", 2.5),
        ("steps", True),
        ("guidance_scale", "5"),
        ("guidance_scale", None),
        ("guidance_scale", False),
        ("seed", 1.5),
        ("seed", None),
        ("width", "64"),
        ("height", 64.0),
        ("height", True),
        ("device", None),
        ("dtype", 16),
        ("modulation", "no"),
        ("modulation", 0),
        ("config", "mask"),
        ("config", None),
    ],
)
def test_a_value_of_another_type_is_named(name, value):
    with pytest.raises(TypeError, match=rf"{name} is {value!r}; it must be"):
        Settings(**{"prompt": PROMPT, name: value})


def test_every_setting_has_a_type():
    checked = [name for names, _, _ in generation._TYPES for name in names]
    assert sorted(checked) == sorted(field.name for field in dataclasses.fields(Settings))


def test_numbers_that_are_whole_may_be_a_guidance_scale():
    assert Settings(PROMPT, guidance_scale=3).guidance_scale == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda works here")
def test_a_device_that_is_not_there(here, capsys):
    assert "device is 'cuda'" in error_of(capsys, "generate", PROMPT, "--device", "cuda")


def test_a_prompt_is_needed(here, capsys):
    assert "a prompt is needed" in error_of(capsys, "generate")


def test_unknown_settings_in_a_config(here, capsys):
    (here / "c.json").write_text('{"temprature": 1}')
    assert "temprature" in error_of(capsys, "generate", PROMPT, "--config", "c.json")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 0}',
        '{"format": 1, "settings": {"prompt": "x", "colour": 1}}',
        '{"format": 1, "settings": {"prompt": "x", "steps": "20"}}',
        '{"format": 1, "settings": []}',
    ],
)
def test_a_broken_record(here, capsys, text):
    (here / "r.json").write_text(text)
    assert "r.json" in error_of(capsys, "generate", "--from", "r.json")


def test_model_folders_that_cannot_be_used(here, model, capsys):
    (here / "empty").mkdir()
    assert "model_index.json" in error_of(capsys, "generate", PROMPT, "--model", "empty")

    pickled = shutil.copytree(model, here / "pickled")
    for weights in pickled.glob("unet/*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    message = error_of(capsys, "generate", PROMPT, "--model", "pickled")
    assert "pickled weights only" in message
    assert "safetensors" in message

    partly = shutil.copytree(model, here / "partly")
    for weights in partly.glob("vae/*.safetensors"):
        torch.save(load_file(weights), weights.with_suffix(".bin"))  # a pickle that would load
        weights.unlink()
    assert "partly" in error_of(capsys, "generate", PROMPT, "--model", "partly")

    other = shutil.copytree(model, here / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    assert "FluxPipeline" in error_of(capsys, "generate", PROMPT, "--model", "other")


def test_a_folder_with_fp16_weights_only(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "fp16")
    for weights in folder.glob("*/*.safetensors"):
        weights.rename(weights.with_name(f"{weights.stem}.fp16.safetensors"))
    assert load_pipeline(Settings(PROMPT, model=str(folder))).unet.dtype == torch.float32


def test_output_files(tmp_path):
    settings = Settings(PROMPT)
    assert set(output_files(tmp_path / "x.jpg", settings)) == {"image", "map", "record"}
    assert set(output_files(tmp_path / "x.jpg", Settings(PROMPT, modulation=False))) == {"image", "record"}
