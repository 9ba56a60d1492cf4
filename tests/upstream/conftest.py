"""Real servers on real sockets: Salver gateways over FakeBackends, with fault proxies before them."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from salver.clock import Clock, MonotonicClock
from salver.contract import GenerateRequest, SamplingParams, TokenChunk, TrafficClass
from salver.flow.waiting import Queue
from salver.gateway import Limits, Served, create_app, listen, serve
from salver.models import Tokenizer
from salver.models.bpe import CHARACTER_OF_BYTE
from salver.models.tokenizer import PlainText, SpecialTokens
from salver.telemetry import Event
from salver.testing import FakeBackend, FaultProxy
from salver.upstream import Address, PoolRule, UpstreamPool, UpstreamServer
from salver.upstream.waiting import Waiter

CLOCK = MonotonicClock()


@dataclass(frozen=True, slots=True)
class Behind:
    """A server, what it computes with, and the proxy in front of it."""

    backend: FakeBackend
    proxy: FaultProxy
    upstream: UpstreamServer


@dataclass(slots=True)
class Scripted:
    """A server of bytes: every call gets `pieces`, each sent by itself, and then the end.

    `holds` keeps the connection instead, as long as its caller does.
    """

    upstream: UpstreamServer
    pieces: tuple[bytes, ...]
    holds: bool = False
    calls: int = 0
    open: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call."""
        head = await reader.readuntil(b"\r\n\r\n")
        asked = head.startswith(b"POST")  # else it is looked at, and has no metrics
        self.calls += asked
        self.open += 1
        try:
            for piece in self.pieces if asked else (NOTHING,):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
            while asked and self.holds and await reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


NOTHING = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
Begin = Callable[..., Awaitable[Behind]]
Script = Callable[..., Awaitable[Scripted]]
Pool = Callable[..., Awaitable[tuple[UpstreamPool, list[Event]]]]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One token per byte."""
    plain = tokenizers.Tokenizer(
        BPE(vocab={char: byte for byte, char in CHARACTER_OF_BYTE.items()}, merges=[])
    )
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    return Tokenizer(
        PlainText(plain, plain),
        [bytes([byte]) for byte in range(256)],
        SpecialTokens({}, None, frozenset()),
        max_token_bytes=1,
    )


@pytest.fixture
async def begin(tokenizer: Tokenizer) -> AsyncIterator[Begin]:
    """Begins servers; ends them afterwards."""
    async with AsyncExitStack() as stack:

        async def one(*pieces: str, name: str = "back", bound: int | None = None) -> Behind:
            backend = FakeBackend(*pieces)
            port = await stack.enter_async_context(_gateway(backend, tokenizer))
            proxy = await stack.enter_async_context(FaultProxy(port).running())
            address = Address(
                name,
                f"http://127.0.0.1:{proxy.port}/v1",
                "tiny",
                max_tokens_in_flight=bound,
            )
            upstream = UpstreamServer(address, CLOCK, connect_within=5.0)
            await upstream.start()
            stack.push_async_callback(upstream.close)
            return Behind(backend, proxy, upstream)

        yield one


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    """Begins servers of bytes: the head of an event stream, and what is given."""
    async with AsyncExitStack() as stack:

        async def one(*pieces: bytes, name: str = "back", holds: bool = False) -> Scripted:
            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await made.answer(reader, writer)

            listener = await asyncio.start_server(answer, "127.0.0.1", 0)
            stack.callback(listener.close)
            port = listener.sockets[0].getsockname()[1]
            address = Address(name, f"http://127.0.0.1:{port}/v1", "tiny")
            upstream = UpstreamServer(address, CLOCK, connect_within=5.0)
            made = Scripted(upstream, (HEAD, *pieces), holds)
            await upstream.start()
            stack.push_async_callback(upstream.close)
            return made

        yield one


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool over servers, and the events it tells."""
    opened: list[UpstreamPool] = []

    async def one(
        rule: PoolRule,
        *behind: Behind | Scripted,
        clock: Clock = CLOCK,
        queue: Queue[Waiter] | None = None,
    ) -> tuple[UpstreamPool, list[Event]]:
        events: list[Event] = []
        servers = [each.upstream for each in behind]
        made = UpstreamPool(
            "pool",
            servers,
            rule,
            clock=clock,
            observe=events.append,
            entropy=random.Random(3),
            queue=queue,
        )
        opened.append(made)
        await made.start()
        return made, events

    yield one
    for each in opened:
        await each.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for what another task is about to make true."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def asked() -> Callable[..., GenerateRequest]:
    """Makes requests with ids of their own; `within` is in seconds from now."""
    made: list[GenerateRequest] = []

    def make(
        prompt: str = "Hi",
        *,
        n: int = 1,
        within: float | None = None,
        max_tokens: int = 100,
        tenant: str = "default",
        traffic_class: TrafficClass = TrafficClass.STANDARD,
    ) -> GenerateRequest:
        request = GenerateRequest(
            f"r{len(made)}",
            tuple(prompt.encode()),
            SamplingParams(max_tokens=max_tokens),
            n=n,
            tenant=tenant,
            traffic_class=traffic_class,
            deadline=None if within is None else CLOCK.now() + within,
        )
        made.append(request)
        return request

    return make


@pytest.fixture
def read() -> Callable[..., Awaitable[list[TokenChunk]]]:
    """All chunks of an answer; `into` has those before an error too."""

    async def chunks(
        backend: UpstreamServer | UpstreamPool,
        request: GenerateRequest,
        into: list[TokenChunk] | None = None,
    ) -> list[TokenChunk]:
        found: list[TokenChunk] = [] if into is None else into
        async for chunk in backend.generate(request):
            found.append(chunk)  # noqa: PERF401  # one by one: an error leaves those before it
        return found

    return chunks


@asynccontextmanager
async def _gateway(backend: FakeBackend, tokenizer: Tokenizer) -> AsyncIterator[int]:
    app = create_app(
        Served("tiny", "behind", "release-1", "owner@example.com"),
        Limits(max_context_tokens=2000, max_output_tokens=200, default_timeout_seconds=60.0),
        backend=backend,
        tokenizer=tokenizer,
        chat_template=None,
        ready=lambda: True,
    )
    listener = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve(app, listener, stop=stop, handle_signals=False, drain_seconds=1)
    )
    yield listener.getsockname()[1]
    stop.set()
    await asyncio.wait_for(task, 20)
