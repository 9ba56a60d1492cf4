"""Waiting for others on this machine to be quiet, for so long in all and no longer."""

import time
from pathlib import Path

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
