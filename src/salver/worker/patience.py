"""How long a supervisor waits, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential and bounded; a worker that stayed up for `stable_after` starts afresh.

    All in seconds.
    """

    initial: float = 0.25
    factor: float = 2.0
    longest: float = 30.0
    stable_after: float = 60.0

    def next(self, failures: int, uptime: float) -> tuple[int, float]:
        """Failures in a row so far and the uptime that just ended: (failures now, seconds to wait)."""
        failures = 1 if uptime >= self.stable_after else failures + 1
        return failures, self.delay(failures)

    def delay(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row."""
        if self.initial <= 0:
            return 0.0
        steps = min(failures - 1, 64)  # a larger exponent overflows long after the bound is met
        return min(self.initial * self.factor**steps, self.longest)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a supervisor waits for a worker, in seconds."""

    to_start: float = 120.0
    wedge_after: float = 30.0  # requests in flight, and not one report
    to_stop: float = 5.0
