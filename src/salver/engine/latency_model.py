"""How long a step takes, from what is in it.

A step's time is modelled as a sum of what it cannot avoid:

    seconds = base + per_token * tokens + per_attended * attended + per_logit_row * logit_rows

`base` is streaming the weights once, `attended` the (query token, key token) pairs of attention. No
cost can be negative, so the fit is a non-negative least squares on relative errors: a step of 5 ms
that is off by 1 ms matters as much as one of 500 ms that is off by 100. With four costs the exact
solution is the best of the 15 plain fits over subsets of them, which needs no iteration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from salver.engine.plan import SchedulerOutput

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a step's time depends on. All counts."""

    tokens: int
    attended: int
    logit_rows: int

    @classmethod
    def of(cls, plan: SchedulerOutput) -> "StepShape":
        """The shape of a plan, before sliding windows narrow what is attended."""
        attended = 0
        for sequence in plan.sequences:
            count, first = sequence.end - sequence.start, sequence.first_position
            attended += count * first + count * (count + 1) // 2
        rows = sum(1 for sequence in plan.sequences if sequence.sample is not None)
        return cls(plan.num_tokens, attended, rows)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Costs in seconds; none is negative. `error` is the median relative error of the fit."""

    base: float
    per_token: float
    per_attended: float
    per_logit_row: float
    error: float = 0.0

    def predict(self, shape: StepShape) -> float:
        """Seconds that a step of this shape takes."""
        return (
            self.base
            + self.per_token * shape.tokens
            + self.per_attended * shape.attended
            + self.per_logit_row * shape.logit_rows
        )

    @classmethod
    def fit(cls, samples: Sequence[tuple[StepShape, float]]) -> "LatencyModel":
        """Fit measured steps: (shape, seconds), the seconds positive, at least one sample."""
        shapes = np.array([(1, s.tokens, s.attended, s.logit_rows) for s, _ in samples], float)
        seconds = np.array([seconds for _, seconds in samples])
        relative = shapes / seconds[:, None]  # every row should come to one
        costs = _non_negative_fit(relative)
        error = float(np.median(np.abs(relative @ costs - 1)))
        base, token, attended, row = map(float, costs)
        return cls(base, token, attended, row, error)


def _non_negative_fit(rows: Floats) -> Floats:
    """The non-negative costs c that bring `rows @ c` closest to one, by enumeration.

    The optimum is a plain least-squares fit over the columns where it is positive, so it is among
    these; the others that happen to be non-negative are feasible and no better.
    """
    best, smallest = np.zeros(rows.shape[1]), float(len(rows))
    for size in range(1, rows.shape[1] + 1):
        for columns in combinations(range(rows.shape[1]), size):
            some, *_ = np.linalg.lstsq(rows[:, columns], np.ones(len(rows)), rcond=None)
            loss = float(np.square(rows[:, columns] @ some - 1).sum())
            if (some >= 0).all() and loss < smallest:
                best, smallest = np.zeros(rows.shape[1]), loss
                best[list(columns)] = some
    return best
