"""Who goes next, who waits, who is refused: pure decisions on plain data."""

from salver.flow.deadline import passed
from salver.flow.fairness import Share, Tariff
from salver.flow.feasibility import (
    certain_output,
    doubt,
    drained,
    least_own_seconds,
    optimistic,
    own_seconds,
    pessimistic,
    unreachable,
)
from salver.flow.first_token import FirstTokenBound
from salver.flow.queue_bound import (
    Excess,
    Gate,
    QueueBound,
    refused,
    retry_after,
    shed,
    why_it_gave_way,
)

__all__ = [
    "Excess",
    "FirstTokenBound",
    "Gate",
    "QueueBound",
    "Share",
    "Tariff",
    "certain_output",
    "doubt",
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
    "why_it_gave_way",
]
