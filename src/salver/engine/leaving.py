"""What preempting some requests would give back, before anybody is preempted."""

from collections import Counter, defaultdict
from collections.abc import Container

from salver.engine.kv_cache import KVCacheManager
from salver.engine.request import Owner, Request


class Leaving:
    """Running requests that would be preempted, and what they would give back. Nothing is changed.

    Args:
        kv: has their tables.
        kept: blocks that are of no use to others, since who comes shares them.
    """

    def __init__(self, kv: KVCacheManager, kept: Container[int] = ()) -> None:
        self.requests: list[Request] = []
        self.num_freed = 0  # blocks that nobody else holds
        self._kv = kv
        self._kept = kept
        self._gone: Counter[int] = Counter()  # tables that had a block, and leave
        self._gone_of: defaultdict[Owner, Counter[int]] = defaultdict(Counter)
        self._given: Counter[Owner] = Counter()

    def add(self, request: Request) -> None:
        """It would leave too."""
        self.requests.append(request)
        mine = self._gone_of[request.owner]
        for block in self._kv.table(request):
            self._gone[block] += 1
            mine[block] += 1
            if mine[block] == self._kv.num_tables(request.owner, block):
                self._given[request.owner] += 1
            if self._gone[block] == self._kv.pool.references(block) and block not in self._kept:
                self.num_freed += 1

    def num_held(self, owner: Owner) -> int:
        """Distinct blocks that an owner would still hold."""
        return self._kv.num_held(owner) - self._given[owner]
