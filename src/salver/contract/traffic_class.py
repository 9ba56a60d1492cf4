"""How much a request matters."""

from enum import StrEnum


class TrafficClass(StrEnum):
    """How much a request matters, most first."""

    CRITICAL = "critical"
    STANDARD = "standard"
    BATCH = "batch"
