"""The latency words, each defined once: the live metrics and any benchmark read them from here.

TTFT runs from the request's start to its first token. ITL is the gap between consecutive tokens of
one sequence, pooled over sequences; tokens that arrive together are zero apart. TPOT is
(E2E − TTFT) / (output tokens − 1) of a request; with several choices it counts the longest, which
is the one that E2E waited for. All are in seconds, on whatever clock `now` comes from.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latencies:
    """One request's times. `ttft` is None without a token, `tpot` without a second one; `tokens`
    are those that TPOT counts."""

    ttft: float | None
    tpot: float | None
    e2e: float
    gaps: tuple[float, ...]
    tokens: int = 0


def tpot_of(ttft: float, e2e: float, tokens: int) -> float | None:
    """Seconds per token after the first one; None for a single token."""
    return (e2e - ttft) / (tokens - 1) if tokens > 1 else None


class Stopwatch:
    """Times one request, token by token. `started` is when the caller's request arrived."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._gaps: list[float] = []

    def tokens(self, choice: int, count: int, now: float) -> None:
        """Note that `count` tokens of one choice arrived together."""
        if not count:
            return
        if self._first is None:
            self._first = now
        if choice in self._last:
            self._gaps.append(now - self._last[choice])
        self._gaps.extend([0.0] * (count - 1))
        self._last[choice] = now
        self._counts[choice] = self._counts.get(choice, 0) + count

    def read(self, now: float) -> Latencies:
        """The times of a request that ended at `now`."""
        e2e = now - self._started
        if self._first is None:
            return Latencies(None, None, e2e, ())
        ttft = self._first - self._started
        longest = max(self._counts.values())
        return Latencies(ttft, tpot_of(ttft, e2e, longest), e2e, tuple(self._gaps), longest)
