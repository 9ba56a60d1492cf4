"""Percentiles that say how many samples they rest on, and intervals of shares and of ratios."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

P99_SAMPLES = 1000
"""A 99th percentile of fewer samples rests on too few of them to be quoted."""

RESAMPLES = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of so many samples, in their unit; all None without samples, p99 also with under 1,000."""

    samples: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    worst: float | None = None

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Percentiles":
        if not samples:
            return cls(0)
        values = np.asarray(samples, dtype=np.float64)
        p50, p90, p95, p99 = map(float, np.percentile(values, [50, 90, 95, 99]))
        known = p99 if len(values) >= P99_SAMPLES else None
        return cls(len(values), float(values.mean()), p50, p90, p95, known, float(values.max()))


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, count: int) -> Interval:
    """The share of hits (Wilson, 1927): of few it knows little, even where all are alike.

    Of none it knows nothing: 0, from 0 to 1.
    """
    if not count:
        return Interval(0.0, 0.0, 1.0)
    z = 1.96
    middle = (hits + z * z / 2) / (count + z * z)
    reach = z * math.sqrt(hits * (count - hits) / count + z * z / 4) / (count + z * z)
    return Interval(hits / count, max(0.0, middle - reach), min(1.0, middle + reach))


Round = Sequence[Sequence[float]]
"""One round's samples, by group."""


def bootstrap(
    rounds: Sequence[Round], statistic: Callable[[Sequence[Floats]], float], *, seed: int = 0
) -> Interval:
    """A statistic of groups of samples that were taken in rounds and are pooled over them.

    The percentile bootstrap of Efron (1979), 1,000 resamples, in two stages: rounds first, since
    what a round has in common is no chance of its samples; then each group's samples in a round.
    """
    random = np.random.default_rng(seed)
    taken = [[np.asarray(group, dtype=np.float64) for group in one] for one in rounds]
    drawn = [
        statistic(_pooled([_again(taken[index], random) for index in indices]))
        for indices in random.integers(len(taken), size=(RESAMPLES, len(taken)))
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(statistic(_pooled(taken)), float(low), float(high))


def _again(groups: Sequence[Floats], random: np.random.Generator) -> list[Floats]:
    return [random.choice(group, len(group)) if len(group) else group for group in groups]


def _pooled(rounds: Sequence[Sequence[Floats]]) -> list[Floats]:
    return [np.concatenate(group) for group in zip(*rounds, strict=True)]
