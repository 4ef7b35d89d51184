"""Checkpoints of a training: whole or not at all, and only for the settings that they were made with.

One safetensors file: weights, averaged weights and AdamW's two moments in float32, the loss of every step, and in the
metadata the step and the settings. No random state: every draw of the training is a function of seed and step.
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from attnmod.benchmarks.miniature.config import MiniatureConfig
from attnmod.benchmarks.miniature.data import written_whole

CHECKPOINT = "checkpoint.safetensors"  # in the training's folder
FORMAT = "attnmod miniature training 1"
FREE_SETTINGS = ("steps", "decoder_steps")  # how long to train may be decided anew; the decoder is trained apart


@dataclass
class TrainingState:
    """Named float32 tensors on the CPU or the training's device; `losses` is float32 [step]."""

    step: int
    weights: Mapping[str, torch.Tensor]
    averaged: Mapping[str, torch.Tensor]
    moments: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    losses: list[float]


def save_checkpoint(path: Path, state: TrainingState, config: MiniatureConfig) -> bool:
    """Replace the checkpoint by the state.

    Where it cannot be written (a full disk), the old one stays, a warning says so, and False is returned.
    """
    tensors = {f"weights/{name}": value for name, value in state.weights.items()}
    tensors |= {f"averaged/{name}": value for name, value in state.averaged.items()}
    tensors |= {f"first/{name}": first for name, (first, _) in state.moments.items()}
    tensors |= {f"second/{name}": second for name, (_, second) in state.moments.items()}
    tensors["losses"] = torch.tensor(state.losses, dtype=torch.float32)
    metadata = {"format": FORMAT, "step": str(state.step), "config": json.dumps(config.to_dict())}
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata)
    try:
        with written_whole(path) as partial, open(partial, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        kept = f"the one at {path} stays" if path.exists() else "there is no older one"
        warnings.warn(f"the checkpoint of step {state.step} could not be written ({error}); {kept}", stacklevel=2)
        return False
    return True


def load_checkpoint(path: Path, config: MiniatureConfig | None = None) -> tuple[TrainingState, MiniatureConfig]:
    """The state in a checkpoint, and its settings. The file is only read.

    Args:
        path: of the checkpoint.
        config: the settings that it must have been made with; those of `FREE_SETTINGS` may differ.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is truncated, is no checkpoint, or was made with other settings; the message says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no checkpoint of this training (format {metadata.get('format')!r})")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"checkpoint {path} is truncated or damaged ({error}). It was left as it is: move it away to start anew"
        ) from None
    values = json.loads(metadata["config"])
    if config is not None:
        differing = [text for text in config.differences(values) if text.split(":")[0] not in FREE_SETTINGS]
        if differing:
            raise ValueError(
                f"checkpoint {path} was made with other settings ({'; '.join(differing)}). It was left as it is: "
                "resume with its settings, or train in another folder"
            )

    def part(name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}

    first, second = part("first"), part("second")
    state = TrainingState(
        step=int(metadata["step"]),
        weights=part("weights"),
        averaged=part("averaged"),
        moments={name: (first[name], second[name]) for name in first},
        losses=tensors["losses"].tolist(),
    )
    return state, MiniatureConfig.from_dict(values)
