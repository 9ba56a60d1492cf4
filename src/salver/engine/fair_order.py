"""Fair turns: classes strictly, tenants by the service they had, requests by their deadline.

An account is one tenant's requests of one class. In each step the accounts have their turns in the
order of their classes and, within a class, of their weighted service (`flow.fairness`): each its
running requests and then those that wait. Of accounts that stand about equal those go first whose
next prompt is mostly cached, so that it is used before it is evicted; then who holds less of the machine.

Who waits although it is its turn may take room from others: from any lower class; from a tenant of
its class that is ahead by more than a whole request; and, up to its own share of places and blocks,
from one that holds more than its share. A tenant that is ahead of a waiting one by more than a whole
request has no turn at all. docs/fairness.md proves what this bounds, and that it cannot stand still.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

from salver.engine.fair_queue import Account, FairQueue
from salver.engine.kv_cache import KVCacheManager
from salver.engine.leaving import Leaving
from salver.engine.order import Chosen
from salver.engine.request import Request
from salver.flow.fairness import RANKS, Share, Tariff, step_charges

ATTENTION_IS_FREE = Tariff()


class FairOrder(FairQueue):
    """See above.

    Args:
        kv: whose blocks are shared out.
        shares: the declared tenants.
        max_running: places, of which each tenant has its share too.
        max_batch_tokens, max_context_tokens: bound what a step and a request can be charged.
        tariff: what tokens are charged.
    """

    def __init__(
        self,
        kv: KVCacheManager,
        shares: Mapping[str, Share],
        *,
        max_running: int,
        max_batch_tokens: int,
        max_context_tokens: int,
        tariff: Tariff = ATTENTION_IS_FREE,
    ) -> None:
        lead, band = tariff.of_request(max_context_tokens), float(max_batch_tokens)
        super().__init__(shares, lead=lead, band=band)
        self.tariff = tariff
        self._kv = kv
        self._shares = shares
        self._max_running = max_running
        self._blocked: dict[int, Account] = {}  # by class: the first that found no room
        self._stuck: Request | None = None  # what found no room: nobody else starts in this step

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
        self._blocked, self._stuck = {}, None
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

    def yields(self, request: Request, first: Request | None) -> bool:
        return first is not None and self._account(request) is not self._account(first)

    def _ranked(self, running: Sequence[Request]) -> list[Account]:
        self._note_running(running)
        least = [inf] * len(RANKS)
        for account in self._accounts.values():
            least[account.rank] = min(least[account.rank], account.had)
        for account in self._accounts.values():
            account.band = account.service.band_of(account.tenant, least[account.rank])
        crowds = Counter((a.rank, a.band) for a in self._accounts.values() if a.waiting)

        def standing(account: Account) -> tuple[int, int, bool, float, float, str]:
            crowded = account.waiting and crowds[account.rank, account.band] > 1
            cold = not (crowded and self._is_warm(account))
            share = self._kv.num_held(account.owner) / account.service.weight(account.tenant)
            return account.rank, account.band, cold, share, account.had, account.tenant

        return sorted(self._accounts.values(), key=standing)

    def _is_warm(self, account: Account) -> bool:
        """Whether its next prompt is mostly cached, and not behind one of which much is to compute."""
        if any(request.num_missing_tokens > 1 for request in account.running):
            return False
        following = account.waiting[0]
        return 2 * self._kv.num_cached_tokens(following) >= following.num_tokens

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

    def victim(
        self, request: Request, running: Sequence[Request], leaving: Leaving | None = None
    ) -> Request | None:
        mine, places = self._account(request), Counter(map(self._account, running))
        num_held = leaving.num_held if leaving else self._kv.num_held
        busy = [each for each in self._of_class(mine.rank) if each.waiting or each.running]
        whole = sum(each.service.weight(each.tenant) for each in busy)

        def use(account: Account, more: int = 0) -> float:
            return self._use(account, num_held(account.owner), places[account] + more, whole)

        modest = not places[mine] or use(mine, more=1) <= 1

        def gives(account: Account) -> bool:
            if account.rank != mine.rank:
                return account.rank > mine.rank
            greedy = places[account] > 1 and use(account) > 1
            return account.is_ahead(mine) or (account is not mine and modest and greedy)

        givers = [account for account in places if gives(account)]
        if givers:
            worst = max(givers, key=lambda account: (account.rank, account.had, account.tenant))
            return next(each for each in reversed(running) if self._account(each) is worst)
        if not request.running:
            return None
        return next(each for each in reversed(running) if self._account(each).rank == mine.rank)

    def _use(self, account: Account, blocks: int, places: int, whole: float) -> float:
        """What it holds of its share of blocks or places, the larger; over 1 is more than its share.
        `whole` is the weight of all that are busy in its class."""
        share = account.service.weight(account.tenant) / whole
        declared = self._shares[account.tenant].kv_share if account.tenant in self._shares else None
        kv_share = share if declared is None else declared
        of_pool = blocks / (kv_share * self._kv.pool.num_blocks)
        return max(of_pool, places / (share * self._max_running))

    # -- who pays --------------------------------------------------------------------------------

    def charge(self, chosen: Chosen) -> None:
        for rank, service in enumerate(self._services):
            computed: defaultdict[str, float] = defaultdict(float)
            for request, count in chosen:
                if RANKS[request.traffic_class] == rank:
                    first, decodes = request.num_computed_tokens, request.num_missing_tokens == 1
                    charge = self.tariff.charge(first, count, decodes=decodes)
                    computed[request.tenant] += charge
            blocks = self._kv.pool.num_blocks
            shares = {a.tenant: self._kv.num_held(a.owner) / blocks for a in self._of_class(rank)}
            for tenant, service_charge in step_charges(computed, shares):
                service.charge(tenant, service_charge)
