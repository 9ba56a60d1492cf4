"""Room for a waiting request: whether others would make enough of it, before anybody does."""

from collections.abc import Sequence

from salver.engine.kv_cache import KVCacheManager
from salver.engine.leaving import Leaving
from salver.engine.order import Order
from salver.engine.request import Request


def room_for(
    request: Request,
    count: int,
    kv: KVCacheManager,
    order: Order,
    running: Sequence[Request],
    max_running: int,
) -> Sequence[Request]:
    """Who leaves for a waiting request, so that it has a place and blocks for `count` tokens more
    than it would find cached; nobody, where all who would are not enough."""
    lacking, shared = kv.lacking(request, count)
    leaving, left = Leaving(kv, kept=shared), list(running)
    while len(left) >= max_running or leaving.num_freed < lacking:
        victim = order.victim(request, left, leaving)
        if victim is None:
            return ()
        left.remove(victim)
        leaving.add(victim)
    return leaving.requests
