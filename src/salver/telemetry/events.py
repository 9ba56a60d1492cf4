"""What happened, as frozen values. Whoever counts or stores them is somebody else's choice."""

from collections.abc import Callable
from dataclasses import dataclass

from salver.contract import Decision, FinishReason, Outcome, Timings
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
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request was turned away with this status code, by this rule. No tenant: unknown."""

    rule: str
    status: int
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """A declared rule was held against a value, and acted upon."""

    decision: Decision
    tenant: str
    request_id: str


@dataclass(frozen=True, slots=True)
class QuotaUnchecked:
    """A request was admitted without its tenant's quota, which fails open, being looked at."""

    tenant: str


Event = RequestEnded | RequestRefused | Decided | QuotaUnchecked
Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class ServiceLabels:
    """What every metric of one service is labelled with."""

    deployment: str
    release: str
    model: str
    mode: str
    version: str
