"""A toy training that begins with an exported model: its very weights, resume to the bit, and nothing half or mixed."""

import dataclasses
import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from attnmod.benchmarks.miniature.autoencoder import encode_pictures, to_model
from attnmod.benchmarks.miniature.beginning import FOLDER, keep_beginning, load_beginning
from attnmod.benchmarks.miniature.checkpoint import load_checkpoint
from attnmod.benchmarks.miniature.data import draw_example
from attnmod.benchmarks.miniature.export import export
from attnmod.benchmarks.miniature.model import make_pipeline
from attnmod.benchmarks.miniature.train import CHECKPOINT, Trainer, main, prepare
from tests.benchmarks.toy_training import CPU, TOY, assert_same_to_the_bit, interrupted_at, toy_command


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """What the toy training exported."""
    out = tmp_path_factory.mktemp("exported") / "miniature"
    export(run, out)
    return out


@pytest.fixture(scope="module")
def another(exported, tmp_path_factory):
    """A model like it, with one weight changed."""
    model = tmp_path_factory.mktemp("another") / "miniature"
    shutil.copytree(exported, model)
    file = weight_file(model, "unet")
    weights = load_file(file)
    weights["conv_in.bias"][0] += 1
    save_file(weights, file)
    return model


@pytest.fixture(scope="module")
def begun(exported, tmp_path_factory):
    """The folder of a finished toy training that began with the exported model."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy_command(monkeypatch)
        assert main(["--run", str(folder), "--device", "cpu", "--begin-with", str(exported)]) == 0
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the training's command at toy size; gives its exit status and the last line of what it told."""
    toy_command(monkeypatch)

    def run_command(folder, *options):
        capsys.readouterr()
        status = main(["--run", str(folder), "--device", "cpu", *map(str, options)])
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "interrupted"))]
        return status, told[-1] if told else ""

    return run_command


def weight_file(model: Path, part: str) -> Path:
    (file,) = (model / part).glob("*.safetensors")
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what it begins with


def test_step_0_has_the_exported_weights(run, exported, tmp_path):
    config = dataclasses.replace(TOY, begins_with=keep_beginning(exported, tmp_path))
    pipe, latents, tokens, _ = prepare(config, tmp_path, CPU)
    trainer = Trainer(pipe, latents, tokens, config)
    averaged = load_checkpoint(run / CHECKPOINT)[0].averaged
    assert trainer.weights.keys() == averaged.keys()
    for name, weight in trainer.weights.items():
        assert weight.dtype == torch.float32, name
        assert torch.equal(weight, averaged[name].half().float()), name
        assert torch.equal(trainer.averaged[name], weight), name


def test_its_autoencoder_is_used_and_none_is_trained(exported, tmp_path):
    config = dataclasses.replace(TOY, begins_with=keep_beginning(exported, tmp_path))
    pipe, latents, _, _ = prepare(config, tmp_path, CPU)
    vae = StableDiffusionXLPipeline.from_pretrained(exported, local_files_only=True).vae
    assert all(torch.equal(weight, vae.state_dict()[name]) for name, weight in pipe.vae.state_dict().items())
    pixels = np.stack([draw_example(TOY, index)[1] for index in range(TOY.pictures)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = vae.encode(to_model(pixels, CPU)).latent_dist.mean.half().numpy()
    assert np.array_equal(latents, expected), "encoded by another autoencoder, or normalised a second time"
    assert np.abs(latents.astype(float).std((0, 2, 3)) - 1).max() < 0.05
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("autoencoder", "decoder"))]


def test_latents_of_another_autoencoder_are_not_taken_for_its_own(run, exported, tmp_path):
    """The folder holds those of a training from random weights; the file names tell them apart."""
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / CHECKPOINT).unlink()
    config = dataclasses.replace(TOY, begins_with=keep_beginning(exported, tmp_path))
    pipe, latents, _, _ = prepare(config, tmp_path, CPU)
    (tmp_path / "anew").mkdir()
    pixels = np.stack([draw_example(TOY, index)[1] for index in range(TOY.pictures)])
    assert np.array_equal(latents, encode_pictures(pipe.vae, pixels, config, tmp_path / "anew"))


# -- resume


def test_it_goes_on_to_the_bit_without_being_told_again(begun, exported, tmp_path, command, monkeypatch):
    interrupted_at(monkeypatch, 2)
    assert command(tmp_path, "--begin-with", exported)[0] == 130
    assert load_checkpoint(tmp_path / CHECKPOINT)[0].step == 2
    assert command(tmp_path) == (0, "")
    (whole, config), (resumed, same) = (load_checkpoint(folder / CHECKPOINT) for folder in (begun, tmp_path))
    assert config == same
    assert_same_to_the_bit(whole, resumed)


def test_it_is_another_training_than_one_from_random_weights(run, begun):
    (random, _), (beginning, config) = (load_checkpoint(folder / CHECKPOINT) for folder in (run, begun))
    assert config.begins_with
    assert random.losses != beginning.losses


def test_the_export_of_such_a_training_needs_its_folder_alone(begun, tmp_path):
    export(begun, tmp_path / "out")
    averaged = load_checkpoint(begun / CHECKPOINT)[0].averaged
    kept = load_file(weight_file(tmp_path / "out", "unet"))
    assert torch.equal(kept["conv_in.weight"], averaged["unet.conv_in.weight"].half())


# -- what is refused


def test_another_model_is_refused_and_nothing_is_lost(begun, another, exported, tmp_path, command):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="began with another model than"):
        keep_beginning(another, tmp_path)
    status, told = command(tmp_path, "--begin-with", another)
    assert status == 2
    assert told == (
        f"error: the training in {tmp_path} began with another model than {another}; train in another folder"
    )
    assert contents(tmp_path) == before
    assert command(tmp_path, "--steps", 5) == (0, "")
    assert command(tmp_path, "--steps", 6, "--begin-with", exported) == (0, ""), "the same one may be named again"


def test_a_training_from_random_weights_refuses_it_and_goes_on(run, exported, tmp_path, command):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    status, told = command(tmp_path, "--begin-with", exported)
    assert (status, told) == (
        2,
        f"error: the training in {tmp_path} began with random weights; train in another folder",
    )
    assert contents(tmp_path) == before
    assert command(tmp_path, "--steps", 5) == (0, "")


def test_before_a_checkpoint_is_written_a_model_may_be_replaced(exported, another, tmp_path):
    first, second = keep_beginning(another, tmp_path), keep_beginning(exported, tmp_path)
    assert first != second == keep_beginning(None, tmp_path)
    assert contents(tmp_path / FOLDER) == contents(exported)


def test_a_kept_model_that_was_changed_or_lost(begun, another, exported, tmp_path, command):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / FOLDER)
    with pytest.raises(FileNotFoundError, match=f"{FOLDER} is no saved miniature"):
        export(tmp_path, tmp_path / "out")
    shutil.copytree(another, tmp_path / FOLDER)
    with pytest.raises(ValueError, match="is not the model that the training began with"):
        export(tmp_path, tmp_path / "out")
    status, told = command(tmp_path)
    assert status == 2
    assert "begins_with: " in told
    assert command(tmp_path, "--begin-with", exported, "--steps", 5) == (0, ""), "naming it again brings it back"


def damaged(model: Path, part: str) -> None:
    file = weight_file(model, part)
    file.write_bytes(file.read_bytes()[:-100])


NO_MODELS = {
    "missing": shutil.rmtree,
    "empty": lambda model: [shutil.rmtree(path) if path.is_dir() else path.unlink() for path in model.iterdir()],
    "no UNet": lambda model: shutil.rmtree(model / "unet"),
    "no index": lambda model: (model / "model_index.json").unlink(),
    "damaged UNet": lambda model: damaged(model, "unet"),
    "damaged text encoder": lambda model: damaged(model, "text_encoder"),
}


@pytest.mark.parametrize("harm", NO_MODELS.values(), ids=NO_MODELS)
def test_what_is_no_saved_pipeline_is_refused_before_it_is_copied(exported, tmp_path, command, harm):
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(exported, model)
    harm(model)
    status, told = command(folder, "--begin-with", model)
    assert status == 2
    assert told.startswith(f"error: {model} is no saved miniature")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "sizes"),
    [
        ("vae", {"vae_channels": (8, 8, 16)}),
        ("unet", {"channels": (32, 64)}),
        ("text_encoder", {"text_layers": 3}),
    ],
)
def test_other_sizes_are_told_of_by_part_and_before_any_work(exported, tmp_path, part, sizes):
    config = dataclasses.replace(TOY, begins_with=keep_beginning(exported, tmp_path), **sizes)
    with pytest.raises(ValueError, match=f"^the {part} to begin with has other sizes"):
        prepare(config, tmp_path, CPU)
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


# -- copies


def test_a_half_copy_does_no_harm(exported, tmp_path):
    partial = tmp_path / f"{FOLDER}.partial"
    (partial / "unet").mkdir(parents=True)
    (partial / "unet" / "half.safetensors").write_bytes(b"half")
    assert keep_beginning(None, tmp_path) == ""
    keep_beginning(exported, tmp_path)
    assert not partial.exists()
    assert contents(tmp_path / FOLDER) == contents(exported)


def test_a_full_disk_leaves_no_half_copy(exported, tmp_path, command, monkeypatch):
    copied, copy = [], shutil.copyfile

    def copyfile(source, target, **options):
        copied.append(target)
        if len(copied) > 3:
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy(source, target, **options)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    status, told = command(tmp_path, "--begin-with", exported)
    assert (status, told) == (
        2,
        f"error: {exported} could not be copied to {tmp_path / FOLDER}: [Errno 28] No space left on device",
    )
    assert len(copied) > 3
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "copyfile", copy)
    assert keep_beginning(exported, tmp_path) == keep_beginning(exported, tmp_path)


def test_a_full_disk_keeps_the_model_that_was_there(exported, another, tmp_path, monkeypatch):
    kept = keep_beginning(exported, tmp_path)

    def copyfile(_source, _target, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(OSError, match="No space left"):
        keep_beginning(another, tmp_path)
    pipe = make_pipeline(TOY)
    load_beginning(pipe, tmp_path, kept)
