"""Events, metrics and evidence."""

from salver.telemetry.events import (
    Decided,
    Event,
    Observer,
    QuotaUnchecked,
    RequestEnded,
    RequestRefused,
    ServiceLabels,
)
from salver.telemetry.latency import Latencies, Stopwatch

__all__ = [
    "Decided",
    "Event",
    "Latencies",
    "Observer",
    "QuotaUnchecked",
    "RequestEnded",
    "RequestRefused",
    "ServiceLabels",
    "Stopwatch",
]
