"""Keeps one worker alive: starts it, watches it, and starts it again.

A worker ends in three ways, and all look the same from here: its socket closes, because the process
died or gave up; it sends what is not a report; or it is wedged, that is, requests are in flight and
no report comes. Whatever happened, the order is fixed: refuse new requests, end and reap the
process, then tell the requests in flight how it ended. So no request is ever told less than is
known, no process is left behind, and nobody waits on a worker that does not exist.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from salver.clock import Clock, MonotonicClock
from salver.contract import StepShape
from salver.errors import BackendUnavailable, SalverError
from salver.worker.backend import WorkerBackend
from salver.worker.error_report import KINDS, revive
from salver.worker.frames import Ready
from salver.worker.patience import Backoff, Patience
from salver.worker.process import WorkerProcess
from salver.worker.spec import WorkerSpec
from salver.worker.statistics import State, WorkerStatistics, resident_bytes
from salver.worker.watchdog import until_wedged

log = logging.getLogger(__name__)

CLOSING_SECONDS = 1.0  # for a worker that closed its socket to end by itself


class Supervisor:
    """Owns a worker process and the `backend` through which the gateway reaches it.

    Args:
        spec: what to run.
        patience: how long to wait for what.
        backoff: how long to wait before a restart.
        clock: measures uptime.
        sleep: waits before a restart.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        patience: Patience | None = None,
        backoff: Backoff | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.backend = WorkerBackend(spec.name)
        self.restarts = 0
        self._spec = spec
        self._patience = patience or Patience()
        self._backoff = backoff or Backoff()
        self._clock = clock or MonotonicClock()
        self._sleep = sleep
        self._state = State.STOPPED
        self._worker: WorkerProcess | None = None
        self._ready_at = 0.0
        self._failures = 0
        self._last_death = ""
        self._supervising: asyncio.Task[None] | None = None

    async def start(self) -> Ready:
        """Start the worker, wait until it is ready, and keep it alive until `stop`.

        A worker that cannot start now would not start later either, so the first failure is raised.

        Raises:
            IntegrityError, DoesNotFit, FetchError: as the worker met it.
            BackendUnavailable: it died or was not ready in time; holds the end of what it printed.
        """
        worker, ready = await self._start_worker()
        self._supervising = asyncio.create_task(self._supervise(worker))
        self._supervising.add_done_callback(_report_a_bug)
        return ready

    async def stop(self) -> None:
        """End the worker; requests in flight get BackendLost. Idempotent."""
        supervising, self._supervising = self._supervising, None
        if supervising is None:
            return
        supervising.cancel()
        await asyncio.wait({supervising})
        if self._worker is not None:
            await self._bury(self._worker, "it was stopped", self._patience.to_stop)
        self._state = State.STOPPED
        self.backend.detach("it was stopped")

    def statistics(self) -> WorkerStatistics:
        worker = self._worker
        ready = self._state is State.READY
        return WorkerStatistics(
            name=self._spec.name,
            state=self._state,
            pid=worker.pid if worker else None,
            restarts=self.restarts,
            failures_in_a_row=self._failures,
            uptime=self._clock.now() - self._ready_at if ready else 0.0,
            in_flight=worker.connection.in_flight if worker else 0,
            resident_bytes=resident_bytes(worker.pid) if worker else 0,
            memory_bytes=self._spec.memory_bytes,
            last_death=self._last_death,
        )

    async def _supervise(self, worker: WorkerProcess) -> None:
        while True:
            wedged = await self._outlive(worker)
            await self._bury(worker, wedged, 0.0 if wedged else CLOSING_SECONDS)
            worker = await self._restart(self._clock.now() - self._ready_at)

    async def _outlive(self, worker: WorkerProcess) -> str:
        """Wait until the worker's socket closes; or until it is wedged, and say so."""
        wedge_after = self._patience.wedge_after
        watch = asyncio.create_task(until_wedged(worker.connection, wedge_after))
        try:
            await asyncio.wait({worker.reading, watch}, return_when=asyncio.FIRST_COMPLETED)
            return watch.result() if watch.done() else ""
        finally:
            watch.cancel()

    async def _bury(self, worker: WorkerProcess, why: str, grace: float) -> None:
        self._state = State.DOWN
        self.backend.detach(why or "it has just died")
        ending = await worker.end(grace)
        self._last_death = f"{ending} ({why})" if why else ending
        self._worker = None
        self.backend.detach(self._last_death)
        worker.connection.lose(self._last_death)
        _log("worker_ended", self._spec.name, how=self._last_death)

    async def _restart(self, uptime: float) -> WorkerProcess:
        """Start the worker again, as often as it takes."""
        while True:
            self._failures, delay = self._backoff.next(self._failures, uptime)
            _log("worker_restart", self._spec.name, failures=self._failures, delay=delay)
            await self._sleep(delay)
            self.restarts += 1
            try:
                worker, _ = await self._start_worker()
            except SalverError as error:
                self._last_death, uptime = str(error), 0.0
                self.backend.detach(self._last_death)
                _log("worker_failed", self._spec.name, why=self._last_death)
            else:
                return worker

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        self._state = State.STARTING
        worker = self._worker = await WorkerProcess.start(self._spec)
        _log("worker_started", self._spec.name, pid=worker.pid)
        try:
            ready = await self._until_ready(worker)
        except BaseException:  # cancellation too: no process is left behind
            await worker.end(grace=0.0)
            self._worker, self._state = None, State.DOWN
            raise
        self._state, self._ready_at = State.READY, self._clock.now()
        self.backend.attach(worker.connection)
        _log_ready(self._spec, ready)
        return worker, ready

    async def _until_ready(self, worker: WorkerProcess) -> Ready:
        ready, reading = worker.connection.ready, worker.reading
        first: set[asyncio.Future[Ready] | asyncio.Future[None]] = {ready, reading}
        seconds = self._patience.to_start
        await asyncio.wait(first, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            return ready.result()
        late = not reading.done()
        problem = await worker.end(0.0 if late else CLOSING_SECONDS)
        if late:
            problem = f"worker {self._spec.name!r} was not ready within {seconds:g} s"
        raise self._cannot_start(worker, problem)

    def _cannot_start(self, worker: WorkerProcess, problem: str) -> SalverError:
        fatal = worker.connection.fatal
        if fatal and fatal.kind in KINDS:
            return revive(fatal)
        return BackendUnavailable(
            f"{problem}; the end of its output:\n{worker.output}",
            rule="worker.start",
            fix="mend what the output names, or allow more time to start",
        )

    def __repr__(self) -> str:
        pid = f" pid {self._worker.pid}" if self._worker else ""
        return f"<Supervisor {self._spec.name} {self._state}{pid}, {self.restarts} restarts>"


def _log_ready(spec: WorkerSpec, ready: Ready) -> None:
    resident, envelope = ready.resident_bytes, spec.memory_bytes
    seconds = round(ready.load_seconds, 3)
    _log("worker_ready", spec.name, pid=ready.pid, load_seconds=seconds, **_speeds(ready))
    if resident > envelope:
        _log("worker_over_envelope", spec.name, resident=resident, envelope=envelope)


def _speeds(ready: Ready) -> dict[str, int]:
    """What the measured latency model promises, in tokens/s: people know these numbers."""
    latency = ready.model.latency
    if latency is None:
        return {}
    shapes = {
        "decode_1": StepShape(tokens=1, attended=128, logit_rows=1),
        "decode_32": StepShape(tokens=32, attended=32 * 128, logit_rows=32),
        "prefill_256": StepShape(tokens=256, attended=256 * 257 // 2, logit_rows=1),
    }
    return {name: round(shape.tokens / latency.predict(shape)) for name, shape in shapes.items()}


def _log(event: str, name: str, **facts: object) -> None:
    said = " ".join(f"{key}={value!r}" for key, value in facts.items())
    log.info("event=%s name=%s %s", event, name, said)


def _report_a_bug(supervising: "asyncio.Task[None]") -> None:
    if not supervising.cancelled() and (error := supervising.exception()):
        log.critical("event=supervisor_failed", exc_info=error)
