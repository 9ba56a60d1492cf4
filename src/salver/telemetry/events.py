"""What happened, as frozen values. Whoever counts or stores them is somebody else's choice."""

from collections.abc import Callable
from dataclasses import dataclass

from salver.contract import FinishReason, Outcome, Timings
from salver.telemetry.latency import Latencies


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """An accepted request reached its one Outcome. `timings` holds one entry per ended choice."""

    endpoint: str
    outcome: Outcome
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    latencies: Latencies
    timings: tuple[Timings, ...] = ()
    reasons: tuple[FinishReason, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request was turned away with this status code, by this rule."""

    rule: str
    status: int


Event = RequestEnded | RequestRefused
Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class ServiceLabels:
    """What every metric of one service is labelled with."""

    deployment: str
    release: str
    model: str
    mode: str
    version: str
