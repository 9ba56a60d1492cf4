"""Retries are at most a share of the requests, so that they cannot amplify an overload.

Every request that is answered at its first try earns a share of a retry, every retry spends a whole
one, and nothing is lent: at any time there were fewer than `ratio` times as many retries as requests,
and while nothing is answered there are none. What is saved up in quiet times is bounded, so that an
outage does not begin with a burst of them. (Google, Site Reliability Engineering, chapter 21,
"Handling Overload": a budget of 10%; that failures earn nothing is gRPC's retry throttling.)
"""

from dataclasses import dataclass


@dataclass(slots=True)
class RetryBudget:
    """Mutable; owned by whoever sends. Counts in whole millionths, so that sums are exact."""

    ratio: float = 0.1
    most_saved: int = 10
    _saved: int = 0

    def answered(self) -> None:
        """A request was answered at its first try: it earns its share."""
        self._saved = min(self._saved + int(self.ratio * _ONE), self.most_saved * _ONE)

    def take(self) -> bool:
        """Take one retry, if there is one."""
        if self._saved < _ONE:
            return False
        self._saved -= _ONE
        return True


_ONE = 1_000_000
