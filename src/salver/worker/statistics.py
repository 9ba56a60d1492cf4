"""What a person wants to know about a worker at 3 a.m."""

from dataclasses import dataclass
from enum import StrEnum

import psutil


class State(StrEnum):
    """Where a supervised worker is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"  # dead; started again unless it never was ready


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One look at a supervised worker. Sizes in bytes, times in seconds."""

    name: str
    state: State
    pid: int | None
    restarts: int
    failures_in_a_row: int
    uptime: float
    in_flight: int
    resident_bytes: int
    memory_bytes: int  # the envelope that `resident_bytes` is held against
    last_death: str


def resident_bytes(pid: int) -> int:
    """What a process holds in memory; 0 once it has gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
