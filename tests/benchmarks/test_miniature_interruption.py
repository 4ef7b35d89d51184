"""A training that is interrupted anywhere: no half-made step is kept, and it goes on to the bit."""

import os
import signal

import pytest
import torch

from attnmod.benchmarks.miniature import train as training
from attnmod.benchmarks.miniature.checkpoint import load_checkpoint
from attnmod.benchmarks.miniature.train import CHECKPOINT, Interruption, Trainer, main, train
from tests.benchmarks.toy_training import CPU, TOY, assert_same_to_the_bit, interrupted_at, toy_command

ENDINGS = (signal.SIGTERM, signal.SIGINT)


def in_the_middle_of_step(monkeypatch, number, happening):
    """After AdamW has changed the weights, and before their average follows."""
    average, steps = torch._foreach_lerp_, []

    def follow(*arguments):
        if len(arguments[0]) > 100:  # the training's own, not the optimizer's
            steps.append(1)
            if len(steps) == number:
                happening()
        return average(*arguments)

    monkeypatch.setattr(torch, "_foreach_lerp_", follow)


def interrupt():
    raise KeyboardInterrupt


def assert_goes_on_to_the_bit(folder, run):
    train(TOY, folder, CPU)
    assert_same_to_the_bit(*(load_checkpoint(path / CHECKPOINT, TOY)[0] for path in (run, folder)))


def test_a_half_made_step_is_not_kept(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupted_at(patched, 1)
        with pytest.raises(KeyboardInterrupt):
            train(TOY, tmp_path, CPU)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with monkeypatch.context() as patched:
        in_the_middle_of_step(patched, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(TOY, tmp_path, CPU)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert_goes_on_to_the_bit(tmp_path, run)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_signal_waits_for_the_step_s_end(run, tmp_path, monkeypatch, capsys, ending):
    toy_command(monkeypatch)
    handlers = [signal.getsignal(number) for number in ENDINGS]
    with monkeypatch.context() as patched:
        in_the_middle_of_step(patched, 2, lambda: os.kill(os.getpid(), ending))
        assert main(["--run", str(tmp_path), "--device", "cpu"]) == 130
    assert f"the same command goes on from {tmp_path / CHECKPOINT}" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / CHECKPOINT, TOY)[0].step == 2
    assert [signal.getsignal(number) for number in ENDINGS] == handlers
    assert_goes_on_to_the_bit(tmp_path, run)


def test_a_second_signal_interrupts_at_once(run, tmp_path, monkeypatch, capsys):
    toy_command(monkeypatch)
    with monkeypatch.context() as patched:
        in_the_middle_of_step(patched, 2, lambda: [os.kill(os.getpid(), number) for number in ENDINGS])
        assert main(["--run", str(tmp_path), "--device", "cpu"]) == 130
    assert not (tmp_path / CHECKPOINT).exists()
    told = capsys.readouterr().err
    assert "interrupted before there was a checkpoint" in told
    assert "goes on" not in told
    assert_goes_on_to_the_bit(tmp_path, run)


def test_a_signal_in_the_preparation_interrupts_at_once(tmp_path, monkeypatch):
    toy_command(monkeypatch)
    handlers = [signal.getsignal(number) for number in ENDINGS]
    reached = []

    def prepare(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append(1)

    monkeypatch.setattr(training, "prepare", prepare)
    assert main(["--run", str(tmp_path), "--device", "cpu"]) == 130
    assert not reached
    assert [signal.getsignal(number) for number in ENDINGS] == handlers


def test_a_signal_in_the_last_step_ends_nothing(tmp_path, monkeypatch):
    """There is nothing left to interrupt."""
    toy_command(monkeypatch)
    in_the_middle_of_step(monkeypatch, TOY.steps, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["--run", str(tmp_path), "--device", "cpu"]) == 0
    assert load_checkpoint(tmp_path / CHECKPOINT, TOY)[0].step == TOY.steps


def test_a_trainer_is_whole_between_steps_only(run, monkeypatch):
    pipe, latents, tokens, _ = training.prepare(TOY, run, CPU)
    trainer, seen = Trainer(pipe, latents, tokens, TOY), []
    in_the_middle_of_step(monkeypatch, 1, lambda: seen.append(trainer.is_whole))
    assert trainer.is_whole
    trainer.advance()
    assert seen == [False]
    assert trainer.is_whole


def test_the_wish_is_read_or_taken_at_once():
    with Interruption() as interruption:
        interruption.is_read = True
        signal.raise_signal(signal.SIGINT)
        assert interruption.is_wished
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
