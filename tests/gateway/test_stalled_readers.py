"""Clients that stay and do not read: what they hold is given back."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from salver.gateway import Limits
from salver.testing import FakeBackend

Until = Callable[[Callable[[], bool]], Awaitable[None]]
BUFFER_BYTES = 4096
ENDLESS = ("x" * 2**14,) * 1000
LONG = ("x" * 2**19,)  # more than all buffers of a connection take
PROMPT = {"model": "tiny", "prompt": "a", "max_tokens": 10**8}
DEADLINE_MS = 300


@pytest.fixture
def limits(limits: Limits) -> Limits:
    """One place, and answers as long as one likes."""
    return replace(limits, max_in_flight=1, max_context_tokens=10**9, max_output_tokens=10**8)


@pytest.fixture
def listener(listener: socket.socket) -> socket.socket:
    """Its connections have small buffers."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return listener


@pytest.fixture
async def deaf(base_url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection with small buffers, from which nothing is read unless a test does."""
    url = httpx.URL(base_url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    yield reader, writer
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def request(**more: object) -> bytes:
    body = json.dumps({**PROMPT, **more}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return (
        f"{head}request-timeout-ms: {DEADLINE_MS}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def statuses(base_url: str, seconds: float) -> list[int]:
    """What a client that reads hears, until it is served or the time is over."""
    heard: list[int] = []
    end = asyncio.get_running_loop().time() + seconds
    async with httpx.AsyncClient(base_url=base_url) as client:
        while 200 not in heard and asyncio.get_running_loop().time() < end:
            answer = await client.post("/v1/completions", json={**PROMPT, "max_tokens": 1})
            heard.append(answer.status_code)
            await asyncio.sleep(0.05)
    return heard


@pytest.mark.parametrize(
    ("pieces", "requests"),
    [
        pytest.param(ENDLESS, (request(stream=True),), id="in the middle of a stream"),
        pytest.param(LONG, (request(stream=True),), id="at the end of a stream"),
        pytest.param(LONG, (request(), request()), id="at the beginning of a second answer"),
    ],
)
async def test_a_reader_that_stalls_gives_its_place_back_at_its_deadline(
    base_url: str,
    deaf: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    backend: FakeBackend,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    pieces: tuple[str, ...],
    requests: tuple[bytes, ...],
) -> None:
    reader, writer = deaf
    backend.pieces = pieces
    for number, each in enumerate(requests, start=1):
        writer.write(each)
        await until(lambda: len(backend.requests) == number)  # noqa: B023  # at once
        await asyncio.sleep(0.1)
    backend.pieces = ("ok",)
    heard = await statuses(base_url, seconds=10)
    assert heard[0] == 429, "it did not stall"
    assert heard[-1] == 200
    assert not backend.active
    async with asyncio.timeout(5):
        rest = await asyncio.gather(reader.read(), return_exceptions=True)
    assert not (isinstance(rest[0], bytes) and rest[0].endswith(b"0\r\n\r\n")), "it was not cut off"
    assert "ASGI" not in caplog.text


async def test_who_reads_slowly_and_in_time_hears_all_of_it(
    base_url: str,
    deaf: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    backend: FakeBackend,
) -> None:
    reader, writer = deaf
    backend.pieces = ("x" * 2**14,) * 20
    body = request(stream=True).replace(b"timeout-ms: 300", b"timeout-ms: 20000")
    writer.write(body)
    text = b""
    async with asyncio.timeout(20):
        while not text.endswith(b"0\r\n\r\n"):
            text += await reader.read(2**13)
            await asyncio.sleep(0.005)
    assert b"data: [DONE]" in text
    assert text.count(b"x" * 2**14) == 20
