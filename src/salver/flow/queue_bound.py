"""No queue without a bound, in requests and in tokens (law 10), and what gives way when it is full.

A queue that was full counts as full until it has drained to a part of its bound: otherwise each
request that leaves would let in one of those that came back too early, and callers would be refused
and admitted by turns. What is told as Retry-After is when that part has drained, and up to as long
again, by chance: those who were refused together come back apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

from salver.contract import Action, Cause, Decision

RETRY_AFTER_S = 1.0  # a floor
REOPEN = 7 / 8  # of the bound


@dataclass(frozen=True, slots=True)
class Excess:
    """A bound that does not hold, by its rule: the value would be over the limit."""

    rule: str
    value: int
    limit: int

    @property
    def unit(self) -> str:
        return self.rule.removeprefix("admission.max_queued_")


@dataclass(frozen=True, slots=True)
class QueueBound:
    """The most that may wait: `max_requests` sequences and `max_tokens` prompt tokens."""

    max_requests: int
    max_tokens: int

    def excess(self, waiting: tuple[int, int], adding: tuple[int, int]) -> Excess | None:
        """Hold (requests, tokens) waiting plus adding against the bound; None admits."""
        requests, tokens = (have + more for have, more in zip(waiting, adding, strict=True))
        if requests > self.max_requests:
            return Excess("admission.max_queued_requests", requests, self.max_requests)
        if tokens > self.max_tokens:
            return Excess("admission.max_queued_tokens", tokens, self.max_tokens)
        return None

    def refusal(
        self, request_id: str, *, waiting: tuple[int, int], adding: tuple[int, int]
    ) -> Decision | None:
        """A Decision where `excess` has something to say; None admits."""
        excess = self.excess(waiting, adding)
        return refused(request_id, excess, RETRY_AFTER_S) if excess else None

    def undrained(self, waiting: tuple[int, int]) -> Excess | None:
        """Hold what waits, after the queue was full, against the part at which it reopens."""
        low = QueueBound(int(REOPEN * self.max_requests), int(REOPEN * self.max_tokens))
        return low.excess(waiting, (0, 0))


def retry_after(drain_seconds: float, draw: Callable[[], float]) -> float:
    """When to come back to a full queue that takes so long to drain; `draw` is uniform in [0, 1)."""
    least = max(RETRY_AFTER_S, (1 - REOPEN) * drain_seconds)
    return least + max(least, 3 * RETRY_AFTER_S) * draw()  # whole seconds are told, so some of them


def refused(request_id: str, excess: Excess, retry_after: float) -> Decision:
    """A request is turned away by a full queue."""
    reason = (
        f"the queue is full: {excess.value} {excess.unit} would wait, the bound is {excess.limit}"
    )
    return _decision(request_id, excess, Action.REFUSE, reason, retry_after)


def shed(request_id: str, excess: Excess, why: str, retry_after: float) -> Decision:
    """A request that waited makes room in a full queue."""
    reason = (
        f"the queue was full, with {excess.value} {excess.unit} for a bound of {excess.limit}, "
        f"and this request gave way: {why}"
    )
    return _decision(request_id, excess, Action.SHED, reason, retry_after)


def _decision(
    request_id: str, excess: Excess, action: Action, reason: str, retry_after: float
) -> Decision:
    return Decision(
        id=f"dec-{request_id}",
        rule=excess.rule,
        value=excess.value,
        limit=excess.limit,
        action=action,
        cause=Cause.CALLER,
        reason=reason,
        retry_after=retry_after,
    )
