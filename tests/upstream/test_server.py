"""One upstream, through a proxy that breaks things: each fault has its error, and none takes long."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from salver.clock import MonotonicClock
from salver.contract import (
    Cause,
    FinishReason,
    GenerateRequest,
    Outcome,
    SamplingParams,
    TokenChunk,
)
from salver.errors import BackendLost, BackendUnavailable, Refused, RequestError, UnsupportedField
from salver.testing import Fault, FaultKind
from salver.upstream import Address, UpstreamServer
from salver.upstream.asking import body_of
from salver.upstream.ending import OutOfTime
from salver.upstream.server import Why, _Call
from salver.upstream.silence import Silence

if TYPE_CHECKING:
    from tests.upstream.conftest import Begin, Script

Asked = Callable[..., GenerateRequest]
Read = Callable[..., Coroutine[None, None, list[TokenChunk]]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
HEAD = 420  # bytes: the answer's head has passed, and not all of its events


async def test_an_answer_is_that_of_the_server(begin: "Begin", asked: Asked, read: Read) -> None:
    behind = await begin("Hé", "llo", " there")
    chunks = await read(behind.upstream, asked(n=2))
    for choice in range(2):
        mine = [chunk for chunk in chunks if chunk.choice == choice]
        assert "".join(chunk.text for chunk in mine) == "Héllo there"
        assert mine[-1].finish is not None
        assert mine[-1].finish.outcome is Outcome.FINISHED
        assert mine[-1].finish.reason is FinishReason.STOP
    assert sum(chunk.num_tokens for chunk in chunks) == 2 * len("Héllo there".encode())
    (request,) = behind.backend.requests
    assert request.prompt_token_ids == tuple(b"Hi")


async def test_sampling_is_what_was_asked_for(begin: "Begin", asked: Asked, read: Read) -> None:
    behind, request = await begin("Hello"), asked()
    wanted = SamplingParams(
        max_tokens=7,
        min_tokens=2,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        presence_penalty=0.25,
        frequency_penalty=-0.5,
        repetition_penalty=1.5,
        logit_bias={5: -1.0},
        seed=8,
        stop=("x",),
        stop_token_ids=(9,),
        include_stop=True,
        ignore_eos=True,
        skip_special_tokens=False,
    )
    await read(behind.upstream, replace(request, sampling=wanted))
    (seen,) = behind.backend.requests
    assert seen.sampling == replace(wanted, seed=4)  # the protocol has 63 bits of a seed


def test_what_shapes_every_draw_is_never_left_to_the_server(asked: Asked) -> None:
    body = json.loads(body_of(asked(), Address("up", "http://up/v1", "m"), salted=False))
    sent = {name: body[name] for name in ("temperature", "top_k", "top_p", "min_p")}
    assert sent == {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


async def test_connections_are_kept(begin: "Begin", asked: Asked, read: Read) -> None:
    behind = await begin("Hello")
    for _ in range(5):
        await read(behind.upstream, asked())
    assert behind.proxy.connections == 1


async def test_a_connection_is_kept_although_its_answer_ends_late(asked: Asked, read: Read) -> None:
    """The last chunk of the transfer comes a moment after `[DONE]`."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    text = b'data: {"choices":[{"index":0,"text":"x","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"%s\r\n%x\r\n%s\r\n" % (head, len(text), text))
                await asyncio.sleep(0.02)
                writer.write(b"0\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    address = Address("late", f"http://127.0.0.1:{port}/v1", "tiny")
    upstream = UpstreamServer(address, MonotonicClock(), connect_within=5.0)
    await upstream.start()
    for _ in range(3):
        await read(upstream, asked())
    await upstream.close()
    listener.close()
    assert connections == 1


async def test_at_the_deadline_the_connection_is_closed_and_the_work_ends(
    begin: "Begin", asked: Asked, read: Read, until: Until
) -> None:
    behind = await begin("Hello", " there")
    behind.backend.gate = asyncio.Semaphore(1)
    chunks: list[TokenChunk] = []
    with pytest.raises(Refused) as refused:
        await read(behind.upstream, asked(within=0.3), chunks)
    assert refused.value.decision.cause is Cause.DEADLINE
    await until(lambda: not behind.backend.active and behind.proxy.open == 0)


async def test_the_deadline_goes_out_with_the_call(
    begin: "Begin", asked: Asked, read: Read
) -> None:
    behind = await begin("Hello")
    request = asked(within=30.0)
    await read(behind.upstream, request)
    (seen,) = behind.backend.requests
    # One machine, one clock: it loses the time on the way, and a rounding to milliseconds.
    assert seen.deadline is not None
    assert request.deadline is not None
    assert request.deadline - 10 < seen.deadline <= request.deadline + 10


async def test_closing_the_generator_ends_the_work(
    begin: "Begin", asked: Asked, until: Until
) -> None:
    behind = await begin("Hello", " there")
    behind.backend.gate = asyncio.Semaphore(1)
    chunks = behind.upstream.generate(asked())
    assert (await anext(chunks)).text == "Hello"
    await chunks.aclose()
    await until(lambda: bool(behind.backend.cancelled) and behind.proxy.open == 0)


@pytest.mark.parametrize("kind", [FaultKind.DROP, FaultKind.RESET])
async def test_a_break_in_the_middle_loses_the_answer(
    begin: "Begin", asked: Asked, read: Read, kind: FaultKind
) -> None:
    behind = await begin("Hello", " there")
    behind.backend.gate = asyncio.Semaphore(1)
    chunks = behind.upstream.generate(asked())
    assert (await anext(chunks)).text == "Hello"
    behind.proxy.fault = Fault(kind)
    behind.backend.gate.release()
    with pytest.raises(BackendLost):
        await anext(chunks)


@pytest.mark.parametrize("kind", [FaultKind.DROP, FaultKind.RESET, FaultKind.SERVER_ERROR])
async def test_a_break_before_the_answer_may_be_tried_elsewhere(
    begin: "Begin", asked: Asked, read: Read, kind: FaultKind
) -> None:
    behind = await begin("Hello")
    behind.proxy.fault = Fault(kind)
    with pytest.raises(BackendUnavailable):
        await read(behind.upstream, asked())


@pytest.mark.parametrize("event", [b'{"error":{"message":"out of memory"}}', b"[DONE]", b"{"])
async def test_so_may_an_answer_that_breaks_before_its_first_text(
    script: "Script", asked: Asked, read: Read, event: bytes
) -> None:
    """Its head said 200; vLLM tells errors of the first step so."""
    one = await script(b"data: %s\n\n" % event)
    with pytest.raises(BackendUnavailable):
        await read(one.upstream, asked())
    text = b'data: {"choices":[{"index":0,"text":"x"}]}\n\n'
    two = await script(text + b"data: %s\n\n" % event)
    with pytest.raises(BackendLost):
        await read(two.upstream, asked())


async def test_nobody_listens(asked: Asked, read: Read) -> None:
    nowhere = Address("gone", "http://127.0.0.1:1/v1", "tiny")
    upstream = UpstreamServer(nowhere, MonotonicClock(), connect_within=5.0)
    with pytest.raises(BackendUnavailable):
        await read(upstream, asked())
    await upstream.start()
    with pytest.raises(BackendUnavailable, match="gone"):
        await read(upstream, asked())
    await upstream.close()


@pytest.mark.parametrize("after", [0, HEAD])
async def test_a_server_that_hangs_is_given_up(
    begin: "Begin", asked: Asked, read: Read, until: Until, after: int
) -> None:
    behind = await begin("Hello", " there")
    behind.proxy.fault = Fault(FaultKind.HANG, after_bytes=after)
    task = asyncio.create_task(read(behind.upstream, asked()))
    await until(lambda: bool(behind.backend.requests))
    await asyncio.sleep(0.05)
    behind.upstream.end_if_silent(1000.0)
    assert not task.done()
    behind.upstream.end_if_silent(0.0)
    with pytest.raises((BackendLost, BackendUnavailable), match="hangs"):
        await task


async def test_a_call_that_is_being_ended_is_not_ended_again(
    begin: "Begin", asked: Asked, read: Read, until: Until
) -> None:
    """Its deadline and the silence of its server come in one turn of the loop."""
    behind = await begin("Hello")
    behind.proxy.fault = Fault(FaultKind.HANG)
    task = asyncio.create_task(read(behind.upstream, asked(within=60.0)))
    await until(lambda: bool(behind.backend.requests))
    (call,) = behind.upstream._calls
    call.end(Why.DEADLINE)
    await asyncio.sleep(0)  # now the timer of the head has expired
    behind.upstream.end_if_silent(0.0)
    with pytest.raises(Refused, match="deadline"):
        await task


async def test_a_call_that_is_ended_as_its_head_comes_is_ended(asked: Asked) -> None:
    """Before the timer of the head could interrupt anything."""
    call = _Call(asked(), None, Silence(MonotonicClock()))
    with pytest.raises(TimeoutError):
        async with call.waiting_for_head():
            call.end(Why.DEADLINE)
    call.close()


async def test_a_caller_that_is_slow_is_no_silent_server(
    begin: "Begin", asked: Asked, read: Read, until: Until
) -> None:
    """Nobody awaits a byte; then another one does, and bytes come for the slow one."""
    behind = await begin("Hello", " there")
    behind.backend.gate = asyncio.Semaphore(1)
    slow = behind.upstream.generate(asked())
    assert (await anext(slow)).text == "Hello"
    behind.upstream.end_if_silent(0.0)
    task = asyncio.create_task(read(behind.upstream, asked()))
    await until(lambda: len(behind.backend.requests) == 2)
    behind.backend.gate.release()  # the slow one's, who came first
    await asyncio.sleep(0.1)
    behind.upstream.end_if_silent(0.1)
    assert (await anext(slow)).text == " there"
    await slow.aclose()
    await asyncio.sleep(0.05)
    assert not task.done()
    behind.upstream.end_if_silent(0.0)
    with pytest.raises(BackendUnavailable, match="hangs"):
        await task


async def test_an_answer_is_over_when_the_server_says_so(
    script: "Script", asked: Asked, read: Read, until: Until
) -> None:
    """Whatever else it sends on the connection, and however its lines are cut."""
    text = b'data: {"choices":[{"index":0,"text":"x","finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n'
    one = await script(text, usage, b"data: [DONE]\n", b"\n", b": ping\n\n", holds=True)
    async with asyncio.timeout(5):
        chunks = await read(one.upstream, asked())
    assert [chunk.finish is not None for chunk in chunks] == [False, True]
    assert sum(chunk.num_tokens for chunk in chunks) == 3
    await until(lambda: one.open == 0)


@pytest.mark.parametrize("sent", [(), (b'data: {"choices":[{"index":0,"text":"x"}]}\n\n',)])
async def test_a_head_is_no_word_of_an_answer(
    script: "Script", asked: Asked, read: Read, sent: tuple[bytes, ...]
) -> None:
    """vLLM sends it before its engine has done anything."""
    one = await script(*sent, holds=True)
    with pytest.raises(OutOfTime) as late:
        await read(one.upstream, asked(within=0.2))
    assert late.value.silent is not bool(sent)


async def test_what_the_server_refuses_is_told_as_it_is(
    begin: "Begin", asked: Asked, read: Read
) -> None:
    behind = await begin("Hello")
    with pytest.raises(RequestError, match="max_tokens"):
        await read(behind.upstream, asked(max_tokens=201))


async def test_logprobs_are_refused_not_ignored(begin: "Begin", asked: Asked, read: Read) -> None:
    behind, request = await begin("Hello"), asked()
    wanted = replace(request, sampling=replace(request.sampling, logprobs=1))
    with pytest.raises(UnsupportedField):
        await read(behind.upstream, wanted)
    assert not behind.backend.requests


async def test_its_metrics_are_looked_at(begin: "Begin") -> None:
    behind = await begin("Hello")
    await behind.upstream.look()
    assert behind.upstream.facts.kv_tokens is None  # the fake's blocks hold no tokens
    assert behind.upstream.load().requests_running == 0
