"""Events, metrics and evidence."""

from salver.telemetry.events import Event, Observer, RequestEnded, RequestRefused, ServiceLabels
from salver.telemetry.goodput import Ending, Goodput, Objectives, goodput, is_good
from salver.telemetry.latency import Latencies, Stopwatch

__all__ = [
    "Ending",
    "Event",
    "Goodput",
    "Latencies",
    "Objectives",
    "Observer",
    "RequestEnded",
    "RequestRefused",
    "ServiceLabels",
    "Stopwatch",
    "goodput",
    "is_good",
]
