"""How many tokens: draws from one distribution, bounded."""

import math

import numpy as np

from salver.workload.mix import Lengths, Lognormal


def draw_length(lengths: Lengths, random: np.random.Generator, recorded: int = 0) -> int:
    """One count. `recorded` is the trace's, where lengths are said to come from it."""
    count = max(_raw(lengths, random, recorded), lengths.min)
    return count if lengths.max is None else min(count, lengths.max)


def _raw(lengths: Lengths, random: np.random.Generator, recorded: int) -> int:
    if lengths.fixed is not None:
        return lengths.fixed
    if lengths.uniform is not None:
        first, last = lengths.uniform
        return int(random.integers(first, last, endpoint=True))
    if lengths.empirical is not None:
        return lengths.empirical[random.integers(len(lengths.empirical))]
    if lengths.lognormal is not None:
        return round(random.lognormal(*_of_logarithm(lengths.lognormal)))
    return round(recorded * (lengths.trace or 1.0))


def _of_logarithm(lognormal: Lognormal) -> tuple[float, float]:
    """Mean and deviation of the logarithm, from those of the value itself."""
    variance = math.log1p(lognormal.cv**2)
    return math.log(lognormal.mean) - variance / 2, math.sqrt(variance)
