"""Who holds which KV block.

A block is in exactly one of three states: owned (some block table holds it), cached (nobody holds
it, but its content can still be found by key) or free. Cached and free blocks wait in one list in
eviction order: free ones first, then the least recently released, deepest first, so that a cached
chain is eaten from its leaf. Reference counts live here and nowhere else.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

BlockKey = bytes


class BlockPool:
    """Reference counts, keys and the eviction order of `num_blocks` blocks, ids [0, num_blocks)."""

    def __init__(self, num_blocks: int) -> None:
        self._references = [0] * num_blocks
        self._keys: list[BlockKey | None] = [None] * num_blocks
        self._by_key: dict[BlockKey, int] = {}
        self._unowned: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._num_cached = 0  # unowned blocks that have a key

    @property
    def num_blocks(self) -> int:
        return len(self._references)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` could hand out: free and cached ones."""
        return len(self._unowned)

    @property
    def num_cached(self) -> int:
        """Blocks nobody holds whose content can still be found."""
        return self._num_cached

    @property
    def num_owned(self) -> int:
        return self.num_blocks - self.num_available

    def references(self, block: int) -> int:
        return self._references[block]

    def find(self, key: BlockKey) -> int | None:
        """The block whose content has this key, owned or cached."""
        return self._by_key.get(key)

    def hold(self, blocks: Iterable[int]) -> None:
        """Add one reference to each; a cached block leaves the eviction list."""
        for block in blocks:
            if not self._references[block]:
                del self._unowned[block]
                self._num_cached -= self._keys[block] is not None
            self._references[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, each with one reference and no key. The caller checked that
        `num_available` allows it; the contents found in them until now are forgotten."""
        blocks = [self._unowned.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self._forget(block)
            self._references[block] = 1
        return blocks

    def publish(self, block: int, key: BlockKey) -> None:
        """Make an owned block's content findable. The first block to publish a key keeps it."""
        if self._keys[block] is None and key not in self._by_key:
            self._keys[block] = key
            self._by_key[key] = block

    def release(self, table: Sequence[int]) -> None:
        """Drop one reference from each block of a table, leaf first."""
        for block in reversed(table):
            self._references[block] -= 1
            if not self._references[block]:
                self._unowned[block] = None
                if self._keys[block] is None:
                    self._unowned.move_to_end(block, last=False)
                else:
                    self._num_cached += 1

    def _forget(self, block: int) -> None:
        key = self._keys[block]
        if key is not None:
            self._keys[block] = None
            del self._by_key[key]
            self._num_cached -= 1

    def __repr__(self) -> str:
        free = self.num_available - self.num_cached
        return f"<BlockPool {self.num_owned} owned, {self.num_cached} cached, {free} free>"
