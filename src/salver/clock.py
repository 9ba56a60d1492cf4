"""Time as an argument.

Every instant in Salver is a float in seconds on one machine's monotonic clock, which all its
processes share; a deadline can therefore cross a process boundary as it is. Wall-clock time
appears only where a person or another machine reads it.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Where `now` comes from. `salver.testing.ManualClock` is the one that tests move by hand."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class MonotonicClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        return time.monotonic()
