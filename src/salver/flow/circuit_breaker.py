"""When to leave a server alone, and how to find out that it is back.

Closed, every call goes out, and a run of failures opens the breaker. Open, none goes out until a
wait is over; it doubles with every failed trial, up to a bound. Then the breaker is half open: one
call at a time goes out as a trial, and its end decides. (M. Nygard, Release It!, "Circuit Breaker".)

Each opening or closing begins a new epoch, and a call's end counts in the epoch it began in only:
what was sent before the server broke says nothing about whether it is back. A call that its caller
gave up says nothing at all, and gives its trial back.

A breaker is a value: each step returns the next one. Instants are in seconds on one clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    """What a breaker lets through: everything, nothing, one trial at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """`failures` in a row open it; it then waits `first_wait` seconds, later at most `longest_wait`."""

    failures: int = 5
    first_wait: float = 2.0
    longest_wait: float = 30.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call that was let out; handed back when it ends."""

    epoch: int
    trial: bool


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """One server's breaker."""

    rule: BreakerRule = BreakerRule()
    epoch: int = 0
    failed: int = 0  # in a row, in this epoch
    reopenings: int = 0  # failed trials since it was last closed
    opened: float | None = None  # None while closed
    trying: bool = False  # a trial is out

    @property
    def wait(self) -> float:
        """Seconds from its opening until a trial may go out."""
        return min(self.rule.longest_wait, self.rule.first_wait * 2.0**self.reopenings)

    def state(self, now: float) -> BreakerState:
        if self.opened is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now >= self.opened + self.wait else BreakerState.OPEN

    def lets_through(self, now: float) -> bool:
        """Whether a call may go out now."""
        state = self.state(now)
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and not self.trying)

    def retry_after(self, now: float) -> float:
        """Seconds until a call may go out, as far as is known; 0 if one may now."""
        return 0.0 if self.opened is None else max(0.0, self.opened + self.wait - now)

    def send(self, now: float) -> "tuple[CircuitBreaker, Ticket]":
        """Let a call out. Only when it `lets_through`."""
        trial = self.opened is not None
        return replace(self, trying=trial), Ticket(self.epoch, trial)

    def succeed(self, ticket: Ticket) -> "CircuitBreaker":
        """A call ended well: the run of failures ends, and a trial closes the breaker."""
        if ticket.epoch != self.epoch:
            return self
        if ticket.trial:
            return CircuitBreaker(self.rule, self.epoch + 1)
        return replace(self, failed=0)

    def fail(self, ticket: Ticket, now: float) -> "CircuitBreaker":
        """A call failed by the server's doing: a trial opens the breaker anew, a run opens it."""
        if ticket.epoch != self.epoch:
            return self
        if ticket.trial:
            # Bounded, since 2.0**n overflows in the end.
            return self._open(now, reopenings=min(self.reopenings + 1, 64))
        if self.failed + 1 < self.rule.failures:
            return replace(self, failed=self.failed + 1)
        return self._open(now, reopenings=0)

    def give_up(self, ticket: Ticket) -> "CircuitBreaker":
        """A call was given up by its caller."""
        if ticket.epoch != self.epoch or not ticket.trial:
            return self
        return replace(self, trying=False)

    def _open(self, now: float, *, reopenings: int) -> "CircuitBreaker":
        return CircuitBreaker(self.rule, self.epoch + 1, 0, reopenings, now)
