"""Goodput, defined once: the live metrics and the benchmark call this.

An arrival is good when it was answered in full and met every objective. Goodput counts good arrivals
over *all* arrivals of a window: refused, failed, expired and wrong ones count against it, for a caller
who was turned away was not served. A caller who hung up on purpose is judged on what it had seen by
then: without a token yet, on how long it had waited; with some, on how slowly they had come, the
silence at their end included.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from salver.telemetry.latency import Latencies


@dataclass(frozen=True, slots=True)
class Objectives:
    """Bounds in seconds on one request's latencies; None is no bound."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None


class Ending(StrEnum):
    """How an arrival ended, as its caller saw it."""

    COMPLETE = "complete"
    WRONG = "wrong"  # answered, but not as asked: cut short, or not ended
    REFUSED = "refused"  # turned away by a rule: 429 or 503; 408 or 504 long before the deadline
    EXPIRED = "expired"  # the deadline passed, whoever noticed it
    FAILED = "failed"  # any other error, lost connections included
    ABANDONED = "abandoned"  # its caller hung up, as the mix said


@dataclass(frozen=True, slots=True)
class Goodput:
    """Good arrivals among all of a window of so many seconds."""

    good: int
    arrivals: int
    seconds: float

    def __add__(self, later: "Goodput") -> "Goodput":
        """Of this window and the one after it."""
        return Goodput(
            self.good + later.good, self.arrivals + later.arrivals, self.seconds + later.seconds
        )

    @property
    def share(self) -> float:
        """In [0, 1]; 1 where nothing arrived."""
        return self.good / self.arrivals if self.arrivals else 1.0

    @property
    def rate(self) -> float:
        """Good arrivals per second."""
        return self.good / self.seconds if self.seconds else 0.0


def goodput(
    arrivals: Iterable[tuple[Ending, Latencies]], objectives: Objectives, *, seconds: float
) -> Goodput:
    """Judge every arrival of a window."""
    judged = [is_good(ending, latencies, objectives) for ending, latencies in arrivals]
    return Goodput(sum(judged), len(judged), seconds)


def is_good(ending: Ending, latencies: Latencies, objectives: Objectives) -> bool:
    """Whether one arrival was answered in full and in time."""
    if ending is Ending.ABANDONED:
        return _good_so_far(latencies, objectives)
    return (
        ending is Ending.COMPLETE
        and _within(latencies.ttft, objectives.ttft)
        and _within(latencies.tpot, objectives.tpot)
        and _within(latencies.e2e, objectives.e2e)
    )


def _good_so_far(latencies: Latencies, objectives: Objectives) -> bool:
    """Whether a caller who hung up had seen no bound broken.

    Without a token its wait is held against the bounds on waits; against that on gaps where there
    is no other, for then every silence would be good. A gap that it did not see the end of counts.
    """
    if not _within(latencies.e2e, objectives.e2e):
        return False
    if latencies.ttft is None:
        alone = objectives.ttft is None and objectives.e2e is None
        return _within(latencies.e2e, objectives.tpot if alone else objectives.ttft)
    decoding = latencies.e2e - latencies.ttft
    per_gap = decoding / max(1, latencies.tokens)
    return _within(latencies.ttft, objectives.ttft) and _within(per_gap, objectives.tpot)


def _within(seconds: float | None, bound: float | None) -> bool:
    """A latency that does not exist (the TPOT of one token) breaks no bound."""
    return seconds is None or bound is None or seconds <= bound
