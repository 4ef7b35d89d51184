"""Makes, reads and judges the pictures of arms, and keeps a record of each so that nothing is done twice.

A record is one JSON Lines file an arm: a line that says what the arm is, then a line a picture. Its name is a hash of
the model's files, number type and device, the settings, and the split with its seed, so records of another model or of
other settings are other files and never mixed; a line knows its prompt, and one of another prompt counts as missing.
What the hash does not know is the code: after a change of the world, the scorer or the kernels, begin with an empty
folder. An interrupted run goes on where it stopped.
"""

import dataclasses
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attnmod.benchmarks.laboratory.arms import Arm
from attnmod.benchmarks.laboratory.layout import regions
from attnmod.benchmarks.laboratory.tasks import Task, fingerprint
from attnmod.benchmarks.miniature.judge import Verdict, judge
from attnmod.benchmarks.miniature.scorer import read_picture

RECORD_FORMAT = 2
SESSION = secrets.token_hex(4)  # of this process: times compare within one only


class Painter(Protocol):
    """Makes pictures: uint8 [n, 64, 64, 3] of n prompts with their noise."""

    def paint(self, arm: Arm, tasks: Sequence[Task], seeds: Sequence[int]) -> np.ndarray: ...


class PipelinePainter:
    """Paints with a diffusers pipeline, modulated by `modulate(pipe, arm.config)` or, for a stock arm, as it is."""

    def __init__(self, pipe: Any):
        self.pipe = pipe
        pipe.set_progress_bar_config(disable=True)

    def paint(self, arm: Arm, tasks: Sequence[Task], seeds: Sequence[int]) -> np.ndarray:
        from attnmod.parser.syntax import parse_prompt
        from attnmod.sampler.patch import modulate

        if arm.config is None:
            return call(self.pipe, arm, tasks, seeds)
        with modulate(self.pipe, arm.config) as handle:
            if arm.regions:
                for task in tasks:
                    handle.set_prompt(task.prompt, masks=regions(task, parse_prompt(task.prompt)))
            return call(self.pipe, arm, tasks, seeds)


def call(pipe: Any, arm: Arm, tasks: Sequence[Task], seeds: Sequence[int]) -> np.ndarray:
    """Pictures, uint8 [n, 64, 64, 3], of the pipeline as it is now; the noise is drawn on the CPU."""
    import torch

    with torch.inference_mode():
        images = pipe(
            prompt=[task.prompt for task in tasks],
            num_inference_steps=arm.steps,
            guidance_scale=arm.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images
    return np.clip(np.rint(255 * images), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Result:
    """One picture's verdict.

    Attributes:
        task, prompt, things: which task, its text, and how many entities it asks for.
        repeat: which of its pictures.
        verdict: what is right and wrong in it.
        seconds, session: its share of the time that its batch took to make, and by which process.
    """

    task: int
    repeat: int
    things: int
    prompt: str
    verdict: Verdict
    seconds: float
    session: str = SESSION

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Result":
        verdict = Verdict(**{**values["verdict"], "leaks": tuple(values["verdict"]["leaks"])})
        return cls(**{**values, "verdict": verdict})


class Record:
    """The results of one arm on one list of tasks by one model, in a file.

    Raises:
        ValueError: the file of that name says that it is about something else.
        OSError: it cannot be read or written; what it held before stays.
    """

    def __init__(self, folder: Path, model: str, arm: Arm, split: str, tasks_seed: int):
        """model: `model_fingerprint`, and in what number type and on what device it computes."""
        self.about = {
            "format": RECORD_FORMAT,
            "model": model,
            "split": split,
            "tasks_seed": tasks_seed,
            **arm.settings(),
        }
        self.path = Path(folder) / f"{fingerprint(self.about)}.jsonl"
        self.results: dict[tuple[int, int], Result] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        whole = [value for value in map(_parsed, lines) if value is not None]
        if not whole or {key: whole[0].get(key) for key in self.about} != self.about:
            raise ValueError(f"{self.path} is no record of these settings; move it away")
        for values in whole[1:]:
            result = Result.from_dict(values)
            self.results[result.task, result.repeat] = result
        if len(whole) < len(lines):  # a line that an interruption cut short: what follows must not hang on to it
            self._write([whole[0], *whole[1:]])

    def _write(self, values: Iterable[dict[str, Any]]) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
        os.replace(partial, self.path)

    def has(self, task: Task, repeat: int) -> bool:
        known = self.results.get((task.number, repeat))
        return known is not None and known.prompt == task.prompt

    def add(self, results: Sequence[Result], arm: Arm) -> None:
        """Append the pictures of one batch."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write([{**self.about, "name": arm.name}])
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(result.to_dict()) + "\n" for result in results))
            file.flush()
            os.fsync(file.fileno())
        for result in results:
            self.results[result.task, result.repeat] = result


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def model_fingerprint(folder: Path) -> str:
    """A hash of a saved pipeline's weights and settings.

    Raises:
        FileNotFoundError: no pipeline lies there.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"model folder {folder} has no model_index.json: it is not a diffusers pipeline")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".txt", ".safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run(
    painter: Painter,
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    records: Sequence[Record],
    *,
    repeats: int,
    batch: int,
    deadline: float | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Make what is not recorded yet. The arms take turns, batch by batch, so that time running out leaves them paired.

    Args:
        painter: makes the pictures.
        arms, records: an arm each.
        tasks: all of them, `repeats` times.
        batch: pictures at once.
        deadline: in `time.monotonic()`; no batch begins after it.
        told: is told how many of the pictures that are asked for are done, of how many.

    Returns:
        whether all is done.
    """
    wanted = [(task, repeat) for repeat in range(repeats) for task in tasks]
    total = len(wanted) * len(arms)
    done = sum(record.has(task, repeat) for record in records for task, repeat in wanted)
    for part in _parts(wanted, batch):
        for arm, record in zip(arms, records, strict=True):
            todo = [(task, repeat) for task, repeat in part if not record.has(task, repeat)]
            if not todo:
                continue
            if deadline is not None and time.monotonic() >= deadline:
                return False
            began = time.perf_counter()
            pictures = painter.paint(
                arm, [task for task, _ in todo], [task.noise_seed(repeat) for task, repeat in todo]
            )
            seconds = (time.perf_counter() - began) / len(todo)
            results = [
                Result(task.number, repeat, task.things, task.prompt, judge(task.scene, read_picture(pixels)), seconds)
                for (task, repeat), pixels in zip(todo, pictures, strict=True)
            ]
            record.add(results, arm)
            done += len(results)
            told(done, total)
    return True


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
