"""Block tables, and the prefix cache that falls out of them.

A full block's key is the hash of its parent's key and its own tokens; the chain starts from the
tenant's salt, so a key says everything that came before it and belongs to one tenant (law 7). Only
full blocks are ever shared and nobody writes into a full block, so sharing needs no copies: n > 1
choices, a repeated system prompt and a preempted request all come back as prefix hits.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

from salver.engine.block_pool import BlockKey, BlockPool
from salver.engine.request import Owner, Request

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    """What the cache knows of one request. A waiting request has keys, but an empty table."""

    table: list[int] = field(default_factory=list)
    keys: list[BlockKey] = field(default_factory=list)  # of its leading full blocks
    num_published: int = 0
    num_coming: int = 0  # keys that are told to come from it


class KVCacheManager:
    """One block table per request key. Owns the tables; the pool owns the counts."""

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self.pool = pool
        self.block_size = block_size
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0
        self._entries: dict[str, _Entry] = {}
        self._coming: Counter[BlockKey] = Counter()  # of the prompts of all in flight
        self._held: defaultdict[Owner, Counter[int]] = defaultdict(Counter)  # tables by block

    @property
    def capacity_tokens(self) -> int:
        return self.pool.num_blocks * self.block_size

    @property
    def tables(self) -> dict[str, list[int]]:
        """A copy of every non-empty table, by request key."""
        return {key: list(entry.table) for key, entry in self._entries.items() if entry.table}

    def table(self, request: Request) -> list[int]:
        """The live table; a view that later steps extend."""
        return self._entries[request.key].table

    def num_held(self, owner: Owner) -> int:
        """Distinct blocks that the tables of an owner cover."""
        return len(self._held[owner]) if owner in self._held else 0

    def num_tables(self, owner: Owner, block: int) -> int:
        """Of an owner's tables, those that have this block."""
        return self._held[owner][block] if owner in self._held else 0

    def num_cached_tokens(self, request: Request) -> int:
        """The prefix hit that a waiting request would get now."""
        entry = self._entries.setdefault(request.key, _Entry())
        return len(self._prefix_hit(request, entry)) * self.block_size

    def expect(self, request: Request) -> None:
        """A request has come: what it may find when it is begun, and what others may find of it."""
        request.expected_tokens = self.num_expected_tokens(request)
        entry = self._entries[request.key]
        entry.num_coming = len(request.prompt) // self.block_size
        self._coming.update(self._chain(request, entry, entry.num_coming))

    def num_expected_tokens(self, request: Request) -> int:
        """The prefix hit that a request would get if all prompts in flight were computed before it."""
        entry = self._entries.setdefault(request.key, _Entry())
        known = 0
        for key in self._findable(request, entry):
            if key not in self._coming and self.pool.find(key) is None:
                break
            known += self.block_size
        return known

    def attach(self, request: Request, num_tokens: int) -> bool:
        """Give a waiting request its prefix hit, and room to compute `num_tokens` beyond it.

        On success the request's `num_computed_tokens` is the hit. All or nothing: on False the
        pool is as it was.
        """
        entry = self._entries.setdefault(request.key, _Entry())
        hit = self._prefix_hit(request, entry)
        computed = len(hit) * self.block_size
        end = min(computed + num_tokens, request.num_tokens)
        if self._lacking(hit, end) > 0:
            return False
        self.pool.hold(hit)
        self._held[request.owner].update(hit)
        entry.table = hit
        entry.num_published = len(hit)
        self.num_queried_tokens += request.num_tokens
        self.num_hit_tokens += computed
        request.num_computed_tokens = computed
        return self.extend(request, end)

    def lacking(self, request: Request, num_tokens: int) -> tuple[int, Set[int]]:
        """How many more blocks `attach` would have to find available, and the prefix hit, whose blocks
        are no help when others let go of them."""
        hit = self._prefix_hit(request, self._entries.setdefault(request.key, _Entry()))
        end = min(len(hit) * self.block_size + num_tokens, request.num_tokens)
        return max(0, self._lacking(hit, end)), set(hit)

    def extend(self, request: Request, end: int) -> bool:
        """Make the table cover positions [0, end). All or nothing."""
        table = self._entries[request.key].table
        missing = max(0, self._blocks_for(end) - len(table))
        if missing > self.pool.num_available:
            return False
        if missing:
            new = self.pool.allocate(missing)
            table.extend(new)
            self._held[request.owner].update(new)
        return True

    def publish(self, request: Request) -> None:
        """Make the request's full, computed blocks findable by others of the same salt."""
        entry = self._entries[request.key]
        full = request.num_computed_tokens // self.block_size
        if full > entry.num_published:
            keys = self._chain(request, entry, full)
            for index in range(entry.num_published, full):
                self.pool.publish(entry.table[index], keys[index])
            entry.num_published = full

    def release(self, request: Request) -> None:
        """Take the request's table away; its full blocks stay findable until evicted."""
        entry = self._entries.get(request.key)
        if entry is not None:
            self.pool.release(entry.table)
            self._let_go(request.owner, entry.table)
            entry.table, entry.num_published = [], 0

    def forget(self, request: Request) -> None:
        """It has ended."""
        self.release(request)
        entry = self._entries.pop(request.key, _Entry())
        _take(self._coming, entry.keys[: entry.num_coming])

    def _let_go(self, owner: Owner, table: list[int]) -> None:
        if not table:
            return
        _take(self._held[owner], table)
        if not self._held[owner]:
            del self._held[owner]

    def _lacking(self, hit: list[int], end: int) -> int:
        """Blocks that are not available of those for positions [0, end) beyond a prefix hit."""
        cached = sum(1 for block in hit if not self.pool.references(block))
        return self._blocks_for(end) - len(hit) - (self.pool.num_available - cached)

    def _prefix_hit(self, request: Request, entry: _Entry) -> list[int]:
        """Blocks of the longest known prefix, leaving at least one token to compute."""
        hit = []
        for key in self._findable(request, entry):
            block = self.pool.find(key)
            if block is None:
                break
            hit.append(block)
        return hit

    def _findable(self, request: Request, entry: _Entry) -> list[BlockKey]:
        """Keys of the blocks that it could share."""
        if request.wants_prompt_logprobs:  # every prompt position has to be run through the model
            return []
        return self._chain(request, entry, (request.num_tokens - 1) // self.block_size)

    def _chain(self, request: Request, entry: _Entry, count: int) -> list[BlockKey]:
        """Keys of the request's first `count` blocks; each is computed once."""
        keys = entry.keys
        parent = keys[-1] if keys else blake2b(request.salt.encode(), digest_size=16).digest()
        for start in range(len(keys) * self.block_size, count * self.block_size, self.block_size):
            tokens = array("q", request.tokens(start, start + self.block_size))
            parent = blake2b(parent + tokens.tobytes(), digest_size=16).digest()
            keys.append(parent)
        return keys[:count]

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def __repr__(self) -> str:
        return f"<KVCacheManager {len(self.tables)} tables over {self.pool!r}>"


def _take(counts: Counter[T], what: Iterable[T]) -> None:
    """One of each less; what is counted no more is gone."""
    for each in what:
        counts[each] -= 1
        if not counts[each]:
            del counts[each]
