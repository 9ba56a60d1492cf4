"""The evidence of one measured value held against one declared rule."""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What followed from a Decision."""

    REFUSE = "refuse"
    EXPIRE = "expire"
    SHED = "shed"  # refused after it had waited, for the sake of others
    PREEMPT = "preempt"  # it gave its room to others, and went on later
    FALL_BACK = "fall_back"
    LEAVE_ALONE = "leave_alone"  # a server: its breaker opened
    USE_AGAIN = "use_again"  # a server: its breaker closed


class Cause(StrEnum):
    """Whose move it is after a refusal; the gateway turns it into a status code."""

    CALLER = "caller"  # this caller's own limit, or back-pressure: slow down (429)
    DEADLINE = "deadline"  # the time allowed has passed or cannot be met (504)
    SERVER = "server"  # nothing is ready to serve anyone (503)


@dataclass(frozen=True, slots=True)
class Decision:
    """Value, rule, verdict, action. `value` and `limit` share the unit that the rule's name ends in.

    `retry_after` is in seconds and None where waiting will not help.
    """

    id: str
    rule: str
    value: float
    limit: float
    action: Action
    cause: Cause
    reason: str
    retry_after: float | None = None
