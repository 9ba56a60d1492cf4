"""What a worker is told when it starts. It reads nothing else: no environment, no contract file."""

from collections.abc import Callable, Mapping
from random import Random

import msgspec

from salver.engine.admission import Admission
from salver.engine.core import EngineCore
from salver.engine.runners.choice import RunnerKind
from salver.engine.step import Limits
from salver.flow import FirstTokenBound, QueueBound, Share
from salver.worker.frames import ModelFacts

MODEL_ENGINE = "salver.worker.model_engine:open_model_engine"


class WorkerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release's worker, in plain scalars.

    `engine` names, as `module:function`, what turns this spec into an engine: the place where
    another runner, or a fake one, is plugged in.
    """

    name: str
    store: str  # directory of the ArtifactStore
    digest: str  # in it: `sha256:` and 64 hex digits; the bytes are hashed again before use
    memory_bytes: int
    threads: int
    max_context_tokens: int
    max_running: int
    max_batch_tokens: int
    max_queued_requests: int
    max_queued_tokens: int
    ttft_seconds: float | None = None  # slo.ttft_p95: who waits too long for it is not begun
    tpot_seconds: float | None = None  # slo.tpot_p95: what a running request may take per token
    shares: Mapping[str, Share] | None = (
        None  # of the declared tenants; None: first come, first served
    )
    sheds: bool = False  # whether requests that wait give way for others when the queue is full
    runner: RunnerKind = RunnerKind.NUMPY_F32
    isa: str | None = None  # a slower path of the native core, where one is forced
    engine: str = MODEL_ENGINE

    def limits(self) -> Limits:
        return Limits(
            self.max_running,
            self.max_batch_tokens,
            self.max_context_tokens,
            self.tpot_seconds,
            self.ttft_seconds,
        )

    def admission(self) -> Admission:
        bound = QueueBound(self.max_queued_requests, self.max_queued_tokens)
        draw = Random().random  # noqa: S311 - spreads retries; nobody must not guess it
        first_token = None if self.ttft_seconds is None else FirstTokenBound(self.ttft_seconds)
        return Admission(bound, first_token, sheds=self.sheds, draw=draw)


OpenEngine = Callable[[WorkerSpec], tuple[EngineCore, ModelFacts]]
