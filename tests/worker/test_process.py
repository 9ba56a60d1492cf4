"""Requests through a real process boundary, and what happens when the process misbehaves."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import aclosing

import psutil
import pytest

from salver.contract import (
    Backend,
    FinishReason,
    GenerateRequest,
    LoadSnapshot,
    SamplingParams,
    TokenChunk,
)
from salver.errors import (
    BackendLost,
    BackendUnavailable,
    IntegrityError,
    InvalidValue,
    Refused,
    TooLarge,
)
from salver.testing import FakeRunner
from salver.worker import Backoff, Patience, State, Supervisor

WEDGE, FAIL, DIE = 90, 91, 92  # see moody_engines

MakeSupervisor = Callable[..., Supervisor]
Children = Callable[[], set[psutil.Process]]


@pytest.fixture
def children() -> Children:
    """This process's children, zombies included, that were not there before the test."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


def request(
    name: str = "r", prompt: tuple[int, ...] = (1, 2, 3), n: int = 1, max_tokens: int = 8
) -> GenerateRequest:
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    return GenerateRequest(name, prompt, sampling, n=n)


async def collect(backend: Backend, asked: GenerateRequest) -> list[TokenChunk]:
    return [chunk async for chunk in backend.generate(asked)]


def tokens_of(chunks: list[TokenChunk], choice: int = 0) -> list[int]:
    return [token for chunk in chunks if chunk.choice == choice for token in chunk.token_ids]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own timeout is the bound."""
    while not condition():
        await asyncio.sleep(0.005)


# -- answers -------------------------------------------------------------------------------------


async def test_an_answer_comes_back_as_the_engine_gave_it(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick")
    ready = await supervisor.start()
    chunks = await collect(supervisor.backend, request())

    expected = FakeRunner(vocab_size=80).alone((1, 2, 3), request().sampling)
    assert tokens_of(chunks) == expected
    assert "".join(chunk.text for chunk in chunks) == "".join(chr(97 + t % 26) for t in expected)
    assert chunks[-1].finish is not None
    assert chunks[-1].finish.reason is FinishReason.LENGTH
    assert (ready.block_size, ready.num_blocks) == (4, 256)
    assert ready.pid == supervisor.statistics().pid != os.getpid()


async def test_every_choice_ends(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick")
    await supervisor.start()
    chunks = await collect(supervisor.backend, request(n=3))
    assert sorted(chunk.choice for chunk in chunks if chunk.finish) == [0, 1, 2]
    assert all(len(tokens_of(chunks, choice)) == 8 for choice in range(3))


async def test_requests_are_batched_into_one_step(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("slow")
    await supervisor.start()
    backend = supervisor.backend
    await asyncio.gather(*(collect(backend, request(f"r{i}")) for i in range(8)))
    assert backend.load().steps < 3 * 8
    assert backend.load().requests_running == 0


# -- refusals ------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_with_its_decision(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("slow")
    await supervisor.start()
    first, second = request("first", n=50), request("second", n=50)
    answers = await asyncio.gather(
        collect(supervisor.backend, first),
        collect(supervisor.backend, second),
        return_exceptions=True,
    )
    (refused,) = [answer for answer in answers if isinstance(answer, BaseException)]
    assert isinstance(refused, Refused)
    assert refused.decision.rule == "admission.max_queued_requests"
    assert len(await collect(supervisor.backend, request())) == 8


async def test_what_can_never_fit_is_too_large(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick")
    await supervisor.start()
    with pytest.raises(TooLarge) as caught:
        await collect(supervisor.backend, request(max_tokens=5000))
    assert (caught.value.value, caught.value.limit) == (5003, 1000)
    with pytest.raises(TooLarge) as caught:
        await collect(supervisor.backend, request(n=65))
    assert (caught.value.rule, caught.value.limit) == ("admission.max_queued_requests", 64)


async def test_an_id_in_flight_is_not_taken_twice(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("slow")
    await supervisor.start()
    async with aclosing(supervisor.backend.generate(request(max_tokens=500))) as chunks:
        await anext(chunks)
        with pytest.raises(InvalidValue, match="in flight"):
            await collect(supervisor.backend, request())


async def test_what_no_frame_can_carry_is_refused(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick")
    await supervisor.start()
    with pytest.raises(InvalidValue, match="cannot be encoded"):
        await collect(supervisor.backend, request("\ud800"))


# -- cancellation --------------------------------------------------------------------------------


async def test_closing_the_generator_frees_its_blocks_within_a_step(
    make_supervisor: MakeSupervisor,
) -> None:
    supervisor = make_supervisor("slow")
    await supervisor.start()
    backend = supervisor.backend
    bystander = asyncio.create_task(collect(backend, request("bystander", max_tokens=200)))
    leaver = backend.generate(request("leaver", n=2, max_tokens=400))
    await anext(leaver)
    await until(lambda: backend.load().requests_running == 3)
    seen: list[LoadSnapshot] = [backend.load()]
    await leaver.aclose()
    while seen[-1].requests_running == 3:
        await asyncio.sleep(0.001)
        seen.append(backend.load())

    left = seen[-1]
    assert left.requests_running == 1
    assert left.kv_blocks_owned < seen[0].kv_blocks_owned
    assert left.steps - seen[0].steps <= 4  # one for the step under way, the rest for the way there
    assert len(await bystander) == 200


async def test_a_cancelled_id_is_free_again_once_the_worker_has_let_go(
    make_supervisor: MakeSupervisor,
) -> None:
    supervisor = make_supervisor("slow")
    await supervisor.start()
    async with aclosing(supervisor.backend.generate(request(max_tokens=500))) as chunks:
        await anext(chunks)
    await until(lambda: supervisor.statistics().in_flight == 0)
    expected = FakeRunner(vocab_size=80).alone((5,), request().sampling)
    assert tokens_of(await collect(supervisor.backend, request(prompt=(5,)))) == expected


# -- death ---------------------------------------------------------------------------------------


async def test_a_killed_worker_fails_its_streams_and_is_restarted(
    make_supervisor: MakeSupervisor,
) -> None:
    supervisor = make_supervisor("slow")
    ready = await supervisor.start()
    backend = supervisor.backend
    streams = [
        asyncio.create_task(collect(backend, request(f"r{i}", max_tokens=500))) for i in range(16)
    ]
    await until(lambda: backend.load().requests_running == 16)
    steps = backend.load().steps
    os.kill(ready.pid, signal.SIGKILL)

    endings = await asyncio.gather(*streams, return_exceptions=True)
    assert all(isinstance(ending, BackendLost) for ending in endings)
    assert f"(pid {ready.pid}) was killed by SIGKILL" in str(endings[0])
    with pytest.raises(BackendUnavailable, match="SIGKILL"):
        await collect(backend, request())
    await until(lambda: backend.ready)
    assert len(await collect(backend, request())) == 8
    assert backend.load().steps >= steps + 8  # counters do not fall over a restart
    assert supervisor.restarts == 1


@pytest.mark.parametrize(
    ("mood", "told"),
    [(FAIL, "ZeroDivisionError: the runner divided by zero"), (DIE, "exited with status 3")],
    ids=["exception", "exit"],
)
async def test_a_stream_is_told_how_its_worker_ended(
    make_supervisor: MakeSupervisor, mood: int, told: str
) -> None:
    supervisor = make_supervisor("quick")
    await supervisor.start()
    with pytest.raises(BackendLost, match=told):
        await collect(supervisor.backend, request(prompt=(1, mood)))
    await until(lambda: supervisor.backend.ready)


async def test_a_wedged_worker_is_killed_and_restarted(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick", patience=Patience(wedge_after=0.2))
    ready = await supervisor.start()
    with pytest.raises(BackendLost, match="wedged: 1 requests in flight"):
        await collect(supervisor.backend, request(prompt=(1, WEDGE)))
    assert not psutil.pid_exists(ready.pid)
    await until(lambda: supervisor.backend.ready)
    assert len(await collect(supervisor.backend, request())) == 8


async def test_an_idle_worker_is_not_wedged(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick", patience=Patience(wedge_after=0.02))
    await supervisor.start()
    await asyncio.sleep(0.2)
    assert supervisor.restarts == 0
    assert supervisor.backend.ready


async def test_a_worker_that_cannot_come_back_is_retried_ever_more_slowly(
    make_supervisor: MakeSupervisor,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            await asyncio.Event().wait()

    supervisor = make_supervisor(
        "opens_once", backoff=Backoff(initial=1.0, longest=4.0), sleep=sleep
    )
    ready = await supervisor.start()
    os.kill(ready.pid, signal.SIGKILL)
    await until(lambda: len(waits) == 4)
    assert waits == [1.0, 2.0, 4.0, 4.0]
    assert supervisor.statistics().failures_in_a_row == 4
    assert supervisor.statistics().state is State.DOWN
    with pytest.raises(BackendUnavailable, match="cannot be opened twice"):
        await collect(supervisor.backend, request())


# -- start ---------------------------------------------------------------------------------------


async def test_an_integrity_error_keeps_its_class(make_supervisor: MakeSupervisor) -> None:
    with pytest.raises(IntegrityError, match="not what was declared") as caught:
        await make_supervisor("tampered").start()
    assert (caught.value.rule, caught.value.fix) == ("release.digest", "pull")


async def test_a_failed_start_shows_the_end_of_the_output(
    make_supervisor: MakeSupervisor, children: Children
) -> None:
    supervisor = make_supervisor("crashes")
    with pytest.raises(BackendUnavailable, match=r"status 3(.|\n)*about to fall over"):
        await supervisor.start()
    assert not children()


async def test_a_start_that_takes_too_long_is_given_up(
    make_supervisor: MakeSupervisor, children: Children
) -> None:
    supervisor = make_supervisor("falls_silent", patience=Patience(to_start=0.1))
    with pytest.raises(BackendUnavailable, match=r"not ready within 0\.1 s"):
        await supervisor.start()
    assert not children()


async def test_a_start_that_is_cancelled_leaves_no_process(
    make_supervisor: MakeSupervisor, children: Children
) -> None:
    starting = asyncio.create_task(make_supervisor("falls_silent").start())
    await until(lambda: bool(children()))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not children()


async def test_a_backend_that_was_never_started_says_so(make_supervisor: MakeSupervisor) -> None:
    backend = make_supervisor("quick").backend
    assert not backend.ready
    with pytest.raises(BackendUnavailable, match="has not been started"):
        await collect(backend, request())
    with pytest.raises(BackendUnavailable, match="has not been started"):
        backend.check_ready("req-1")


# -- stop ----------------------------------------------------------------------------------------


async def test_stopping_leaves_nothing_behind(
    make_supervisor: MakeSupervisor, children: Children
) -> None:
    supervisor = make_supervisor("slow")
    await supervisor.start()
    stream = asyncio.create_task(collect(supervisor.backend, request(max_tokens=900)))
    await until(lambda: supervisor.backend.load().requests_running == 1)
    await supervisor.stop()
    with pytest.raises(BackendLost, match=r"status 0 \(it was stopped\)"):
        await stream
    assert not children()  # not even a zombie
    assert supervisor.statistics().state is State.STOPPED
    with pytest.raises(BackendUnavailable, match="stopped"):
        await collect(supervisor.backend, request())


async def test_a_wedged_worker_is_stopped_too(
    make_supervisor: MakeSupervisor, children: Children
) -> None:
    supervisor = make_supervisor("quick", patience=Patience(to_stop=0.1))
    await supervisor.start()
    stream = asyncio.create_task(collect(supervisor.backend, request(prompt=(1, WEDGE))))
    await until(lambda: supervisor.statistics().in_flight == 1)
    await supervisor.stop()
    with pytest.raises(BackendLost, match="SIGKILL"):
        await stream
    assert not children()


async def test_stopping_during_a_restart_leaves_nothing_behind(
    make_supervisor: MakeSupervisor, children: Children
) -> None:
    supervisor = make_supervisor("quick", backoff=Backoff(initial=0.0))
    ready = await supervisor.start()
    os.kill(ready.pid, signal.SIGKILL)
    await until(lambda: supervisor.statistics().state is State.STARTING)
    await supervisor.stop()
    assert not children()


async def test_sigterm_ends_a_worker_cleanly(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor("quick")
    ready = await supervisor.start()
    os.kill(ready.pid, signal.SIGTERM)
    await until(lambda: supervisor.restarts == 1)
    assert "exited with status 0" in supervisor.statistics().last_death
