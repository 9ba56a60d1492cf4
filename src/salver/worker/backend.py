"""A worker as the gateway sees it: a `contract.Backend` that outlives the processes behind it."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from salver.contract import GenerateRequest, LoadSnapshot, TokenChunk
from salver.errors import BackendUnavailable
from salver.worker.connection import Connection

COUNTERS = (
    "steps",
    "preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "late_tokens",
    "overdue_tokens",
    "step_seconds",
    "predicted_step_seconds",
    "step_error_seconds",
)


class WorkerBackend:
    """Serves through whichever connection the supervisor has attached, and refuses without one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._connection: Connection | None = None
        self._why_not = "it has not been started"
        self._past = LoadSnapshot()  # the counters of processes that have ended

    @property
    def name(self) -> str:
        return self._name

    @property
    def ready(self) -> bool:
        return self._connection is not None

    def check_ready(self, request_id: str) -> None:
        """Raises BackendUnavailable without a worker; says why."""
        if self._connection is None:
            raise self._unavailable()

    def load(self) -> LoadSnapshot:
        """The load after the worker's latest step; counters go on over restarts."""
        latest = self._connection.load if self._connection else LoadSnapshot()
        totals = {name: getattr(self._past, name) + getattr(latest, name) for name in COUNTERS}
        return replace(latest, **totals)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """See `contract.Backend.generate`.

        Raises:
            Refused, TooLarge, InvalidValue: before the first chunk.
            BackendUnavailable: no worker is ready; says why.
            BackendLost: the worker died; says how.
        """
        connection = self._connection
        if connection is None:
            raise self._unavailable()
        stream = connection.generate(request)
        try:
            await connection.drain()
            while stream.undelivered:
                yield await stream.next()
        finally:
            connection.finish(stream)

    def attach(self, connection: Connection) -> None:
        """Serve through this connection from now on."""
        self._connection = connection

    def detach(self, why: str) -> None:
        """Refuse new requests, giving `why`; those in flight stay with their connection."""
        self._past = self.load()
        self._connection = None
        self._why_not = why

    def _unavailable(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"worker {self._name!r} is not ready: {self._why_not}",
            rule="worker.ready",
            fix="retry in a moment; a worker that died is restarted",
        )

    def __repr__(self) -> str:
        return f"<WorkerBackend {self._name} {self._connection or self._why_not}>"
