"""A `LatencyModel` from measured steps.

No cost can be negative, so the fit is a non-negative least squares on relative errors: a step of 5 ms
that is off by 1 ms matters as much as one of 500 ms that is off by 100. With four costs the exact
solution is the best of the 15 plain fits over subsets of them, which needs no iteration.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from salver.contract import LatencyModel, StepShape
from salver.contract.latency import EMPTY_STEP
from salver.engine.plan import SchedulerOutput

Floats = NDArray[np.float64]
Measured = tuple[StepShape, float]


def shape_of(plan: SchedulerOutput) -> StepShape:
    """The shape of a plan, before sliding windows narrow what is attended."""
    shapes = (
        StepShape.of_tokens(
            each.first_position, each.end - each.start, int(each.sample is not None)
        )
        for each in plan.sequences
    )
    return sum(shapes, EMPTY_STEP)


def fit(samples: Sequence[Measured], weights: Sequence[float] | None = None) -> LatencyModel:
    """The costs behind measured steps: (shape, seconds), at least one, the seconds positive.

    `weights` say how much each sample counts; all the same if absent.
    """
    shapes = np.array([(1, s.tokens, s.attended, s.logit_rows) for s, _ in samples], float)
    seconds = np.array([seconds for _, seconds in samples])
    relative = shapes / seconds[:, None]  # every row should come to one
    costs = _non_negative_fit(
        relative, np.sqrt(np.ones(len(samples)) if weights is None else weights)
    )
    error = float(np.median(np.abs(relative @ costs - 1)))
    base, token, attended, row = map(float, costs)
    return LatencyModel(base, token, attended, row, error)


def _non_negative_fit(rows: Floats, emphasis: Floats) -> Floats:
    """The non-negative costs c that bring `rows @ c` closest to one, by enumeration.

    The optimum is a plain least-squares fit over the columns where it is positive, so it is among
    these; the others that happen to be non-negative are feasible and no better.
    """
    rows = rows * emphasis[:, None]
    best, smallest = np.zeros(rows.shape[1]), float(np.square(emphasis).sum())
    for size in range(1, rows.shape[1] + 1):
        for columns in combinations(range(rows.shape[1]), size):
            some, *_ = np.linalg.lstsq(rows[:, columns], emphasis, rcond=None)
            loss = float(np.square(rows[:, columns] @ some - emphasis).sum())
            if (some >= 0).all() and loss < smallest:
                best, smallest = np.zeros(rows.shape[1]), loss
                best[list(columns)] = some
    return best
