"""No queue without a bound, in requests and in tokens (law 10), and what gives way when it is full.

A queue that was full counts as full until it has drained to a part of its bound: otherwise each
request that leaves would let in one of those that came back too early, and callers would be refused
and admitted by turns. What is told as Retry-After is when that part has drained, and up to as long
again, by chance: those who were refused together come back apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from salver.contract import Action, Cause, Decision, TrafficClass
from salver.flow.fairness import Account

T = TypeVar("T")

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

    def make_room(
        self,
        waiting: tuple[int, int],
        adding: tuple[int, int],
        groups: Iterable[Sequence[T]],
        tokens: Callable[[T], int],
    ) -> tuple[T, ...]:
        """Of the groups that give way, in order, as many as it takes; none where all are not enough."""
        victims: list[T] = []
        for group in groups:
            victims += group
            waiting = waiting[0] - len(group), waiting[1] - sum(map(tokens, group))
            if self.excess(waiting, adding) is None:
                return tuple(victims)
        return ()


class Gate:
    """Whether the queue counts as full: since it was, until it has drained to a part of its bound."""

    def __init__(self, bound: QueueBound) -> None:
        self.bound = bound
        self._was_full = False

    def excess(self, waiting: tuple[int, int], adding: tuple[int, int]) -> Excess | None:
        """Why the queue counts as full for what comes; None lets it wait."""
        undrained = self.bound.undrained(waiting) if self._was_full else None
        excess = self.bound.excess(waiting, adding) or undrained
        self._was_full = excess is not None
        return excess


def give_way(
    newcomer: Account,
    adding: int,
    sizes: Mapping[Account, int],
    last_first: Mapping[Account, Iterator[Sequence[T]]],
    weight: Callable[[str], float],
) -> Iterator[Sequence[T]]:
    """Who gives way in a full queue for `adding` more of an account, in order.

    Lower classes first, then tenants of its class that have more of the queue for their weight than
    the newcomer would have. `last_first` has each account's groups that may, served last ones first;
    `sizes` how many wait in each account.
    """
    left, size = dict(last_first), {key: float(number) for key, number in sizes.items()}
    would_have = (size.get(newcomer, 0.0) + adding) / weight(newcomer[1])

    def excess(account: Account) -> float:
        return size[account] / weight(account[1])

    def gives(account: Account) -> bool:
        rank = account[0]
        return rank > newcomer[0] or (rank == newcomer[0] and excess(account) > would_have)

    while givers := [account for account in left if gives(account) and account != newcomer]:
        worst = max(givers, key=lambda account: (account[0], excess(account), account[1]))
        group = next(left[worst], None)
        if group is None:
            del left[worst]
        else:
            size[worst] -= len(group)
            yield group


def why_it_gave_way(tenant: str, traffic_class: TrafficClass, newcomer: TrafficClass) -> str:
    """In words, for its Decision."""
    if traffic_class is newcomer:
        return f"{tenant!r} has more than its share of the queue"
    return f"its class, {traffic_class}, is lower than that of the one that came"


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
