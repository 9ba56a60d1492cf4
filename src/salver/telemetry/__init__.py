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
from salver.telemetry.goodput import Ending, Goodput, Objectives, goodput, is_good
from salver.telemetry.latency import Latencies, Stopwatch

__all__ = [
    "Decided",
    "Ending",
    "Event",
    "Goodput",
    "Latencies",
    "Objectives",
    "Observer",
    "QuotaUnchecked",
    "RequestEnded",
    "RequestRefused",
    "ServiceLabels",
    "Stopwatch",
    "goodput",
    "is_good",
]
