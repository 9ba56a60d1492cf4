"""A run: the schedule's arrivals sent at their instants, whatever the server does.

Everything is prepared before the clock starts (the schedule drawn, every request written out, the
garbage collector told to leave it alone), so that during the run an arrival costs one write and a
token one short callback. The client also watches itself: a heartbeat that comes late was a client
that could neither send nor see, and the run is judged by it (`salver.bench.validity`).
"""

import asyncio
import gc
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from salver.bench.call import Call, Prepared
from salver.bench.connection import Pool
from salver.bench.record import Record
from salver.bench.target import Target
from salver.workload import Arrival, Workload

HEARTBEAT_SECONDS = 0.02
LEAD_SECONDS = 0.2  # from the end of preparation to the schedule's zero


@dataclass(slots=True)
class Progress:
    """How a run stands, for whoever watches it. `records` are of arrivals that have ended."""

    now: float = 0.0  # seconds from the schedule's start
    sent: int = 0
    records: list[Record] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)  # how late each heartbeat came, in seconds

    @property
    def in_flight(self) -> int:
        return self.sent - len(self.records)


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left: every record in order of its instant, how late each of the client's heartbeats came, what
    the client spent, and when the last arrival ended."""

    records: list[Record]
    beats: list[float]
    cpu_seconds: float
    seconds: float


def prepare(arrivals: Sequence[Arrival], target: Target, *, exact: bool) -> list[Prepared]:
    """Write out every request. `exact` asks for all tokens, whatever the model would say."""
    return [
        Prepared(arrival, target.request(arrival, ignore_eos=exact), exact) for arrival in arrivals
    ]


async def open_loop(prepared: Sequence[Prepared], target: Target, watch: Watch) -> Run:
    """Send every arrival at its instant, and wait until all have ended."""
    async with _session(target, watch) as session:
        for one in prepared:
            if (early := one.arrival.at - session.now()) > 0:
                await asyncio.sleep(early)
            session.spawn(one)
    return session.run()


async def closed_loop(workload: Workload, target: Target, watch: Watch, seed: int | None) -> Run:
    """Let every user ask, wait, and ask again until the mix's duration is over."""

    async def use(session: _Session, asked: Iterator[Arrival]) -> None:
        for arrival in asked:
            await asyncio.sleep(arrival.at)
            now = session.now()
            if now >= workload.mix.duration:
                return
            exact = workload.mix.ignore_eos
            await session.spawn(*prepare([replace(arrival, at=now)], target, exact=exact))

    async with _session(target, watch) as session:
        await asyncio.sleep(LEAD_SECONDS)
        await asyncio.gather(*(use(session, asked) for asked in workload.users(seed=seed)))
    return session.run()


@asynccontextmanager
async def _session(target: Target, watch: Watch) -> "AsyncIterator[_Session]":
    pool = Pool(target.address(), time.monotonic)
    _allow_many_sockets()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        async with asyncio.TaskGroup() as calls:  # its end waits for every call to end
            session = _Session(pool, watch, calls)
            yield session
        session.stop()
    finally:
        pool.close()
        gc.enable()
        gc.unfreeze()


class _Session:
    """The state of one run: its calls in flight and its heartbeat."""

    def __init__(self, pool: Pool, watch: Watch, calls: asyncio.TaskGroup) -> None:
        self._pool = pool
        self._group = calls
        self._watch = watch
        self._start = pool.now() + LEAD_SECONDS
        self._cpu = time.process_time()
        self._progress = Progress()
        self._beating = asyncio.get_running_loop().call_later(HEARTBEAT_SECONDS, self._beat)
        self._beat_due = pool.now() + HEARTBEAT_SECONDS

    def now(self) -> float:
        """Seconds from the schedule's start."""
        return self._pool.now() - self._start

    def spawn(self, prepared: Prepared) -> "asyncio.Task[None]":
        """Send one arrival now."""
        self._progress.sent += 1
        call = Call(prepared, self._start, self._pool.now())
        return self._group.create_task(self._finish(call))

    def stop(self) -> None:
        """End the heartbeat."""
        self._beating.cancel()

    def run(self) -> Run:
        progress = self._progress
        records = sorted(progress.records, key=lambda record: (record.at, record.number))
        spent = time.process_time() - self._cpu
        return Run(records, progress.beats, spent, max((r.ended for r in records), default=0.0))

    async def _finish(self, call: Call) -> None:
        self._progress.records.append(await call.perform(self._pool))

    def _beat(self) -> None:
        now = self._pool.now()
        self._progress.beats.append(now - self._beat_due)
        self._progress.now = now - self._start
        self._watch(self._progress)
        self._beat_due = self._pool.now() + HEARTBEAT_SECONDS
        self._beating = asyncio.get_running_loop().call_later(HEARTBEAT_SECONDS, self._beat)


def _allow_many_sockets() -> None:
    """Take as many open files as the system allows; a call is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
