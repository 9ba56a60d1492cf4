"""Other servers as backends: OpenAI's wire, who is asked, and what happens when they fail."""

from salver.upstream.address import Address
from salver.upstream.fallback import FallbackChain, StaticAnswer
from salver.upstream.pool import PoolRule, UpstreamPool
from salver.upstream.server import UpstreamServer
from salver.upstream.waiting import WaitingRule

__all__ = [
    "Address",
    "FallbackChain",
    "PoolRule",
    "StaticAnswer",
    "UpstreamPool",
    "UpstreamServer",
    "WaitingRule",
]
