"""Where the gateway meets whatever computes tokens."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from math import inf
from typing import Protocol

from salver.contract.generate import GenerateRequest, TokenChunk
from salver.contract.latency import LatencyModel
from salver.contract.traffic_class import TrafficClass


@dataclass(frozen=True, slots=True)
class TenantQueue:
    """What is ahead of a request that comes now, at least: None stands for any tenant or class.

    A request whose deadline is before `latest_deadline` may go before some of it.
    """

    tenant: str | None = None
    traffic_class: TrafficClass | None = None
    seconds: float = 0.0
    latest_deadline: float = -inf

    def is_before(self, tenant: str, traffic_class: TrafficClass, deadline: float) -> bool:
        """Whether such a request has to wait for all of it."""
        return (
            self.tenant in (None, tenant)
            and self.traffic_class in (None, traffic_class)
            and self.latest_deadline <= deadline
        )


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """How busy a backend is. Counters never fall while the backend lives."""

    requests_waiting: int = 0
    requests_running: int = 0
    tokens_waiting: int = 0  # prompt tokens of the waiting requests
    tokens_running: int = 0  # that running requests still have to compute
    queues: tuple[TenantQueue, ...] = ()
    kv_block_tokens: int = 0
    kv_blocks_total: int = 0
    kv_blocks_owned: int = 0  # held by at least one running request
    kv_blocks_cached: int = 0  # held by nobody, kept for prefix hits
    steps: int = 0
    preemptions: int = 0
    prefix_cache_queries: int = 0  # tokens looked up
    prefix_cache_hits: int = 0  # tokens found
    late_tokens: int = 0  # of steps in which their request's deadline passed
    overdue_tokens: int = 0  # of steps that began after it: none (law 6)
    step_seconds: float = 0.0  # what all steps took
    predicted_step_seconds: float = 0.0  # what they were predicted to take
    step_error_seconds: float = 0.0  # the absolute differences, summed
    latency: LatencyModel | None = None  # None: not measured
    told_at: float | None = None  # the instant at which `queues` had these seconds; None: just now

    def queue_seconds(
        self,
        tenant: str = "default",
        traffic_class: TrafficClass = TrafficClass.STANDARD,
        deadline: float = inf,
        now: float | None = None,
    ) -> float:
        """At least, until a request that comes now has its turn: what was told may be some time ago."""
        before = (q.seconds for q in self.queues if q.is_before(tenant, traffic_class, deadline))
        age = 0.0 if now is None or self.told_at is None else max(0.0, now - self.told_at)
        return max(0.0, max(before, default=0.0) - age)

    @property
    def kv_usage(self) -> float:
        """Share of the pool that running requests hold, in [0, 1]."""
        return self.kv_blocks_owned / self.kv_blocks_total if self.kv_blocks_total else 0.0


class Backend(Protocol):
    """Anything that turns a GenerateRequest into TokenChunks: a worker, an upstream, a replica."""

    @property
    def name(self) -> str:
        """Stable and unique in one deployment."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be taken."""
        ...

    def check_ready(self, request_id: str) -> None:
        """Says why, if it is not ready; before any work is spent on that request.

        Raises:
            Refused: by a rule of its own.
            BackendUnavailable: not ready.
        """
        ...

    def load(self) -> LoadSnapshot:
        """The latest known load; never blocks."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """Yield chunks until each of the request's `n` choices had its Finish.

        Closing the generator early cancels the request: its blocks are free within one step.

        Raises:
            Refused: a bound was reached; nothing was computed. Only before the first chunk.
            BackendUnavailable: not ready. Only before the first chunk.
            BackendLost: the backend died; chunks already yielded stand.
        """
        ...
