"""The files of a training: damaged, missing or not writable, each is told of in one line, and nothing half is left."""

import shutil

import pytest
import torch
from safetensors import SafetensorError

from attnmod.benchmarks.miniature import assess, autoencoder, export, sheet
from attnmod.benchmarks.miniature import train as training
from attnmod.benchmarks.miniature.checkpoint import load_checkpoint
from attnmod.benchmarks.miniature.train import CHECKPOINT, train
from tests.benchmarks.toy_training import CPU, TOY, toy_command


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the finished toy training, to harm."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a main at toy size; its exit status and the one line of error that it ends in."""
    toy_command(monkeypatch)

    def run_command(main, *arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return status, "\n".join(line for line in told.splitlines() if line.startswith("error: "))

    return run_command


def full(_tensors, path, *_arguments, **_options):
    """What safetensors does on a full disk."""
    with open(path, "wb") as stream:
        stream.write(b"half")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def untouched(*_arguments, **_options):
    raise AssertionError("nothing may be trained or drawn here")


# -- not writable


def test_an_autoencoder_that_cannot_be_written(tmp_path, monkeypatch, command):
    monkeypatch.setattr(autoencoder, "save_file", full)
    status, told = command(training.main, "--run", tmp_path, "--device", "cpu")
    assert status == 2
    assert told.startswith(f"error: {tmp_path}/autoencoder-")
    assert "could not be written: " in told
    assert "No space left" in told
    left = {path.name.split("-")[0] for path in tmp_path.iterdir() if ".losses" not in path.name}
    assert left == {"pictures", "tokens"}
    assert not list(tmp_path.glob("*.partial"))


def test_an_export_that_cannot_be_written(copied, tmp_path, monkeypatch, command):
    out = tmp_path / "out" / "miniature"
    monkeypatch.setattr(
        export, "save_pipeline", lambda _pipe, folder: (folder.mkdir(parents=True), full({}, folder / "x"))
    )
    status, told = command(export.main, "--run", copied, "--out", out)
    assert status == 2
    assert told.startswith(f"error: {out} could not be written: ")
    assert list(out.parent.iterdir()) == []


# -- damaged or missing


def commands_on(run):
    """Every command that reads a training's folder, with what it needs beside it."""
    return (training.main, ["--device", "cpu"]), (export.main, ["--out", run / "out"]), (sheet.main, [])


@pytest.mark.parametrize("kind", ["autoencoder", "decoder"])
def test_a_damaged_autoencoder_is_told_of_and_left_alone(copied, command, kind):
    path = sorted(copied.glob(f"{kind}-*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-50])
    before = path.read_bytes()
    for main, more in commands_on(copied):
        status, told = command(main, "--run", copied, *more)
        assert status == 2
        assert told.startswith(f"error: {path} is truncated or damaged (")
    assert path.read_bytes() == before


def test_no_other_autoencoder_is_put_to_a_trained_unet(copied, monkeypatch, command):
    path = sorted(copied.glob("autoencoder-*.safetensors"))[-1]
    path.unlink()
    monkeypatch.setattr(autoencoder, "train_autoencoder", untouched)
    for main, more in commands_on(copied):
        status, told = command(main, "--run", copied, *more)
        assert status == 2
        assert told.startswith(f"error: {path} is missing, ")
    with pytest.raises(FileNotFoundError, match=path.name):
        sheet.averaged_pipeline(copied, CPU)


def test_a_missing_decoder_is_trained_by_a_training_alone(copied, monkeypatch, command):
    """Its latents are those of the autoencoder, so it fits; but nobody who exports waits for that."""
    (path,) = copied.glob("decoder-*.safetensors")
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(autoencoder, "refine_decoder", untouched)
        for main, more in ((export.main, ["--out", copied / "out"]), (sheet.main, [])):
            status, told = command(main, "--run", copied, *more)
            assert status == 2
            assert told.startswith(f"error: {path} is missing, ")
    assert command(training.main, "--run", copied, "--device", "cpu") == (0, "")
    assert path.is_file()
    assert command(export.main, "--run", copied, "--out", copied / "out") == (0, "")


def test_pictures_of_no_training(tmp_path, command):
    status, told = command(sheet.main, "--run", tmp_path)
    assert (status, told) == (2, f"error: there is no checkpoint {tmp_path / CHECKPOINT}")


# -- commands


@pytest.mark.parametrize(
    ("main", "wrong", "message"),
    [
        (training.main, ["--run", "x", "--steps", "0"], "--steps is 0; it must be at least 1"),
        (sheet.main, ["--run", "x", "--split", "tests"], "invalid choice: 'tests'"),
        (sheet.main, ["--run", "x", "--per-count", "0"], "--per-count is 0"),
        (assess.main, ["--prompts", "0"], "--prompts is 0; it must be at least 1"),
        (assess.main, ["--steps", "0"], "--steps is 0; it must be at least 1"),
        (assess.main, ["--model", "nowhere"], "--model is nowhere, where no model_index.json lies"),
    ],
)
def test_bad_arguments_are_told(main, wrong, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", untouched)  # at full size
    monkeypatch.setattr(assess, "assess", untouched)
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_fewer_steps_than_were_made_train_nothing_and_say_so(copied, monkeypatch, capsys):
    toy_command(monkeypatch)
    before = (copied / CHECKPOINT).read_bytes()
    assert training.main(["--run", str(copied), "--device", "cpu", "--steps", "2"]) == 0
    assert "has 4 steps already, more than the 2 asked for" in capsys.readouterr().out
    assert (copied / CHECKPOINT).read_bytes() == before
    assert training.main(["--run", str(copied), "--device", "cpu"]) == 0
    assert "already" not in capsys.readouterr().out


def test_the_sheet_is_drawn(copied, monkeypatch, capsys):
    shown = {}

    def draw(_pipe, prompts, **options):
        shown.update(options, count=len(prompts))
        return torch.zeros(len(prompts), 64, 64, 3, dtype=torch.uint8).numpy()

    monkeypatch.setattr(sheet, "draw_samples", draw)
    assert sheet.main(["--run", str(copied), "--per-count", "1", "--split", "test"]) == 0
    assert shown == {"guidance_scale": 5.0, "count": 4}
    assert (copied / f"sheet-{load_checkpoint(copied / CHECKPOINT)[0].step:06d}.png").is_file()
    assert "step 4, " in capsys.readouterr().out


def test_resuming_needs_the_autoencoder(copied):
    for path in copied.glob("autoencoder-*.safetensors"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="autoencoder-"):
        train(TOY, copied, CPU)
    (copied / CHECKPOINT).unlink()
    assert train(TOY, copied, CPU).step == TOY.steps
