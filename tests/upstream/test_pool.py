"""Several upstreams and their faults: what is promised holds through all of them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from salver.clock import MonotonicClock
from salver.contract import Action, Backend, Cause, GenerateRequest, PromptForm, TokenChunk
from salver.errors import BackendLost, BackendUnavailable, Refused, SalverError, UnsupportedField
from salver.flow import QueueBound
from salver.flow.circuit_breaker import BreakerRule
from salver.telemetry import BreakerChanged, Decided, Event, FellBack, UpstreamAsked
from salver.testing import FakeBackend, Fault, FaultKind, ManualClock
from salver.upstream import FallbackChain, PoolRule, StaticAnswer, WaitingRule

if TYPE_CHECKING:
    from tests.upstream.conftest import Begin, Pool, Script

CLOCK = MonotonicClock()
QUICK = PoolRule(
    waiting=WaitingRule(QueueBound(64, 10_000)),
    breaker=BreakerRule(failures=3, first_wait=2.0),
    retries=0.1,
)
Asked = Callable[..., GenerateRequest]
Read = Callable[..., Coroutine[None, None, list[TokenChunk]]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
FAULTS = [
    Fault(),
    Fault(FaultKind.DELAY, seconds=0.05),
    Fault(FaultKind.SERVER_ERROR),
    *(
        Fault(kind, after_bytes=after)
        for kind in (FaultKind.DROP, FaultKind.RESET, FaultKind.HANG)
        for after in (0, 300, 600, 900, 1200)
    ),
]


def text_of(chunks: list[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def actions(events: list[Event]) -> list[Action]:
    return [event.decision.action for event in events if isinstance(event, Decided)]


class TestBreaker:
    async def test_it_opens_after_a_run_of_failures_and_closes_after_a_trial(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        behind, clock = await begin("Hello"), ManualClock()
        upstreams, events = await pool(QUICK, behind, clock=clock)
        behind.proxy.fault = Fault(FaultKind.SERVER_ERROR)
        for _ in range(QUICK.breaker.failures):
            with pytest.raises(Refused, match="503"):
                await read(upstreams, asked())
        assert actions(events) == [Action.LEAVE_ALONE]
        asked_before = len(behind.backend.requests)
        with pytest.raises(Refused, match="each has failed lately") as refused:
            await read(upstreams, asked())
        assert refused.value.decision.cause is Cause.SERVER
        assert len(behind.backend.requests) == asked_before, "an open breaker let a call out"
        behind.proxy.fault = Fault()
        clock.advance(QUICK.breaker.first_wait)
        assert upstreams.ready
        assert text_of(await read(upstreams, asked())) == "Hello"
        assert actions(events) == [Action.LEAVE_ALONE, Action.USE_AGAIN]
        changes = [event for event in events if isinstance(event, BreakerChanged)]
        assert changes == [
            BreakerChanged("back", opened=True),
            BreakerChanged("back", opened=False),
        ]

    async def test_a_refusal_of_the_request_is_no_failure(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        behind = await begin("Hello")
        upstreams, events = await pool(QUICK, behind)
        for _ in range(QUICK.breaker.failures + 1):
            with pytest.raises(SalverError, match="max_tokens"):
                await read(upstreams, asked(max_tokens=201))
        assert upstreams.ready
        assert not actions(events)

    async def test_what_never_went_out_says_nothing_of_the_server(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        """It ends no run of failures, is no trial, and needs neither room nor a server."""
        behind, clock = await begin("Hello"), ManualClock()
        upstreams, events = await pool(QUICK, behind, clock=clock)
        behind.proxy.fault = Fault(FaultKind.SERVER_ERROR)
        for _ in range(QUICK.breaker.failures):
            with pytest.raises(UnsupportedField):
                await read(upstreams, with_logprobs(asked()))
            with pytest.raises(Refused, match="503"):
                await read(upstreams, asked())
        assert actions(events) == [Action.LEAVE_ALONE]
        calls = len(events)
        for wait in (0.0, QUICK.breaker.first_wait):
            clock.advance(wait)
            with pytest.raises(UnsupportedField):
                await read(upstreams, with_logprobs(asked()))
        assert len(events) == calls
        assert not upstreams.replicas["back"].breaker.trying

    async def test_a_silent_server_fails_what_it_has(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        behind = await begin("Hello")
        upstreams, _ = await pool(replace(QUICK, silent_after=0.1), behind)
        behind.proxy.fault = Fault(FaultKind.HANG)
        with pytest.raises(Refused, match="hangs"):
            await read(upstreams, asked())
        assert upstreams.replicas["back"].breaker.failed == 1


class TestPromises:
    @pytest.mark.parametrize("fault", FAULTS, ids=str)
    async def test_no_request_outlives_its_deadline_and_no_answer_is_spliced(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read, until: Until, fault: Fault
    ) -> None:
        """One server is faulty, the other is not; their answers can be told apart."""
        texts = ("aa", "bbb", "cc"), ("11", "222", "33")
        faulty = await begin(*texts[0], name="faulty")
        sound = await begin(*texts[1], name="sound")
        upstreams, _ = await pool(replace(QUICK, retries=0.5), faulty, sound)
        faulty.proxy.fault = fault

        async def one() -> tuple[str, bool]:
            chunks: list[TokenChunk] = []
            try:
                async with asyncio.timeout(10):  # far over the deadline
                    await read(upstreams, asked(within=0.5), chunks)
            except SalverError:
                return text_of(chunks), False
            return text_of(chunks), True

        for text, whole in await asyncio.gather(*(one() for _ in range(8))):
            answers = ["".join(each) for each in texts]
            assert text in answers if whole else any(each.startswith(text) for each in answers)
        await until(lambda: not faulty.backend.active and not sound.backend.active)
        assert all(not each.tokens_in_flight for each in upstreams.replicas.values())

    async def test_retries_stay_within_their_budget(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        behind = await begin("Hello")
        rule = replace(QUICK, breaker=replace(QUICK.breaker, failures=1000))
        upstreams, events = await pool(rule, behind)
        for _ in range(20):
            await read(upstreams, asked())
        behind.proxy.fault = Fault(FaultKind.SERVER_ERROR)
        for _ in range(20):
            with pytest.raises(Refused):
                await read(upstreams, asked())
        assert upstreams.retries == 2
        calls = [event for event in events if isinstance(event, UpstreamAsked)]
        assert (len(calls), sum(call.again for call in calls)) == (42, 2)
        assert len(behind.backend.requests) == 42

    async def test_a_failed_request_is_tried_elsewhere(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        first, second = await begin("one", name="first"), await begin("two", name="second")
        upstreams, _ = await pool(replace(QUICK, retries=0.5), first, second)
        for _ in range(4):
            await read(upstreams, asked())
        first.proxy.fault = Fault(FaultKind.SERVER_ERROR)
        assert text_of(await read(upstreams, asked())) == "two"
        assert upstreams.retries == 1

    async def test_an_answer_at_the_second_try_earns_nothing(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        first, second = await begin("one", name="first"), await begin("two", name="second")
        upstreams, _ = await pool(replace(QUICK, retries=0.5), first, second)
        for _ in range(3):
            await read(upstreams, asked())
        first.proxy.fault = Fault(FaultKind.SERVER_ERROR)
        assert text_of(await read(upstreams, asked())) == "two"
        with pytest.raises(Refused, match="answered 503"):
            await read(upstreams, asked())

    async def test_an_answer_that_began_is_never_tried_again(
        self, begin: "Begin", pool: "Pool", asked: Asked
    ) -> None:
        first, second = await begin("one", "more", name="first"), await begin("two", name="second")
        upstreams, _ = await pool(replace(QUICK, retries=0.5), first, second)
        for _ in range(4):
            upstreams._budget.answered()
        first.backend.gate = asyncio.Semaphore(1)
        chunks = upstreams.generate(asked())
        assert (await anext(chunks)).text == "one"
        first.proxy.fault = Fault(FaultKind.RESET)
        first.backend.gate.release()
        with pytest.raises(BackendLost):
            await anext(chunks)
        assert not second.backend.requests

    async def test_so_is_one_whose_answer_breaks_before_its_first_text(
        self, begin: "Begin", script: "Script", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        first = await script(b'data: {"error":{"message":"out of memory"}}\n\n', name="first")
        second = await begin("two", name="second")
        upstreams, _ = await pool(replace(QUICK, retries=0.5), first, second)
        for _ in range(4):
            upstreams._budget.answered()
        assert text_of(await read(upstreams, asked())) == "two"
        assert (first.calls, upstreams.retries) == (1, 1)
        assert upstreams.replicas["first"].breaker.failed == 1

    async def test_a_server_that_cannot_be_asked_for_it_is_left_out(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        talks, takes = await begin("one", name="talks"), await begin("two", name="takes")
        talks.upstream.address = replace(talks.upstream.address, form=PromptForm.MESSAGES)
        upstreams, _ = await pool(QUICK, talks, takes)
        for _ in range(3):
            assert text_of(await read(upstreams, asked())) == "two"  # there is no conversation


class TestRoom:
    async def test_what_does_not_fit_waits_in_order(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read, until: Until
    ) -> None:
        behind = await begin("Hello", bound=102)
        upstreams, _ = await pool(QUICK, behind)
        behind.backend.gate = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(read(upstreams, asked())) for _ in range(4)]
        await until(lambda: len(behind.backend.active) == 1)
        assert upstreams.load().requests_waiting == 3
        for done in range(4):
            await until(lambda: len(behind.backend.requests) == done + 1)  # noqa: B023
            behind.backend.gate.release()
            assert text_of(await tasks[done]) == "Hello"
        assert max(each.requests_in_flight for each in upstreams.replicas.values()) == 0

    async def test_a_full_queue_refuses_and_a_deadline_ends_the_wait(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read, until: Until
    ) -> None:
        behind = await begin("Hello", bound=102)
        upstreams, _ = await pool(replace(QUICK, waiting=WaitingRule(QueueBound(1, 100))), behind)
        behind.backend.gate = asyncio.Semaphore(0)
        first = asyncio.create_task(read(upstreams, asked()))
        await until(lambda: bool(behind.backend.active))
        second = asyncio.create_task(read(upstreams, asked(within=0.2)))
        await until(lambda: upstreams.load().requests_waiting == 1)
        with pytest.raises(Refused, match="queue is full"):
            await read(upstreams, asked())
        with pytest.raises(Refused, match="deadline"):
            await second
        assert upstreams.load().requests_waiting == 0
        behind.backend.gate.release()
        assert text_of(await first) == "Hello"

    async def test_a_known_prefix_is_sent_where_it_is(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        first, second = await begin("one", name="first"), await begin("two", name="second")
        upstreams, _ = await pool(QUICK, first, second)
        for _ in range(3):
            await read(upstreams, asked("a" * 128))
        assert (len(first.backend.requests), len(second.backend.requests)) == (3, 0)


class TestFallback:
    @pytest.fixture
    def steps(self) -> list[FakeBackend]:
        return [FakeBackend("first", name="first"), FakeBackend("second", name="second")]

    async def test_the_next_one_answers_and_a_decision_says_so(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        events: list[Event] = []
        chain = FallbackChain([*steps, StaticAnswer("Busy.", CLOCK)], events.append)
        assert await answer(chain, asked()) == "first"
        assert not events
        steps[0].ready = False
        assert await answer(chain, asked()) == "second"
        assert actions(events) == [Action.FALL_BACK]
        assert FellBack("default", "second") in events
        steps[1].ready = False
        assert await answer(chain, asked()) == "Busy."
        assert actions(events) == [Action.FALL_BACK] * 3
        assert chain.ready

    async def test_without_a_static_text_it_fails_closed(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        chain = FallbackChain(steps, lambda _: None)
        for step in steps:
            step.ready = False
        assert not chain.ready
        with pytest.raises(SalverError, match="not ready"):
            await answer(chain, asked())

    async def test_an_answer_that_began_is_not_replaced(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        steps[0].pieces = ("one", "two")
        steps[0].dies_after = 1
        chain = FallbackChain(steps, lambda _: None)
        with pytest.raises(BackendLost):
            await answer(chain, asked())
        assert not steps[1].requests

    async def test_one_that_dies_before_it_began_is_replaced(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        """As a worker does with all that wait in its queue."""
        steps[0].dies_after = 0
        chain = FallbackChain(steps, lambda _: None)
        assert await answer(chain, asked()) == "second"

    async def test_what_the_release_finds_at_fault_no_fallback_is_asked(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        chain = FallbackChain([_Choosy(), *steps], lambda _: None)
        with pytest.raises(UnsupportedField):
            await answer(chain, asked())
        assert not steps[0].requests

    async def test_what_a_fallback_finds_at_fault_the_next_one_may_answer(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        """The outage is not the caller's: without anybody who can, its refusal is what is told."""
        steps[0].ready = False
        events: list[Event] = []
        static = StaticAnswer("Busy.", CLOCK)
        chain = FallbackChain([steps[0], _Choosy(), static], events.append)
        assert await answer(chain, asked()) == "Busy."
        told = [each.backend for each in events if isinstance(each, FellBack)]
        assert told == ["choosy", "static"]
        with pytest.raises(BackendUnavailable, match="not ready"):
            await answer(FallbackChain([steps[0], _Choosy()], lambda _: None), asked())

    async def test_not_even_by_a_backend_that_breaks_its_word(
        self, steps: list[FakeBackend], asked: Asked
    ) -> None:
        """One that says after its first chunk that it cannot take the request."""
        chain = FallbackChain([_Fickle(), steps[1]], lambda _: None)
        with pytest.raises(BackendUnavailable):
            await answer(chain, asked())
        assert not steps[1].requests


class _Choosy(FakeBackend):
    """It has no log-probabilities, whatever it is asked for."""

    def __init__(self) -> None:
        super().__init__(name="choosy")

    def _admit(self, request: GenerateRequest) -> None:
        raise UnsupportedField("no log-probabilities", rule="upstream.logprobs")


class _Fickle(FakeBackend):
    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        yield TokenChunk(request.id, 0, text="one")
        raise BackendUnavailable("gone")


def with_logprobs(request: GenerateRequest) -> GenerateRequest:
    return replace(request, sampling=replace(request.sampling, logprobs=1))


async def answer(backend: Backend, request: GenerateRequest) -> str:
    return text_of([chunk async for chunk in backend.generate(request)])
