"""Events, metrics and evidence."""

from salver.telemetry.events import (
    BreakerChanged,
    Decided,
    Event,
    FellBack,
    Observer,
    Observers,
    QuotaUnchecked,
    RequestEnded,
    RequestRefused,
    ServiceLabels,
    UpstreamAsked,
)
from salver.telemetry.goodput import Ending, Goodput, Objectives, goodput, is_good
from salver.telemetry.latency import Latencies, Stopwatch, tpot_of

__all__ = [
    "BreakerChanged",
    "Decided",
    "Ending",
    "Event",
    "FellBack",
    "Goodput",
    "Latencies",
    "Objectives",
    "Observer",
    "Observers",
    "QuotaUnchecked",
    "RequestEnded",
    "RequestRefused",
    "ServiceLabels",
    "Stopwatch",
    "UpstreamAsked",
    "goodput",
    "is_good",
    "tpot_of",
]
