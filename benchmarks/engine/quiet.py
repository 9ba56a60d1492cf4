"""Others on this machine: what they take of it, and waiting for them to be quiet."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BUSY = 0.05  # share of all cores; below it the machine counts as quiet
SAMPLE_SECONDS = 0.5


class Quiet:
    """`budget` is in seconds, for the whole benchmark: a machine that never rests is measured too,
    and the report marks what was disturbed."""

    def __init__(self, budget: float) -> None:
        self._budget = budget

    def wait(self) -> None:
        """Return once nobody computes, or when the budget is spent. No contender may be awake."""
        while self._budget > 0 and _busy_share() > BUSY:
            self._budget -= SAMPLE_SECONDS


def cpu_ticks() -> tuple[int, int]:
    """Clock ticks since boot that all cores together were busy, and that passed on all of them."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle, and waiting for input or output
    return sum(ticks) - idle, sum(ticks)


def _busy_share() -> float:
    busy_before, total_before = cpu_ticks()
    time.sleep(SAMPLE_SECONDS)
    busy, total = cpu_ticks()
    return (busy - busy_before) / max(total - total_before, 1)


@dataclass(frozen=True)
class CpuTime:
    """Clock ticks since boot: all cores busy, all cores together, and those of our own processes."""

    busy: int
    total: int
    own: int

    @classmethod
    def of(cls, *roots: int) -> Self:
        """Own are the processes `roots` and all that descend from them, whatever their sessions."""
        busy, total = cpu_ticks()
        return cls(busy, total, _ticks_of_trees(roots))

    def foreign_since(self, before: Self) -> float:
        """The share of the machine that others took."""
        busy = (self.busy - before.busy) - (self.own - before.own)
        return max(busy, 0) / max(self.total - before.total, 1)


def _ticks_of_trees(roots: Sequence[int]) -> int:
    """User and system ticks of living processes and of the children they reaped."""
    ticks, children = {}, defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        pid, parent = int(stat.parent.name), int(fields[1])
        ticks[pid] = sum(map(int, fields[11:15]))
        children[parent].append(pid)
    total, todo = 0, list(dict.fromkeys(roots))
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo += children[pid]
    return total
