"""Fair turns: classes strictly, tenants by the service they had, requests by their deadline.

An account is one tenant's requests of one class. In each step the accounts have their turns in the
order of their classes and, within a class, of their weighted service (`flow.fairness`): each its
running requests and then those that wait. Accounts that stand about equal go by their prefix hits,
so that what is cached is used before it is evicted, and then by what they hold of the machine.

Who waits although it is its turn may take room from others: from any lower class; from a tenant of
its class that is ahead by more than a whole request; and, up to its own share of places and blocks,
from one that holds more than its share. A tenant that is ahead of a waiting one by more than a whole
request has no turn at all. docs/fairness.md proves what this bounds, and that it cannot stand still.
"""

from bisect import insort_left, insort_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

from salver.contract import GenerateRequest, TenantQueue
from salver.engine.kv_cache import KVCacheManager
from salver.engine.order import Chosen
from salver.engine.punctuality import Estimate, QueueClock
from salver.engine.request import Request
from salver.flow.fairness import (
    DECODE_CHARGE,
    PREFILL_CHARGE,
    RANKS,
    Service,
    Share,
    step_charges,
)
from salver.flow.queue_bound import give_way


class Account:
    """One tenant's requests of one class; those that wait by deadline, then as they came."""

    def __init__(self, rank: int, tenant: str, service: Service) -> None:
        self.rank = rank
        self.tenant = tenant
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


class FairOrder:
    """See above.

    Args:
        kv: whose blocks are shared out.
        shares: the declared tenants.
        max_running: places, of which each tenant has its share too.
        max_batch_tokens, max_context_tokens: bound what a step and a request can be charged.
    """

    def __init__(
        self,
        kv: KVCacheManager,
        shares: Mapping[str, Share],
        *,
        max_running: int,
        max_batch_tokens: int,
        max_context_tokens: int,
    ) -> None:
        self.num_tokens = 0
        self._kv = kv
        self._shares = shares
        self._max_running = max_running
        lead, band = DECODE_CHARGE * max_context_tokens, float(max_batch_tokens)
        self._services = [Service(shares, lead=lead, band=band) for _ in RANKS]
        self._accounts: dict[tuple[int, str], Account] = {}
        self._blocked: dict[int, Account] = {}  # by class: the first that found no room
        self._stuck: Request | None = None  # what found no room: nobody else starts in this step
        self._served: Account | None = None  # the first whose prompt is in this step

    # -- who waits -------------------------------------------------------------------------------

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

    # -- whose turn it is ------------------------------------------------------------------------

    def protected(self, running: Sequence[Request]) -> Iterable[Request]:
        least = {
            rank: min(
                (account for account in self._of_class(rank) if account.waiting),
                key=lambda account: account.had,
                default=None,
            )
            for rank in range(len(RANKS))
        }
        for request in running:
            account = self._account(request)
            if not account.is_ahead(least[account.rank]):
                yield request

    def turns(self, running: Sequence[Request]) -> Iterator[Request]:
        self._blocked, self._stuck, self._served = {}, None, None
        for account in self._ranked(running):
            if account.is_ahead(self._blocked.get(account.rank)):
                continue
            yield from (request for request in account.running if request.running)
            for request in list(account.waiting):
                if self._is_full:
                    self._blocked.setdefault(account.rank, account)
                    break
                yield request

    @property
    def _is_full(self) -> bool:
        return self._stuck is not None

    def block(self, request: Request) -> None:
        self._stuck = request
        self.defer(request)

    def defer(self, request: Request) -> None:
        account = self._account(request)
        self._blocked.setdefault(account.rank, account)

    def yields(self, request: Request) -> bool:
        """The account that is first with a prompt has the most urgent ones."""
        account = self._account(request)
        if self._served is None:
            self._served = account
        return account is not self._served

    def _ranked(self, running: Sequence[Request]) -> list[Account]:
        self._note_running(running)
        least = [inf] * len(RANKS)
        for account in self._accounts.values():
            least[account.rank] = min(least[account.rank], account.had)
        for account in self._accounts.values():
            account.band = account.service.band_of(account.tenant, least[account.rank])
        crowds = Counter((a.rank, a.band) for a in self._accounts.values() if a.waiting)
        held = self._held(running)

        def standing(account: Account) -> tuple[int, int, int, float, float, str]:
            crowded = account.waiting and crowds[account.rank, account.band] > 1
            hit = self._kv.num_cached_tokens(account.waiting[0]) if crowded else 0
            share = held[account] / account.service.weight(account.tenant)
            return account.rank, account.band, -hit, share, account.had, account.tenant

        return sorted(self._accounts.values(), key=standing)

    def _note_running(self, running: Sequence[Request]) -> None:
        """Give each account its running requests, and let go of those without any request."""
        for account in self._accounts.values():
            account.running = []
        for request in running:
            self._account(request).running.append(request)
        busy = {k: a for k, a in self._accounts.items() if a.running or a.waiting}
        for rank, service in enumerate(self._services):
            if not any(key[0] == rank for key in busy):
                service.forget()
        self._accounts = busy

    # -- who makes room --------------------------------------------------------------------------

    def victim(self, request: Request, running: Sequence[Request]) -> Request | None:
        mine = self._account(request)
        held, places = self._held(running), Counter(map(self._account, running))
        modest = not places[mine] or self._use(mine, held[mine], places[mine] + 1) <= 1

        def gives(account: Account) -> bool:
            if account.rank != mine.rank:
                return account.rank > mine.rank
            greedy = places[account] > 1 and self._use(account, held[account], places[account]) > 1
            return account.is_ahead(mine) or (account is not mine and modest and greedy)

        givers = [account for account in places if gives(account)]
        if givers:
            worst = max(givers, key=lambda account: (account.rank, account.had, account.tenant))
            return next(each for each in reversed(running) if self._account(each) is worst)
        if not request.running:
            return None
        return next(each for each in reversed(running) if self._account(each).rank == mine.rank)

    def _use(self, account: Account, blocks: int, places: int) -> float:
        """What it holds of its share of blocks or places, the larger; over 1 is more than its share."""
        service = account.service
        rivals = [each for each in self._of_class(account.rank) if each.waiting or each.running]
        share = service.weight(account.tenant) / sum(service.weight(a.tenant) for a in rivals)
        declared = self._shares[account.tenant].kv_share if account.tenant in self._shares else None
        kv_share = share if declared is None else declared
        of_pool = blocks / (kv_share * self._kv.pool.num_blocks)
        return max(of_pool, places / (share * self._max_running))

    def _held(self, running: Sequence[Request]) -> Counter[Account]:
        held: Counter[Account] = Counter()
        for request in running:
            held[self._account(request)] += len(self._kv.table(request))
        return held

    # -- who pays --------------------------------------------------------------------------------

    def charge(self, chosen: Chosen, running: Sequence[Request]) -> None:
        held = self._held(running)
        for rank, service in enumerate(self._services):
            computed: defaultdict[str, float] = defaultdict(float)
            for request, count in chosen:
                if RANKS[request.traffic_class] == rank:
                    cost = DECODE_CHARGE if request.num_missing_tokens == 1 else PREFILL_CHARGE
                    computed[request.tenant] += cost * count
            blocks = self._kv.pool.num_blocks
            shares = {a.tenant: min(1.0, held[a] / blocks) for a in held if a.rank == rank}
            for tenant, service_charge in step_charges(computed, shares):
                service.charge(tenant, service_charge)

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
        return f"<FairOrder {list(self._accounts.values())}, {self._services}>"


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
