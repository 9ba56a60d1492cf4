"""Who is sent next, who gives way and who is let go, on real sockets. One request at a time has room."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from salver.clock import MonotonicClock
from salver.contract import Action, Decision, GenerateRequest, TokenChunk, TrafficClass
from salver.errors import Refused
from salver.flow import FirstTokenBound, QueueBound, Share
from salver.flow.waiting import FairQueue
from salver.upstream import PoolRule, UpstreamPool, WaitingRule
from salver.upstream.waiting import Waiter

if TYPE_CHECKING:
    from tests.upstream.conftest import Begin, Behind, Pool

Asked = Callable[..., GenerateRequest]
Read = Callable[..., Coroutine[None, None, list[TokenChunk]]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
CLOCK = MonotonicClock()
WAITING = WaitingRule(QueueBound(64, 10_000))


class Counter:
    """A busy pool, and what became of those that came to it one after the other."""

    def __init__(self, behind: "Behind", pool: UpstreamPool, read: Read, until: Until) -> None:
        self.pool = pool
        self._behind = behind
        self._read = read
        self.until = until
        self.asked: list[asyncio.Task[list[TokenChunk]]] = []

    async def ask(self, *requests: GenerateRequest) -> None:
        """Each waits, is sent or has ended before the next one comes."""
        for request in requests:
            task = asyncio.create_task(self._read(self.pool, request))
            self.asked.append(task)
            await self.until(lambda: task.done() or self._has(len(self.asked)))  # noqa: B023

    def _has(self, number: int) -> bool:
        load = self.pool.load()
        ended = sum(task.done() for task in self.asked)
        return load.requests_waiting + load.requests_running + ended >= number

    def let_answer(self, number: int) -> None:
        """The server answers so many more."""
        assert self._behind.backend.gate is not None
        for _ in range(number):
            self._behind.backend.gate.release()

    async def sent(self) -> list[str]:
        """Let the server answer all; the prompts in the order in which it had them."""
        self.let_answer(len(self.asked))
        await asyncio.gather(*self.asked, return_exceptions=True)
        return [bytes(each.prompt_token_ids).decode() for each in self._behind.backend.requests]

    def refusals(self) -> list[Decision]:
        """Of those that have ended, in the order in which they came."""
        errors = [task.exception() for task in self.asked if task.done()]
        return [error.decision for error in errors if isinstance(error, Refused)]


@pytest.fixture
def counter(
    begin: "Begin", pool: "Pool", read: Read, until: Until
) -> Callable[..., Awaitable[Counter]]:
    async def make(waiting: WaitingRule, token_gap: float | None = None) -> Counter:
        behind = await begin("Hello", bound=102)
        behind.backend.gate = asyncio.Semaphore(0)
        queue: FairQueue[Waiter] = FairQueue({"heavy": Share(3.0)})
        upstreams, _ = await pool(PoolRule(waiting, token_gap=token_gap), behind, queue=queue)
        return Counter(behind, upstreams, read, until)

    return make


Make = Callable[..., Awaitable[Counter]]


async def test_a_flood_does_not_keep_another_tenant_waiting(counter: Make, asked: Asked) -> None:
    one = await counter(WAITING)
    await one.ask(*(asked(f"x{i}", tenant="x") for i in range(5)), asked("y0", tenant="y"))
    assert await one.sent() == ["x0", "y0", "x1", "x2", "x3", "x4"]


async def test_turns_follow_the_weights(counter: Make, asked: Asked) -> None:
    """Each answer is 5 tokens, charged twice, after a prompt of 2: `heavy` pays a third of that."""
    one = await counter(WAITING)
    await one.ask(
        asked("--", tenant="z"),
        *(asked(f"x{i}", tenant="x") for i in range(3)),
        *(asked(f"h{i}", tenant="heavy") for i in range(6)),
    )
    sent = "".join(prompt[0] for prompt in await one.sent())
    for turns in (4, 8):
        assert sent[1 : 1 + turns].count("h") == turns * 3 // 4


async def test_a_class_goes_before_lower_ones(counter: Make, asked: Asked) -> None:
    one = await counter(WAITING)
    await one.ask(
        asked("s0"),
        asked("b0", traffic_class=TrafficClass.BATCH),
        asked("s1"),
        asked("c0", traffic_class=TrafficClass.CRITICAL),
    )
    assert await one.sent() == ["s0", "c0", "s1", "b0"]


async def test_of_one_tenant_the_earliest_deadline_goes_first(counter: Make, asked: Asked) -> None:
    one = await counter(WAITING)
    within = [None, None, 90.0, 60.0, 75.0]
    await one.ask(*(asked(f"r{i}", within=seconds) for i, seconds in enumerate(within)))
    assert await one.sent() == ["r0", "r3", "r4", "r2", "r1"]


async def test_a_lower_class_gives_way_in_a_full_queue(counter: Make, asked: Asked) -> None:
    one = await counter(replace(WAITING, bound=QueueBound(1, 1000), sheds=True))
    await one.ask(
        asked("s0"),
        asked("b0", traffic_class=TrafficClass.BATCH),
        asked("b1", traffic_class=TrafficClass.BATCH),
        asked("s1"),
    )
    refused, shed = sorted(one.refusals(), key=lambda each: each.action)
    assert (refused.action, shed.action) == (Action.REFUSE, Action.SHED)
    assert refused.rule == shed.rule == "admission.max_queued_requests"
    assert "batch" in shed.reason
    assert shed.retry_after is not None
    assert await one.sent() == ["s0", "s1"]


async def test_one_that_is_just_leaving_gives_way_without_a_word(
    counter: Make, asked: Asked, read: Read
) -> None:
    """Its turn is cancelled at once, and it stays in the queue until its task runs."""
    one = await counter(replace(WAITING, bound=QueueBound(1, 1000), sheds=True))
    await one.ask(asked("s0"), asked("b0", traffic_class=TrafficClass.BATCH))
    one.asked[1].cancel()
    one.let_answer(2)
    chunks = await read(one.pool, asked("s1"))  # in this very turn of the loop
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert await one.sent() == ["s0", "s1"]
    assert one.asked[1].cancelled()


async def test_who_waits_for_the_whole_objective_is_let_go(counter: Make, asked: Asked) -> None:
    one = await counter(replace(WAITING, first_token=FirstTokenBound(0.05)))
    await one.ask(asked("r0"), asked("r1"))
    await one.until(lambda: len(one.refusals()) == 1)
    (decision,) = one.refusals()
    assert (decision.rule, decision.action) == ("slo.ttft_p95", Action.SHED)
    assert one.pool.load().requests_waiting == 0
    assert await one.sent() == ["r0"]


async def test_who_would_be_late_behind_what_was_sent_is_refused(
    counter: Make, asked: Asked
) -> None:
    """A token takes 0.1 s there. A prompt that is too long by itself is served if nobody is before
    it, and 50 tokens before it are too many."""
    one = await counter(replace(WAITING, first_token=FirstTokenBound(1.0)))
    replica = one.pool.replicas["back"]
    replica.server.address = replace(replica.server.address, max_tokens_in_flight=1000)
    for tokens in (50, 100):
        replica.pace.first_tokens.note(tokens, 0.1 * tokens, CLOCK.now())
    await one.ask(asked("long" * 12), asked("r1"))
    (decision,) = one.refusals()
    assert (decision.rule, decision.action) == ("slo.ttft_p95", Action.REFUSE)
    assert decision.value > 4.8
    assert await one.sent() == ["long" * 12]


async def test_an_idle_server_is_asked_however_long_the_gateway_took(
    counter: Make, asked: Asked
) -> None:
    one = await counter(replace(WAITING, first_token=FirstTokenBound(1.0)))
    replica = one.pool.replicas["back"]
    replica.server.address = replace(replica.server.address, max_tokens_in_flight=1000)
    late = [replace(asked(name), arrived=CLOCK.now() - 2.0) for name in ("r0", "r1")]
    await one.ask(*late)
    (decision,) = one.refusals()
    assert decision.id == "dec-r1"  # r0 is before it
    assert await one.sent() == ["r0"]


async def test_a_turn_that_comes_too_late_is_not_taken(counter: Make, asked: Asked) -> None:
    """The server answers as slowly as never before while the second one waits."""
    one = await counter(replace(WAITING, first_token=FirstTokenBound(5.0)))
    await one.ask(asked("r0"), asked("r1"))
    for _ in range(200):
        one.pool.replicas["back"].pace.first_tokens.note(2, 100.0, CLOCK.now())
    assert not one.refusals()
    await asyncio.sleep(0.51)  # its patience is a tenth of the objective then
    assert await one.sent() == ["r0"]
    (decision,) = one.refusals()
    assert decision.action is Action.SHED


async def test_a_turn_that_nobody_takes_goes_to_the_next_one(counter: Make, asked: Asked) -> None:
    """Its caller leaves in the instant in which it is given."""
    one = await counter(WAITING)
    await one.ask(asked("r0"), asked("r1"), asked("r2"))
    replica = one.pool.replicas["back"]
    replica.server.address = replace(replica.server.address, max_tokens_in_flight=210)
    one.pool._room.hand_out()
    one.asked[1].cancel()
    assert replica.requests_in_flight == 2
    assert await one.sent() == ["r0", "r2"]
    assert (replica.requests_in_flight, replica.tokens_in_flight, replica.pace.unanswered) == (
        0,
        0,
        0,
    )


async def test_so_many_are_sent_as_leave_each_its_pace(counter: Make, asked: Asked) -> None:
    """A request takes 10 ms a token for each that is in flight: two of them keep 25 ms."""
    one = await counter(WAITING, token_gap=0.025)
    replica = one.pool.replicas["back"]
    replica.server.address = replace(replica.server.address, max_tokens_in_flight=1000)
    for in_flight in (2, 4):
        replica.pace.token_gaps.note(in_flight, 0.01 * in_flight, CLOCK.now())
    replica.pace.token_gaps._missed = 0.0  # such a line is never wrong
    await one.ask(asked("r0"), asked("r1"), asked("r2"))
    assert one.pool.load().requests_running == 2
    assert one.pool.load().requests_waiting == 1
    assert await one.sent() == ["r0", "r1", "r2"]


async def test_a_prompt_that_the_server_has_costs_less(
    begin: "Begin", pool: "Pool", asked: Asked, read: Read
) -> None:
    behind = await begin("Hello")
    queue: FairQueue[Waiter] = FairQueue({})
    upstreams, _ = await pool(PoolRule(WAITING), behind, queue=queue)
    had = []
    for cached in (0, 128, 64):
        behind.backend.cached_tokens = cached
        await read(upstreams, asked("a" * 130))
        had.append(queue._services[1].had("default"))
    assert had == [140, 140 + 12, 140 + 12 + 76]  # the third hit was less than expected
