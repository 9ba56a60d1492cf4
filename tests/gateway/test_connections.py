"""On a real socket: clients that leave, stall, send too much or never stop sending."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI

from salver.errors import CannotListen
from salver.gateway import listen, serve
from salver.gateway.server import MAX_HEAD_BYTES
from salver.testing import FakeBackend

Until = Callable[[Callable[[], bool]], Awaitable[None]]
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def request(body: object, *, path: str = "/v1/chat/completions") -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(raw) + raw


async def connect(base_url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = httpx.URL(base_url)
    return await asyncio.open_connection(url.host, url.port)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("permits", [0, 2])
async def test_a_client_that_leaves_frees_the_backend(
    base_url: str, backend: FakeBackend, until: Until, *, stream: bool, permits: int
) -> None:
    backend.gate = asyncio.Semaphore(permits)
    _, writer = await connect(base_url)
    writer.write(request({**CHAT, "stream": stream}))
    await until(lambda: bool(backend.active) and backend.gate is not None and backend.gate.locked())
    writer.transport.abort()
    await until(lambda: not backend.active)
    assert backend.cancelled == [backend.requests[0].id]


async def test_leaving_cancels_every_prompt_of_a_batch(
    base_url: str, backend: FakeBackend, until: Until
) -> None:
    backend.gate = asyncio.Semaphore(0)
    _, writer = await connect(base_url)
    body = {"model": "tiny", "prompt": ["a", "b", "c"], "n": 2}
    writer.write(request(body, path="/v1/completions"))
    await until(lambda: len(backend.active) == 3)
    writer.close()
    await until(lambda: len(backend.cancelled) == 3)


async def test_a_backend_that_misses_the_deadline_is_a_504_and_cancelled(
    base_url: str, backend: FakeBackend, until: Until
) -> None:
    backend.gate = asyncio.Semaphore(0)
    async with httpx.AsyncClient(base_url=base_url) as client:
        headers = {"Request-Timeout-Ms": "300"}
        answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 504
    error = answer.json()["error"]
    assert (error["code"], error["limit"]) == ("deadline_exceeded", 0.3)
    assert error["decision"] == answer.headers["x-salver-decision"]
    await until(lambda: not backend.active)
    deadline = backend.requests[0].deadline
    assert deadline is not None


async def test_a_large_body_is_refused_and_the_client_hears_it(base_url: str) -> None:
    body = json.dumps({"model": "tiny", "prompt": "x" * (10 * 2**20)})
    headers = {"content-type": "application/json"}

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16].encode()

    async with httpx.AsyncClient(base_url=base_url) as client:
        declared = await client.post("/v1/completions", content=body, headers=headers)
        assert declared.status_code == 413
        assert declared.json()["error"]["limit"] == 64 * 1024
        assert declared.headers["connection"] == "close"
    reader, writer = await connect(base_url)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    writer.write(head + b"transfer-encoding: chunked\r\n\r\n")
    async for piece in pieces():
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if writer.transport.is_closing():
            break
    assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
    writer.transport.abort()


async def test_endless_headers_are_refused(base_url: str) -> None:
    reader, writer = await connect(base_url)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: ")
    for _ in range(MAX_HEAD_BYTES // 2**12 + 2):
        writer.write(b"a" * 2**12)
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.transport.abort()


async def test_headers_may_come_slowly_and_connections_be_reused(base_url: str) -> None:
    reader, writer = await connect(base_url)
    for _ in range(3):
        for part in (b"GET /hea", b"lth HTTP/1.1\r\nho", b"st: x\r\n\r\n"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert b" 200 " in await reader.readline()
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


async def test_stopping_lets_calls_in_flight_end(app: FastAPI, backend: FakeBackend) -> None:
    backend.gate = asyncio.Semaphore(1)
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = asyncio.create_task(serve(app, listener, stop=stop, handle_signals=False))
    async with httpx.AsyncClient(base_url=base_url) as client:
        body = {**CHAT, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            stop.set()
            await asyncio.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                await httpx.AsyncClient(base_url=base_url).get("/health")
            backend.gate.release()
            backend.gate.release()
            text = (await answer.aread()).decode()
    assert text.endswith("data: [DONE]\n\n")
    await asyncio.wait_for(server, 5)


async def test_stopping_does_not_wait_for_ever(app: FastAPI, backend: FakeBackend) -> None:
    backend.gate = asyncio.Semaphore(1)
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    server = asyncio.create_task(
        serve(app, listener, stop=stop, handle_signals=False, drain_seconds=1)
    )
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=base_url) as client:
        body = {**CHAT, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body):
            stop.set()
            await asyncio.wait_for(server, 5)
    assert not backend.active


async def test_a_taken_port_is_told_plainly() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port}.*choose another port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_is_reported(app: FastAPI, number: signal.Signals) -> None:
    listener = listen("127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = asyncio.create_task(serve(app, listener))
    async with httpx.AsyncClient(base_url=base_url) as client:
        assert (await client.get("/health")).status_code == 200
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(server, 5) is number
