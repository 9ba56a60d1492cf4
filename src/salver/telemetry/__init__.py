"""Events, metrics and evidence."""

from salver.telemetry.events import Event, Observer, RequestEnded, RequestRefused, ServiceLabels
from salver.telemetry.latency import Latencies, Stopwatch

__all__ = [
    "Event",
    "Latencies",
    "Observer",
    "RequestEnded",
    "RequestRefused",
    "ServiceLabels",
    "Stopwatch",
]
