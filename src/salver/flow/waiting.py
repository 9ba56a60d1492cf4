"""Who waits for room at other servers, and whose turn it is: fair among tenants, or as they came.

What was sent cannot be taken back, so all that fairness can decide is who is sent next. Fair turns
go by class, then by the least weighted service, then by deadline. A tenant is charged for its prompt
when it is sent, less what the server is expected to have cached, for the output as it arrives, and
at the end for what was not cached after all: no counter ever falls. Whoever is first waits until
there is room for it, and nobody overtakes. docs/fairness.md states and proves what this bounds.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import count
from math import inf
from typing import Generic, Protocol, TypeVar

from salver.contract import GenerateRequest
from salver.flow.fairness import RANKS, Account, Service, Share
from salver.flow.queue_bound import give_way


class Waits(Hashable, Protocol):
    """A request that waits. `tokens` is the room that it needs, `was_sent` whether it was before."""

    @property
    def request(self) -> GenerateRequest: ...

    @property
    def tokens(self) -> int: ...

    @property
    def was_sent(self) -> bool: ...


W = TypeVar("W", bound=Waits)


class Queue(Protocol[W]):
    """Who waits, and who is next. It knows nothing of servers, and never blocks."""

    def push(self, waiter: W) -> None:
        """Let one wait."""
        ...

    def first(self) -> W | None:
        """Whose turn it is; stays until it is removed."""
        ...

    def remove(self, waiter: W) -> None:
        """It has its turn, or gave up; nothing happens if it is not there."""
        ...

    def charge(self, request: GenerateRequest, service: float) -> None:
        """So much was done for a request, in prompt tokens."""
        ...

    def ahead(self, waiter: W) -> int:
        """The room that is needed before its turn comes, at least."""
        ...

    def give_way(self, newcomer: W) -> Iterator[Sequence[W]]:
        """Those that were never sent, in the order in which they are shed for the newcomer."""
        ...

    def waiting(self) -> tuple[int, int]:
        """Requests, and the prompt tokens of them."""
        ...


class FirstComeQueue(Generic[W]):
    """First come, first served."""

    def __init__(self) -> None:
        self._waiters: OrderedDict[W, None] = OrderedDict()
        self._tokens = 0

    def push(self, waiter: W) -> None:
        self._waiters[waiter] = None
        self._tokens += len(waiter.request.prompt_token_ids)

    def first(self) -> W | None:
        return next(iter(self._waiters), None)

    def remove(self, waiter: W) -> None:
        if waiter in self._waiters:
            del self._waiters[waiter]
            self._tokens -= len(waiter.request.prompt_token_ids)

    def charge(self, request: GenerateRequest, service: float) -> None:
        """Nobody owes anything."""

    def ahead(self, waiter: W) -> int:
        return sum(each.tokens for each in self._waiters) - waiter.tokens

    def give_way(self, newcomer: W) -> Iterator[Sequence[W]]:
        """Nobody: who came first is served first."""
        return iter(())

    def waiting(self) -> tuple[int, int]:
        return len(self._waiters), self._tokens

    def __repr__(self) -> str:
        return f"<FirstComeQueue {len(self._waiters)} waiting>"


class FairQueue(Generic[W]):
    """See above. `shares` are the declared tenants; another one has weight 1."""

    def __init__(self, shares: Mapping[str, Share]) -> None:
        self._services = [Service(shares, lead=0.0, band=0.0) for _ in RANKS]
        self._lines: dict[Account, _Line[W]] = {}  # none is empty
        self._arrivals = count()

    def push(self, waiter: W) -> None:
        account = _account(waiter.request)
        rank, tenant = account
        if account not in self._lines:
            others = [other for of, other in self._lines if of == rank]
            self._services[rank].join(tenant, others)
            self._lines[account] = _Line()
        self._lines[account].add(waiter, next(self._arrivals))

    def first(self) -> W | None:
        if not self._lines:
            return None
        return self._lines[min(self._lines, key=self._standing)].first

    def remove(self, waiter: W) -> None:
        account = _account(waiter.request)
        if account in self._lines and not self._lines[account].remove(waiter):
            del self._lines[account]

    def charge(self, request: GenerateRequest, service: float) -> None:
        rank, tenant = _account(request)
        self._services[rank].charge(tenant, service)

    def ahead(self, waiter: W) -> int:
        """Of its own tenant and class alone: whether others are before it changes as they are served."""
        return self._lines[_account(waiter.request)].ahead(waiter)

    def give_way(self, newcomer: W) -> Iterator[Sequence[W]]:
        """See `flow.queue_bound.give_way`. The newcomer waits already, and does not count."""
        mine = _account(newcomer.request)
        sizes = {account: len(line) for account, line in self._lines.items()}
        sizes[mine] -= 1
        last_first = {account: line.last_first() for account, line in self._lines.items()}
        return give_way(mine, 1, sizes, last_first, self._services[mine[0]].weight)

    def waiting(self) -> tuple[int, int]:
        lines = self._lines.values()
        return sum(map(len, lines)), sum(line.prompt_tokens for line in lines)

    def _standing(self, account: Account) -> tuple[int, float, float, str]:
        """Of two with equal service, who has less of the queue for its weight is first."""
        rank, tenant = account
        service = self._services[rank]
        in_line = len(self._lines[account]) / service.weight(tenant)
        return rank, service.had(tenant), in_line, tenant

    def __repr__(self) -> str:
        lines = ", ".join(f"{tenant}: {len(line)}" for (_, tenant), line in self._lines.items())
        return f"<FairQueue {lines or 'empty'}, {self._services}>"


class _Line(Generic[W]):
    """One account's requests, by deadline and then as they came."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self._tokens = 0
        self._places: list[tuple[float, int]] = []  # in order; a place is never given twice
        self._waiters: dict[tuple[float, int], W] = {}
        self._place_of: dict[W, tuple[float, int]] = {}

    def add(self, waiter: W, number: int) -> None:
        deadline = waiter.request.deadline
        place = (inf if deadline is None else deadline, number)
        insort(self._places, place)
        self._waiters[place], self._place_of[waiter] = waiter, place
        self._count(waiter, 1)

    def remove(self, waiter: W) -> bool:
        """Returns whether anybody is left."""
        place = self._place_of.pop(waiter, None)
        if place is not None:
            del self._places[bisect_left(self._places, place)]
            del self._waiters[place]
            self._count(waiter, -1)
        return bool(self._places)

    def _count(self, waiter: W, sign: int) -> None:
        self.prompt_tokens += sign * len(waiter.request.prompt_token_ids)
        self._tokens += sign * waiter.tokens

    @property
    def first(self) -> W:
        return self._waiters[self._places[0]]

    def ahead(self, waiter: W) -> int:
        """The room that those before it need."""
        place = self._place_of[waiter]
        if place == self._places[-1]:
            return self._tokens - waiter.tokens
        before = self._places[: bisect_left(self._places, place)]
        return sum(self._waiters[each].tokens for each in before)

    def last_first(self) -> Iterator[Sequence[W]]:
        """Those that may be shed."""
        for place in reversed(self._places.copy()):
            waiter = self._waiters[place]
            if not waiter.was_sent:
                yield (waiter,)

    def __len__(self) -> int:
        return len(self._places)


def _account(request: GenerateRequest) -> Account:
    return RANKS[request.traffic_class], request.tenant
