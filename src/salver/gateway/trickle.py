"""A token bucket: so much at once, and so much a second after that."""

from salver.clock import Clock


class Trickle:
    """Full at first. `rate` per second, up to `most`."""

    def __init__(self, rate: float, most: int, clock: Clock) -> None:
        self._rate = rate
        self._most = most
        self._clock = clock
        self._left = float(most)
        self._seen = clock.now()

    def takes_one(self) -> bool:
        """Whether there was one left to take."""
        now = self._clock.now()
        self._left = min(self._most, self._left + self._rate * (now - self._seen))
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
