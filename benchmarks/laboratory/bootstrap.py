"""Means with confidence intervals by a bootstrap over prompts (Efron 1979), paired as Koehn (2004) does for BLEU."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, and the interval that holds the true one with probability `LEVEL`."""

    mean: float
    low: float
    high: float
    prompts: int


def estimate(values: Mapping[int, float], resamples: int = RESAMPLES, seed: int = 0) -> Estimate | None:
    """The mean of one value a prompt (itself the mean over its seeds); None where there is none.

    Whole prompts are drawn anew, not pictures: the seeds of one prompt are no independent evidence about prompts.
    """
    if not values:
        return None
    sample = np.array([values[key] for key in sorted(values)], float)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sample), size=(resamples, len(sample)))
    means = sample[drawn].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(sample.mean()), float(low), float(high), len(sample))


def difference(first: Mapping[int, float], second: Mapping[int, float], **options) -> Estimate | None:
    """second - first, prompt by prompt, over the prompts that both have."""
    return estimate({key: second[key] - first[key] for key in first.keys() & second.keys()}, **options)
