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


@dataclass(frozen=True, slots=True)
class UpstreamAsked:
    """A request was sent to another server; `again` where one had failed it before."""

    upstream: str
    again: bool


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """Another server is left alone from now on (`opened`), or used again."""

    upstream: str
    opened: bool


@dataclass(frozen=True, slots=True)
class FellBack:
    """A request that the release could not take is answered by another backend, or a static text."""

    tenant: str
    backend: str


Event = (
    RequestEnded
    | RequestRefused
    | Decided
    | QuotaUnchecked
    | UpstreamAsked
    | BreakerChanged
    | FellBack
)
Observer = Callable[[Event], None]


class Observers:
    """An Observer that tells others. Those that join later hear what comes then."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def join(self, observer: Observer) -> None:
        self._observers.append(observer)

    def __call__(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


@dataclass(frozen=True, slots=True)
class ServiceLabels:
    """What every metric of one service is labelled with."""

    deployment: str
    release: str
    model: str
    mode: str
    version: str
