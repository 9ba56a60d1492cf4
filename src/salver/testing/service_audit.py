"""Law 5 seen from outside: who got how much, counted anew from what was scheduled."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import permutations

from salver.contract import GenerateRequest, TrafficClass
from salver.engine import KVCacheManager, Limits, SchedulerOutput
from salver.flow import Share, Tariff

Account = tuple[TrafficClass, str]


class ServiceAudit:
    """Adds up each account's weighted service and holds every pair against the bound of
    docs/fairness.md, over each stretch of steps in which both waited. `worst` is the largest gap
    seen, as a part of its bound.
    """

    def __init__(
        self,
        kv: KVCacheManager,
        shares: Mapping[str, Share],
        limits: Limits,
        tariff: Tariff,
    ) -> None:
        self.worst = 0.0
        self.had: defaultdict[Account, float] = defaultdict(float)
        self._kv = kv
        self._shares = shares
        self._limits = limits
        self._tariff = tariff
        self._since: dict[tuple[Account, Account], float] = {}

    def step(
        self,
        plan: SchedulerOutput,
        requests: Mapping[str, GenerateRequest],
        one_behind: Collection[str],
        waiting: Collection[Account],
    ) -> None:
        """Take in a step that was scheduled and not yet accounted for.

        `requests` are all in flight by key, `one_behind` the keys of the running requests that missed one token, `waiting` the
        accounts that have waiting requests after it.
        """
        self._charge(plan, requests, one_behind)
        for pair in permutations(waiting, 2):
            first, second = pair
            if first[0] is second[0]:
                gap = self.had[first] - self.had[second]
                grown = gap - self._since.setdefault(pair, gap)
                self.worst = max(self.worst, grown / self._bound(*pair))
        for pair in [pair for pair in self._since if not set(pair) <= set(waiting)]:
            del self._since[pair]

    def _charge(
        self,
        plan: SchedulerOutput,
        requests: Mapping[str, GenerateRequest],
        one_behind: Collection[str],
    ) -> None:
        computed: defaultdict[Account, float] = defaultdict(float)
        for sequence in plan.sequences:
            decodes = sequence.key in one_behind
            first, count = sequence.first_position, sequence.end - sequence.start
            charge = self._tariff.charge(first, count, decodes=decodes)
            computed[_account(requests[sequence.key])] += charge
        held: defaultdict[Account, set[int]] = defaultdict(set)
        for key, table in self._kv.tables.items():
            held[_account(requests[key])].update(table)
        for account, charge in computed.items():
            of_pool = len(held[account]) / self._kv.pool.num_blocks
            whole = sum(c for other, c in computed.items() if other[0] is account[0])
            self.had[account] += max(charge, of_pool * whole) / self._weight(account)

    def _bound(self, first: Account, second: Account) -> float:
        context, batch = self._limits.max_context_tokens, self._limits.max_batch_tokens
        request, step = self._tariff.of_request(context), self._tariff.of_step(batch, context)
        heaviest = max([1.0, *(share.weight for share in self._shares.values())])
        band = min(self._limits.max_batch_tokens, request) / heaviest
        either = 1 / self._weight(first) + 1 / self._weight(second)
        return (request + step) * either + 2 * band

    def _weight(self, account: Account) -> float:
        return self._shares.get(account[1], Share()).weight


def _account(request: GenerateRequest) -> Account:
    return request.traffic_class, request.tenant
