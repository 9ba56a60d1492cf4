"""Several upstreams and their faults: what is promised holds through all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from salver.contract import Action, Cause, GenerateRequest, PromptForm, TokenChunk
from salver.errors import BackendLost, Refused, SalverError, UnsupportedField
from salver.flow import QueueBound
from salver.flow.circuit_breaker import BreakerRule
from salver.telemetry import BreakerChanged, Decided, Event, UpstreamAsked
from salver.testing import Fault, FaultKind, ManualClock
from salver.upstream import PoolRule, WaitingRule

if TYPE_CHECKING:
    from tests.upstream.conftest import Begin, Pool, Script

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

    async def test_deadlines_that_come_before_its_silence_is_long_add_up(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        behind = await begin("Hello")
        rule = replace(QUICK, silent_after=0.3, breaker=BreakerRule(3, first_wait=0.2))
        upstreams, events = await pool(rule, behind)
        replica = upstreams.replicas["back"]

        async def expire(within: float) -> None:
            with pytest.raises(Refused, match="deadline"):
                await read(upstreams, asked(within=within))

        behind.proxy.fault = Fault(FaultKind.HANG)
        await expire(0.1)
        assert not replica.breaker.failed, "one of them says nothing"
        for _ in range(9):
            if not actions(events):
                await expire(0.1)
        assert actions(events) == [Action.LEAVE_ALONE]
        await asyncio.sleep(replica.breaker.wait)
        await expire(0.02)
        assert (replica.breaker.reopenings, replica.breaker.trying) == (0, False)
        await expire(0.25)
        assert replica.breaker.reopenings == 1, "a trial has to show that it is back"
        behind.proxy.fault = Fault()
        await asyncio.sleep(replica.breaker.wait)
        assert text_of(await read(upstreams, asked(within=10.0))) == "Hello"
        assert actions(events)[-1] is Action.USE_AGAIN

    async def test_a_trial_has_to_show_that_the_server_is_back(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        """It spoke while it failed, and is silent now: no time has added up before the trial."""
        behind = await begin("Hello")
        upstreams, _ = await pool(replace(QUICK, breaker=BreakerRule(1, first_wait=0.1)), behind)
        breaker = upstreams.replicas["back"].breaker
        behind.proxy.fault = Fault(FaultKind.SERVER_ERROR)
        with pytest.raises(Refused, match="503"):
            await read(upstreams, asked())
        behind.proxy.fault = Fault(FaultKind.HANG)
        await asyncio.sleep(0.1)
        with pytest.raises(Refused, match="deadline"):
            await read(upstreams, asked(within=0.2))
        assert upstreams.replicas["back"].breaker.reopenings == breaker.reopenings + 1

    async def test_what_is_heard_of_it_is_no_silence(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        behind = await begin("Hello", " there")
        upstreams, _ = await pool(replace(QUICK, silent_after=0.15), behind)
        for _ in range(5):
            behind.backend.gate = asyncio.Semaphore(1)
            with pytest.raises(Refused, match="deadline"):
                await read(upstreams, asked(within=0.1))
        assert not upstreams.replicas["back"].breaker.failed

    async def test_whatever_happens_it_is_looked_after(
        self, begin: "Begin", pool: "Pool", until: Until, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        behind = await begin("Hello")
        monkeypatch.setattr("salver.upstream.pool.LOOK_SECONDS", 0.01)
        await pool(QUICK, behind)
        looks = 0

        async def look() -> None:
            nonlocal looks
            looks += 1
            raise RuntimeError("a bug")

        monkeypatch.setattr(behind.upstream, "look", look)
        await until(lambda: looks > 2)


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

    async def test_who_does_not_read_on_does_not_keep_the_room(
        self,
        begin: "Begin",
        pool: "Pool",
        asked: Asked,
        until: Until,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("salver.upstream.pool.LOOK_SECONDS", 0.02)
        behind = await begin("Hello", " there")
        upstreams, _ = await pool(replace(QUICK, silent_after=0.1), behind)
        replica = upstreams.replicas["back"]
        behind.backend.gate = asyncio.Semaphore(1)
        chunks = upstreams.generate(asked())
        assert (await anext(chunks)).text == "Hello"
        await until(lambda: not replica.tokens_in_flight)
        await until(lambda: bool(behind.backend.cancelled))
        with pytest.raises(BackendLost, match="not read"):
            await anext(chunks)
        assert (replica.tokens_in_flight, replica.requests_in_flight) == (0, 0)
        assert not replica.breaker.failed, "it is the caller's doing"

    async def test_a_known_prefix_is_sent_where_it_is(
        self, begin: "Begin", pool: "Pool", asked: Asked, read: Read
    ) -> None:
        first, second = await begin("one", name="first"), await begin("two", name="second")
        upstreams, _ = await pool(QUICK, first, second)
        for _ in range(3):
            await read(upstreams, asked("a" * 128))
        assert (len(first.backend.requests), len(second.backend.requests)) == (3, 0)


def with_logprobs(request: GenerateRequest) -> GenerateRequest:
    return replace(request, sampling=replace(request.sampling, logprobs=1))
