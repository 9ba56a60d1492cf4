"""Who goes next, who waits, who is refused: pure decisions on plain data."""

from salver.flow.deadline import passed
from salver.flow.fairness import Share
from salver.flow.feasibility import (
    certain_output,
    drained,
    least_own_seconds,
    optimistic,
    own_seconds,
    pessimistic,
    unreachable,
)
from salver.flow.queue_bound import Excess, QueueBound, refused, retry_after, shed

__all__ = [
    "Excess",
    "QueueBound",
    "Share",
    "certain_output",
    "drained",
    "least_own_seconds",
    "optimistic",
    "own_seconds",
    "passed",
    "pessimistic",
    "refused",
    "retry_after",
    "shed",
    "unreachable",
]
