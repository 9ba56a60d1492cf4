"""Who waits under fair turns: one queue for each account, a tenant's requests of one class.

Inside an account the earliest deadline goes first. What orders accounts is in `engine.fair_order`; here
is what they hold, how long it takes, and who of them gives way when the whole queue is full.
"""

from bisect import insort_left, insort_right
from collections.abc import Iterator, Mapping, Sequence
from math import inf

from salver.contract import GenerateRequest, TenantQueue
from salver.engine.punctuality import Estimate, QueueClock
from salver.engine.request import Request
from salver.flow.fairness import RANKS, Service, Share
from salver.flow.queue_bound import give_way


class Account:
    """One tenant's requests of one class; those that wait by deadline, then as they came."""

    def __init__(self, rank: int, tenant: str, service: Service) -> None:
        self.rank = rank
        self.tenant = tenant
        self.owner = tuple(RANKS)[rank], tenant
        self.service = service
        self.waiting: list[Request] = []
        self.clock = QueueClock()
        self.band = 0  # in the step under way
        self.running: list[Request] = []  # at the begin of the step under way

    def add(self, request: Request, *, again: bool = False) -> None:
        """Make it wait; `again` puts it before others of its deadline and arrival."""
        (insort_left if again else insort_right)(self.waiting, request, key=_urgency)

    def is_ahead(self, other: "Account | None") -> bool:
        """Whether it has to give way to the other, of the same class."""
        return other is not None and self.service.is_ahead(self.tenant, other.tenant)

    @property
    def had(self) -> float:
        return self.service.had(self.tenant)

    def __repr__(self) -> str:
        return f"<Account {self.tenant}, rank {self.rank}, {len(self.waiting)} waiting>"


class FairQueue:
    """All that waits, by account, and the services of the classes.

    Args:
        shares: the declared tenants.
        lead, band: see `Service`.
    """

    def __init__(self, shares: Mapping[str, Share], *, lead: float, band: float) -> None:
        self.num_tokens = 0
        self._services = [Service(shares, lead=lead, band=band) for _ in RANKS]
        self._accounts: dict[tuple[int, str], Account] = {}

    def __len__(self) -> int:
        return sum(len(account.waiting) for account in self._accounts.values())

    def __iter__(self) -> Iterator[Request]:
        for account in self._accounts.values():
            yield from account.waiting

    def append(self, requests: Sequence[Request]) -> None:
        account = self._join(requests[0])
        last = not account.waiting or _urgency(account.waiting[-1]) <= _urgency(requests[0])
        for request in requests:
            account.add(request)
            self.num_tokens += request.num_tokens
        account.clock.extend(requests) if last else account.clock.forget()

    def put_back(self, request: Request) -> None:
        self._join(request).add(request, again=True)
        self.num_tokens += request.num_tokens

    def start(self, request: Request) -> None:
        self._account(request).waiting.remove(request)
        self.num_tokens -= request.num_tokens

    def drop_ended(self) -> None:
        for account in self._accounts.values():
            account.waiting = [request for request in account.waiting if not request.ended]
        self.num_tokens = sum(request.num_tokens for request in self)

    def give_way(
        self, source: GenerateRequest, running: Sequence[Request]
    ) -> Iterator[Sequence[Request]]:
        """See `flow.queue_bound.give_way`. Of each account the one that would be served last."""
        newcomer = RANKS[source.traffic_class], source.tenant
        return give_way(
            newcomer,
            source.n,
            {key: len(account.waiting) for key, account in self._accounts.items()},
            {key: _last_first(account, running) for key, account in self._accounts.items()},
            self._services[newcomer[0]].weight,
        )

    def _join(self, request: Request) -> Account:
        account = self._account(request)
        if not account.waiting:
            waiting = [each.tenant for each in self._of_class(account.rank) if each.waiting]
            account.service.join(account.tenant, waiting)
        return account

    def _account(self, request: Request) -> Account:
        key = RANKS[request.traffic_class], request.tenant
        if key not in self._accounts:
            self._accounts[key] = Account(*key, self._services[key[0]])
        return self._accounts[key]

    def _of_class(self, rank: int) -> Iterator[Account]:
        return (account for account in self._accounts.values() if account.rank == rank)

    # -- when ------------------------------------------------------------------------------------

    def forget_times(self) -> None:
        for account in self._accounts.values():
            account.clock.forget()

    def seconds_ahead(
        self, source: GenerateRequest, running: Sequence[Request], estimate: Estimate
    ) -> float:
        account = self._accounts.get((RANKS[source.traffic_class], source.tenant))
        if account is None:
            return 0.0
        deadline = inf if source.deadline is None else source.deadline
        if self._latest(account, running) <= deadline:
            return account.clock.seconds(lambda: self._queue(account, running), estimate)
        ahead = self._queue(account, running)
        first = [request for request in ahead if _deadline(request) <= deadline]
        return estimate.through(estimate.now, first) - estimate.now

    def queues(self, running: Sequence[Request], estimate: Estimate) -> tuple[TenantQueue, ...]:
        return tuple(self._told(account, running, estimate) for account in self._accounts.values())

    def _told(
        self, account: Account, running: Sequence[Request], estimate: Estimate
    ) -> TenantQueue:
        return TenantQueue(
            account.tenant,
            tuple(RANKS)[account.rank],
            seconds=account.clock.seconds(lambda: self._queue(account, running), estimate),
            latest_deadline=self._latest(account, running),
        )

    def _latest(self, account: Account, running: Sequence[Request]) -> float:
        """The last deadline of its requests."""
        mine = [r for r in running if self._account(r) is account] + account.waiting[-1:]
        return max(map(_deadline, mine), default=-inf)

    def _queue(self, account: Account, running: Sequence[Request]) -> list[Request]:
        """What is ahead of one that comes last. It may be less: others make room."""
        return [r for r in running if self._account(r) is account] + account.waiting

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {list(self._accounts.values())}, {self._services}>"


def _last_first(account: Account, running: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """Its requests that were never started, those that would be served last first."""
    begun = {request.request_id for request in running}
    for request in list(reversed(account.waiting)):
        if request.request_id in begun:
            continue
        begun.add(request.request_id)
        group = request.among(account.waiting)
        if not any(each.was_begun for each in group):
            yield group


def _deadline(request: Request) -> float:
    return inf if request.deadline is None else request.deadline


def _urgency(request: Request) -> tuple[float, float]:
    return _deadline(request), request.arrived
