"""A small server of OpenAI's streams whose misbehaviour a test can choose."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from salver.bench.target import Target
from salver.workload import Workload, load_mix

Answer = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request and the way back."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter

    def head(self, status: int = 200) -> None:
        self.writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n" % status
        )

    def event(self, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.chunk(f"data: {text}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def token(self) -> None:
        self.event({"choices": [{"text": " a", "finish_reason": None}]})

    def end(self, tokens: int) -> None:
        self.event({"choices": [{"text": "", "finish_reason": "length"}]})
        usage = {"prompt_tokens": 8, "completion_tokens": tokens}
        self.event({"choices": [], "usage": usage})
        self.event("[DONE]")
        self.writer.write(b"0\r\n\r\n")


async def well(exchange: Exchange) -> None:
    """All tokens, 5 ms apart."""
    exchange.head()
    for _ in range(exchange.body["max_tokens"]):
        exchange.token()
        await asyncio.sleep(0.005)
    exchange.end(exchange.body["max_tokens"])


@dataclass
class Stub:
    """The server, on a loop and thread of its own. `answer` may be changed between calls."""

    url: str = ""
    answer: Answer = well
    connections: int = 0
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    stalled_until: float = 0.0

    def stall(self, seconds: float) -> None:
        """Read and write nothing for so long."""
        self.stalled_until = time.monotonic() + seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                await self._exchange(line, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        headers: dict[str, str] = {}
        while (header := (await reader.readline()).decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name] = value.strip()
        path = line.split()[1].decode()
        if path.endswith("/models"):
            body = b'{"data": [{"id": "stub"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            return
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.requests.append((path, headers, body))
        if (pause := self.stalled_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        await self.answer(Exchange(path, headers, body, writer))
        await writer.drain()


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    stop, ready = asyncio.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(5)
    yield made
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(5)


@pytest.fixture
def target(stub: Stub) -> Target:
    return Target(stub.url, "stub")


MIX = {
    "apiVersion": "salver/v1",
    "kind": "TrafficMix",
    "name": "test",
    "duration": "2s",
    "slo": {"ttft": "1s"},
    "flows": [
        {
            "name": "one",
            "arrivals": {"poisson": {"rate": 20}},
            "prompts": {"tokens": [100, 1000]},
            "input": {"fixed": 8},
            "output": {"fixed": 4},
        }
    ],
}


@pytest.fixture
def mix_text() -> Callable[..., str]:
    """The text of a mix; keyword arguments replace keys of the mix, `flow` those of its flow."""

    def text(flow: dict[str, Any] | None = None, **mix: Any) -> str:
        flows = [MIX["flows"][0] | (flow or {})]  # type: ignore[index]
        return json.dumps(MIX | {"flows": flows} | mix)

    return text


@pytest.fixture
def make_workload(mix_text: Callable[..., str]) -> Callable[..., Workload]:
    def make(**changes: Any) -> Workload:
        return Workload(load_mix(mix_text(**changes)))

    return make
