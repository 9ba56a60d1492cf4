"""Time that moves when told to."""


class ManualClock:
    """A `salver.clock.Clock` for tests: starts at `now` seconds and only moves by `advance`."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time never goes back, not even by {-seconds} s")
        self._now += seconds
