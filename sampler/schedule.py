"""Curves over the progress of a denoising run: pure functions, no torch.

progress u = 1 - t / T_train runs from 0 (pure noise) to 1 (the finished image). It is read off the timestep
that the UNet itself is given, so a curve means the same for 4 steps or 50, for img2img that starts in the
middle, and for a refiner that takes over at the end.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Ours: steep enough to look like a soft step, shallow enough to be no hard one.
SIGMOID_STEEPNESS = 10.0


def _sigmoid(x: float) -> float:
    """Logistic curve through exactly (0, 0) and (1, 1)."""
    low = 1 / (1 + math.exp(SIGMOID_STEEPNESS / 2))
    value = 1 / (1 + math.exp(-SIGMOID_STEEPNESS * (x - 0.5)))
    return (value - low) / (1 - 2 * low)


# kind -> how far the curve has gone from start to end, for x in [0, 1]
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda x: 0.0,
    "linear": lambda x: x,
    "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "sigmoid": _sigmoid,
}


@dataclass(frozen=True)
class Curve:
    """A number that changes with the progress u of a run.

    It is `start` up to u = `begin`, goes to `end` in the given shape, and stays there from u = `stop` on.
    A constant curve is `start` everywhere. `begin == stop` is a step: `start` before it, `end` from it on.

    >>> Curve("linear", start=0.8, end=1.0, begin=0.0, stop=0.5)(0.25)
    0.9
    >>> Curve.constant(0.5)(0.7)
    0.5

    Args:
        kind: "constant", "linear", "cosine" or "sigmoid".
        start: value at the noisy end of the run.
        end: value at the clean end; left out, `start`.
        begin: progress in [0, 1] at which the curve leaves `start`.
        stop: progress in [begin, 1] at which it has arrived at `end`.

    Raises:
        ValueError: an unknown kind, a value that is not finite or lies below zero, a window outside 0 to 1, or a
            constant curve whose two ends differ.
    """

    kind: str
    start: float
    end: float | None = None
    begin: float = 0.0
    stop: float = 1.0

    def __post_init__(self):
        if self.kind not in SHAPES:
            raise ValueError(f"curve kind is {self.kind!r}; allowed are {', '.join(SHAPES)}")
        if self.end is None:
            object.__setattr__(self, "end", self.start)
        for name in ("start", "end", "begin", "stop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"curve {name} is {value!r}; it must be a finite number, zero or above")
            object.__setattr__(self, name, float(value))
        if not self.begin <= self.stop <= 1:
            raise ValueError(f"curve window is {self.begin} to {self.stop}; it must satisfy 0 <= begin <= stop <= 1")
        if self.kind == "constant" and self.start != self.end:
            raise ValueError(f"a constant curve has one value, but start is {self.start} and end is {self.end}")

    def __call__(self, progress: float) -> float:
        """Value at a progress u; outside [0, 1] the nearer end holds."""
        start, end = self.ends
        if progress >= self.stop:
            return end
        if progress <= self.begin:
            return start
        return start + (end - start) * SHAPES[self.kind]((progress - self.begin) / (self.stop - self.begin))

    @property
    def ends(self) -> tuple[float, float]:
        """Value at the start and at the end; all values lie between them."""
        assert self.end is not None  # set in __post_init__
        return self.start, self.end

    def is_constantly(self, value: float) -> bool:
        """Whether the curve has this value everywhere."""
        return self.ends == (value, value)

    @classmethod
    def constant(cls, value: float) -> "Curve":
        return cls("constant", value)

    @classmethod
    def of(cls, value: Any) -> "Curve":
        """A curve from a curve, a number (constant) or what `to_dict` gave.

        Raises:
            ValueError: unknown keys, or values a curve does not allow.
            TypeError: something else was given.
        """
        if isinstance(value, Curve):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls.constant(value)
        if isinstance(value, dict):
            known = {field.name for field in dataclasses.fields(cls)}
            if unknown := sorted(set(value) - known):
                raise ValueError(f"curve has unknown keys {unknown}; known are {sorted(known)}")
            if missing := sorted({"kind", "start"} - set(value)):
                raise ValueError(f"curve lacks {missing}")
            return cls(**value)
        raise TypeError(f"a curve is a Curve, a number or a dict, not {type(value).__name__}")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def progress_table(curves: list[Curve], num_train_timesteps: int) -> list[list[float]]:
    """Every curve at every training timestep t = 0 ... T_train, one row per timestep.

    The rows are what a UNet call interpolates between, so that no curve is computed on the host inside the loop.
    """
    rows = []
    for t in range(num_train_timesteps + 1):
        progress = 1 - t / num_train_timesteps
        rows.append([curve(progress) for curve in curves])
    return rows
