"""The miniature's training at toy size, and what may happen to it."""

import dataclasses
import errno
import os

import torch

from attnmod.benchmarks.miniature import train as training
from attnmod.benchmarks.miniature.checkpoint import TrainingState
from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.train import Trainer

TOY = MiniatureConfig(
    merges=64,
    text_width=32,
    text_layers=2,
    channels=(32, 32),
    vae_channels=(8, 8, 8),
    latent_channels=6,
    pictures=12,
    steps=4,
    batch=3,
    warmup=2,
    vae_pictures=8,
    vae_cycles=2,
    vae_steps=2,
    vae_batch=2,
    decoder_steps=2,
)
CPU = torch.device("cpu")


def assert_same_to_the_bit(one: TrainingState, other: TrainingState) -> None:
    assert one.step == other.step
    assert one.losses == other.losses
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name
        assert torch.equal(one.averaged[name], other.averaged[name]), name
    for name, moments in one.moments.items():
        assert all(torch.equal(a, b) for a, b in zip(moments, other.moments[name], strict=True)), name


def toy_command(monkeypatch):
    """Let the command line train at toy size."""

    def settings(**values):
        return dataclasses.replace(TOY, **values)

    settings.steps = TOY.steps
    monkeypatch.setattr(training, "MiniatureConfig", settings)


def interrupted_at(monkeypatch, step):
    """Let somebody press Ctrl-C, once."""
    advance = Trainer.advance

    def stop(trainer):
        if trainer.step == step:
            monkeypatch.setattr(Trainer, "advance", advance)
            raise KeyboardInterrupt
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", stop)


def full_disk(monkeypatch):
    """Let no file be written to its end."""

    def fsync(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
