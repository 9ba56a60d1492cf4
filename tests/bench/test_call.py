"""Every way a call can end, as its record tells it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from salver.bench.call import Call
from salver.bench.record import Record
from salver.bench.run import open_loop, prepare
from salver.bench.target import Target
from salver.contract import TrafficClass
from salver.telemetry import Ending
from salver.workload import Arrival, Message

if TYPE_CHECKING:
    from tests.bench.conftest import Exchange, Stub

ARRIVAL = Arrival(0, 0.0, "flow", "a", TrafficClass.STANDARD, (1, 2), 2, 4, 5.0, session="s.0")


async def call(target: Target, arrival: Arrival = ARRIVAL, *, exact: bool = True) -> Record:
    run = await open_loop(prepare([arrival], target, exact=exact), target, lambda _: None)
    return run.records[0]


async def test_a_whole_answer(stub: "Stub", target: Target) -> None:
    record = await call(target)
    assert (record.ending, record.problem, record.status) == (Ending.COMPLETE, "", 200)
    assert (record.output_tokens, record.input_tokens, record.counted) == (4, 8, True)
    assert len(record.events) == 4
    assert 0 <= record.at <= record.sent < record.events[0] < record.events[-1] < record.ended
    latencies = record.latencies()
    assert latencies.ttft == record.events[0]
    assert latencies.tpot == pytest.approx((record.ended - record.events[0]) / 3)
    assert len(latencies.gaps) == 3


async def test_what_is_sent(stub: "Stub", target: Target) -> None:
    keyed = replace(target, keys={"a": "sk-a"}, class_header=True, extra={"top_k": 3})
    await call(keyed)
    path, headers, body = stub.requests[-1]
    assert path == "/v1/completions"
    assert headers["authorization"] == "Bearer sk-a"
    assert headers["x-salver-class"] == "standard"
    assert headers["request-timeout-ms"] == "5000"
    assert body == {
        "model": "stub",
        "prompt": [1, 2],
        "max_tokens": 4,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "top_k": 3,
    }


async def test_a_conversation_goes_to_the_chat_endpoint(stub: "Stub", target: Target) -> None:
    messages = (Message("system", "Be brief."), Message("user", "Hi"))
    await call(target, replace(ARRIVAL, prompt=messages), exact=False)
    path, _, body = stub.requests[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert "ignore_eos" not in body


async def test_connections_are_used_again(stub: "Stub", target: Target) -> None:
    arrivals = [replace(ARRIVAL, number=n, at=n * 0.1) for n in range(5)]
    run = await open_loop(prepare(arrivals, target, exact=True), target, lambda _: None)
    assert {record.ending for record in run.records} == {Ending.COMPLETE}
    assert stub.connections == 1


async def _refuse(exchange: "Exchange", status: int) -> None:
    exchange.head(status)
    exchange.chunk(b'{"error": "no"}')
    exchange.writer.write(b"0\r\n\r\n")


async def _short(exchange: "Exchange") -> None:
    exchange.head()
    exchange.token()
    exchange.end(1)


async def _empty(exchange: "Exchange") -> None:
    exchange.head()
    exchange.end(4)


def _uncounted(reason: str) -> Callable[["Exchange"], Awaitable[None]]:
    """One token of four, by a server that gives no usage."""

    async def answer(exchange: "Exchange") -> None:
        exchange.head()
        exchange.token()
        exchange.event({"choices": [{"text": "", "finish_reason": reason}]})
        exchange.event("[DONE]")
        exchange.writer.write(b"0\r\n\r\n")

    return answer


async def _no_done(exchange: "Exchange") -> None:
    exchange.head()
    exchange.token()
    exchange.writer.write(b"0\r\n\r\n")


async def _error_event(exchange: "Exchange") -> None:
    exchange.head()
    exchange.token()
    exchange.event({"error": {"message": "broke"}})
    exchange.writer.write(b"0\r\n\r\n")


async def _late_error(exchange: "Exchange") -> None:
    exchange.head()
    exchange.event({"error": {"message": "late", "code": 504}})
    exchange.writer.write(b"0\r\n\r\n")


async def _begun_and_late(exchange: "Exchange") -> None:
    exchange.head()
    exchange.token()
    exchange.event({"error": {"message": "late", "code": 504}})
    exchange.writer.write(b"0\r\n\r\n")


async def _hang_up(exchange: "Exchange") -> None:
    exchange.head()
    exchange.token()
    await exchange.writer.drain()
    exchange.writer.close()


async def _garbage(exchange: "Exchange") -> None:
    exchange.writer.write(b"nonsense\r\n\r\n")


async def _not_json(exchange: "Exchange") -> None:
    exchange.head()
    exchange.event("{nonsense")
    exchange.end(4)


def _status(status: int) -> Callable[["Exchange"], Awaitable[None]]:
    return lambda exchange: _refuse(exchange, status)


@pytest.mark.parametrize(
    ("answer", "ending", "problem"),
    [
        (_status(429), Ending.REFUSED, "no"),
        (_status(503), Ending.REFUSED, "no"),
        (_status(504), Ending.REFUSED, "no"),
        (_status(408), Ending.REFUSED, "no"),
        (_status(400), Ending.FAILED, "no"),
        (_status(500), Ending.FAILED, "no"),
        (_short, Ending.WRONG, "1 tokens instead of 4"),
        (_empty, Ending.WRONG, "without text"),
        (_uncounted("stop"), Ending.WRONG, "no count of tokens"),
        (_uncounted("length"), Ending.COMPLETE, ""),
        (_no_done, Ending.WRONG, "without its end"),
        (_error_event, Ending.FAILED, "broke"),
        (_late_error, Ending.REFUSED, "late"),
        (_begun_and_late, Ending.EXPIRED, "late"),
        (_hang_up, Ending.FAILED, "closed"),
        (_garbage, Ending.FAILED, "not HTTP"),
        (_not_json, Ending.FAILED, "not an event"),
    ],
)
async def test_an_answer_that_is_none(
    stub: "Stub", target: Target, answer: Any, ending: Ending, problem: str
) -> None:
    stub.answer = answer
    record = await call(target)
    assert record.ending is ending
    assert problem in record.problem


@pytest.mark.parametrize(("now", "ending"), [(0.1, Ending.REFUSED), (4.9, Ending.EXPIRED)])
async def test_a_deadline_that_is_said_to_have_passed_long_before_it_is_a_refusal(
    target: Target, now: float, ending: Ending
) -> None:
    """Of 5 s. Taken for a wait, a refusal at once would be the best TTFT of all."""
    (prepared,) = prepare([ARRIVAL], target, exact=True)
    call = Call(prepared, 0.0, 0.0)
    call.on_status(504, now)
    call.on_end(now)
    assert call.record.ending is ending


async def test_nobody_there() -> None:
    record = await call(Target("http://127.0.0.1:9", "none"))
    assert record.ending is Ending.FAILED
    assert "cannot connect" in record.problem


async def _silent(exchange: "Exchange") -> None:
    exchange.head()
    exchange.token()
    await exchange.writer.drain()
    await asyncio.sleep(30)


@pytest.mark.parametrize("abandon_after", [None, 0.1])
async def test_patience_ends_a_call_and_its_connection(
    stub: "Stub", target: Target, abandon_after: float | None
) -> None:
    stub.answer = _silent
    record = await call(target, replace(ARRIVAL, timeout=0.3, abandon_after=abandon_after))
    assert record.ending is (Ending.ABANDONED if abandon_after else Ending.EXPIRED)
    assert record.ended == pytest.approx(abandon_after or 0.3, abs=0.15)
    assert len(record.events) == 1
