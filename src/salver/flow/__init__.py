"""Who goes next, who waits, who is refused: pure decisions on plain data."""

from salver.flow.deadline import passed
from salver.flow.queue_bound import QueueBound

__all__ = ["QueueBound", "passed"]
