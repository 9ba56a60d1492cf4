"""A deployment brought to life: worker, probe and gateway, wired up and taken down again."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from salver.cli.fit import Artifact, runner_kind
from salver.cli.last_start import LastStart
from salver.cli.machine import this_machine
from salver.cli.sharing import first_token_within, shares_of
from salver.cli.upstreams import serving_pool, takes_messages, with_fallbacks
from salver.clock import MonotonicClock
from salver.contract import Backend, Deployment, Engine, Overload
from salver.gateway import Limits, Served, StoreThreads, Tenancy, create_app
from salver.gateway import serve as serve_http
from salver.gateway.service import Mode
from salver.models import Model
from salver.state import DecisionLog
from salver.telemetry import Observer, Observers
from salver.worker import Patience, ReadinessProbe, Supervisor, WorkerSpec

PROBE_TEXT = "Hello"
CALLS_BESIDES = 512  # whose body or answer is on its way, or whose prompt is being tokenized


class Service:
    """One deployment on this machine.

    Args:
        deployment: passed every check.
        artifact: its model, as those checks verified and opened it.
        mode: `development` marks a contract that was assumed.
        store: the root of the store that has its artifact.
        state: the URL of the state store, which is opened only if there are tenants.
        decisions: the file of the log of decisions.
        isa: a slower path of the native core, where one is forced.
    """

    def __init__(
        self,
        deployment: Deployment,
        artifact: Artifact,
        mode: Mode,
        store: Path,
        state: str,
        decisions: Path,
        isa: str | None = None,
    ) -> None:
        self._deployment = deployment
        self._artifact = artifact
        self._mode: Mode = mode
        self._store = store
        self._state = state
        self._decisions = decisions
        self._isa = isa
        self._clock = MonotonicClock()

    async def run(
        self, listener: socket.socket, on_ready: Callable[[], Coroutine[None, None, None]]
    ) -> signal.Signals | None:
        """Serve on `listener` until told to stop; returns the signal that did it.

        `on_ready` is run once beside the serving, after the worker's first probe.

        Raises:
            SalverError: the worker could not start; the listener is closed.
        """
        with listener, self._tenancy() as tenancy, closing(self._decision_log()) as decisions:
            observers = Observers(decisions.observe)
            async with (
                self._computing(observers) as computing,
                with_fallbacks(
                    computing.backend, self._deployment, self._clock, observers
                ) as backend,
                self._probe(computing) as probe,
            ):
                app = create_app(
                    self._served(),
                    limits_of(self._deployment),
                    backend=backend,
                    tokenizer=computing.model.tokenizer,
                    chat_template=computing.model.chat_template,
                    ready=lambda: probe.ready(self._clock.now()),
                    tenancy=tenancy,
                    decisions=decisions,
                    observers=observers,
                    clock=self._clock,
                    worker_restarts=computing.restarts,
                    keeps_messages=takes_messages(self._deployment),
                )
                async with _beside(on_ready()):
                    return await serve_http(app, listener)

    @contextmanager
    def _tenancy(self) -> Iterator[Tenancy | None]:
        """The declared tenants with the store of their keys and their use; None without any."""
        deployment = self._deployment
        if not deployment.tenants:
            yield None
            return
        from salver.state import Database

        away = deployment.admission.state_away
        with (
            closing(Database(self._state)) as database,
            closing(StoreThreads(database.threads)) as threads,
        ):
            yield Tenancy(deployment.name, deployment.tenants, away, database, threads)

    def _decision_log(self) -> DecisionLog:
        deployment = self._deployment
        return DecisionLog(
            self._decisions, deployment=deployment.name, release=deployment.release.id
        )

    @asynccontextmanager
    async def _computing(self, observe: Observer) -> AsyncIterator["_Computing"]:
        """What the release is computed by: a worker of this machine, or other servers."""
        if self._deployment.release.runtime.engine is not Engine.UPSTREAM:
            async with self._worker() as computing:
                yield computing
            return
        model = await asyncio.to_thread(self._artifact.model)
        async with serving_pool(self._deployment, self._clock, observe) as pool:
            yield _Computing(pool, model, lambda: 0)

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator["_Computing"]:
        """A ready worker, and what this process needs of its model, made while the worker starts."""
        patience = Patience(wedge_after=self._deployment.probes.wedge_after)
        supervisor = Supervisor(self._worker_spec(), patience=patience, clock=self._clock)
        opening = asyncio.create_task(asyncio.to_thread(self._artifact.model))
        try:
            ready = await supervisor.start()
            if ready.model.latency is not None:
                self._last_start().keep(ready.model.latency)
            yield _Computing(supervisor.backend, await opening, lambda: supervisor.restarts)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await supervisor.stop()

    def _last_start(self) -> LastStart:
        return LastStart(self._store, self._deployment.release, this_machine(), self._isa)

    @asynccontextmanager
    async def _probe(self, computing: "_Computing") -> AsyncIterator[ReadinessProbe]:
        """The probe, after its first inference, and running on."""
        encode = computing.model.tokenizer.encode
        prompt = encode(PROBE_TEXT, add_special_tokens=True, parse_special=False)
        probe = ReadinessProbe(
            computing.backend, tuple(prompt), self._deployment.probes.interval, self._clock
        )
        await probe.probe()
        async with _beside(probe.run()):
            yield probe

    def _worker_spec(self) -> WorkerSpec:
        release, admission = self._deployment.release, self._deployment.admission
        envelope, slo = release.envelope, self._deployment.slo
        return WorkerSpec(
            name=self._deployment.name,
            store=str(self._store),
            digest=release.digest,
            memory_bytes=envelope.memory,
            threads=envelope.threads,
            max_context_tokens=envelope.max_context_tokens,
            max_running=envelope.max_running,
            max_batch_tokens=envelope.max_batch_tokens,
            max_queued_requests=admission.max_queued_requests,
            max_queued_tokens=admission.max_queued_tokens,
            ttft_seconds=first_token_within(self._deployment),
            tpot_seconds=slo.tpot_p95 if slo else None,
            shares=shares_of(self._deployment),
            sheds=admission.overload is Overload.SHED_LOWEST_CLASS,
            runner=runner_kind(release.runtime),
            isa=self._isa,
        )

    def _served(self) -> Served:
        deployment = self._deployment
        return Served(
            model=deployment.name,
            deployment=deployment.name,
            release=deployment.release.id,
            owner=deployment.owner,
            mode=self._mode,
        )


def limits_of(deployment: Deployment) -> Limits:
    """What the gateway admits under a contract.

    As many calls at once as the release and its fallbacks run and keep waiting, and some besides. So
    whoever is refused for the load is refused where class, tenant and deadline are looked at.
    """
    envelope, admission = deployment.release.envelope, deployment.admission
    queues = 1 + sum(step.backend is not None for step in deployment.fallback)
    running = envelope.max_running * (1 + len(deployment.backends))
    return Limits(
        max_context_tokens=envelope.max_context_tokens,
        max_output_tokens=envelope.max_output_tokens,
        default_timeout_seconds=admission.default_timeout,
        max_in_flight=running + queues * admission.max_queued_requests + CALLS_BESIDES,
    )


@dataclass(frozen=True, slots=True)
class _Computing:
    """What computes the release, this process's side of the model, and how often it was restarted."""

    backend: Backend
    model: Model
    restarts: Callable[[], int]


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` beside the body, and end it with the body. Its errors come out at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
