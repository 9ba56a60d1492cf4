"""Which of several replicas takes a request: the one that knows its prefix, unless it is the busier.

A replica that computed the same beginning before has it in its prefix cache, and computes only the
rest. `PrefixMap` remembers, in bounded memory, who last computed which beginning. Going where the
prefix is would send everything that begins with one system prompt to one replica; so a replica is
considered only while, with the new request, its load would be at most `SLACK` times the mean (as in
V. Mirrokni et al., Consistent Hashing with Bounded Loads, SODA 2018), and the least loaded one
always is. A tie goes to the less loaded, then to the first.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

SLACK = 1.25
PREFIX_BLOCK_TOKENS = 64
PREFIX_BLOCKS_AT_MOST = (
    64  # of one prompt that are looked at; a longer one is known by its beginning
)
PREFIXES_KEPT = 65536


@dataclass(frozen=True, slots=True)
class Load:
    """Of one replica: tokens in flight, and how many it may have."""

    tokens: int
    limit: int

    def has_room(self, tokens: int) -> bool:
        """Whether so many more fit. An idle replica takes any request, else none ever could."""
        return self.tokens == 0 or self.tokens + tokens <= self.limit

    def share(self, tokens: int) -> float:
        """Of its limit in use, with so many more."""
        return (self.tokens + tokens) / self.limit


class PrefixMap:
    """Who last computed each beginning, least recently used ones forgotten."""

    def __init__(self, capacity: int = PREFIXES_KEPT) -> None:
        self._capacity = capacity
        self._owner: OrderedDict[Hashable, str] = OrderedDict()

    def matched(self, prefixes: Sequence[Hashable]) -> Mapping[str, int]:
        """For each replica, how many blocks of a prompt it has, `prefixes` in rising length."""
        found: dict[str, int] = {}
        for length, prefix in enumerate(prefixes, start=1):
            owner = self._owner.get(prefix)
            if owner is None:
                break
            found[owner] = length
        return found

    def note(self, prefixes: Iterable[Hashable], replica: str) -> None:
        """The replica computes these from now on."""
        for prefix in prefixes:
            self._owner[prefix] = replica
            self._owner.move_to_end(prefix)
        while len(self._owner) > self._capacity:
            self._owner.popitem(last=False)

    def __len__(self) -> int:
        return len(self._owner)


def prefixes_of(salt: str, tokens: Sequence[int]) -> tuple[int, ...]:
    """A key for each beginning of whole blocks, shortest first; another salt has other keys."""
    return tuple(_chain(salt, tokens))


def choose(loads: Mapping[str, Load], matched: Mapping[str, int], tokens: int) -> str | None:
    """The replica for a request of `tokens`; None if none has room.

    `loads` holds those that may be asked at all, in their declared order.
    """
    open_ = [name for name, load in loads.items() if load.has_room(tokens)]
    if not open_:
        return None
    mean = sum(load.share(0) for load in loads.values()) / len(loads)
    least = min(open_, key=lambda name: loads[name].share(tokens))
    bound = max(
        SLACK * (mean + loads[least].share(tokens) / len(loads)), loads[least].share(tokens)
    )
    near = [name for name in open_ if loads[name].share(tokens) <= bound]
    return min(near, key=lambda name: (-matched.get(name, 0), loads[name].share(tokens)))


def _chain(salt: str, tokens: Sequence[int]) -> Iterator[int]:
    key = hash(salt)
    for block in range(min(len(tokens) // PREFIX_BLOCK_TOKENS, PREFIX_BLOCKS_AT_MOST)):
        start = block * PREFIX_BLOCK_TOKENS
        key = hash((key, tuple(tokens[start : start + PREFIX_BLOCK_TOKENS])))
        yield key
