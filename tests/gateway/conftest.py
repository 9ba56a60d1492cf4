"""A gateway over a FakeBackend, reachable in-process (`client`) and on a real socket (`base_url`)."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
import tokenizers
from fastapi import FastAPI
from openai import AsyncOpenAI
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from salver.contract import Scope, StateAway, Tenant
from salver.gateway import Limits, Served, StoreThreads, Tenancy, create_app, listen, serve
from salver.models import ChatTemplate, Tokenizer
from salver.models.bpe import CHARACTER_OF_BYTE
from salver.models.tokenizer import PlainText, SpecialTokens
from salver.state import Database, KeyStore, sqlite_url
from salver.telemetry import Event, Observers
from salver.testing import FakeBackend, ManualClock

BOS = 256
TEMPLATE = (
    "{% if tools %}tools:{{ tools | length }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls %} {{ c.function.name }}({{ c.function.arguments.at }}){% endfor %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for what another task is about to make true."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend("Hé", "llo", " there")


@pytest.fixture
def limits() -> Limits:
    return Limits(
        max_context_tokens=2000,
        max_output_tokens=200,
        default_timeout_seconds=20.0,
        max_body_bytes=64 * 1024,
        max_choices=16,
        max_in_flight=32,
    )


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A real tokenizer of one token per byte, id 256 being the control token `<s>`."""
    plain = tokenizers.Tokenizer(
        BPE(vocab={char: byte for byte, char in CHARACTER_OF_BYTE.items()}, merges=[])
    )
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    return Tokenizer(
        PlainText(plain, plain),
        [*(bytes([byte]) for byte in range(256)), b"<s>"],
        SpecialTokens({"<s>": BOS}, BOS, frozenset(), prefix=(BOS,)),
        max_token_bytes=1,
    )


@pytest.fixture
def app(backend: FakeBackend, limits: Limits, tokenizer: Tokenizer) -> FastAPI:
    return create_app(
        Served("tiny", "assistant", "release-1", "owner@example.com", "development"),
        limits,
        backend=backend,
        tokenizer=tokenizer,
        chat_template=ChatTemplate(TEMPLATE, bos_token="<s>", eos_token=""),
        ready=lambda: backend.ready,
        entropy=random.Random(7),
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        yield client


@asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket) -> AsyncIterator[str]:
    """The app on a real socket, at this URL."""
    stop = asyncio.Event()
    port = listener.getsockname()[1]
    task = asyncio.create_task(
        serve(app, listener, stop=stop, handle_signals=False, drain_seconds=1)
    )
    yield f"http://127.0.0.1:{port}"
    stop.set()
    await asyncio.wait_for(task, 10)


@pytest.fixture
def listener() -> socket.socket:
    return listen("127.0.0.1", 0)


@pytest.fixture
async def base_url(app: FastAPI, listener: socket.socket) -> AsyncIterator[str]:
    async with serving(app, listener) as url:
        yield url


@pytest.fixture(scope="session")
def threads() -> Iterator[StoreThreads]:
    with closing(StoreThreads(1)) as threads:
        yield threads


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(sqlite_url(tmp_path / "state.db"))) as database:
        yield database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def key(database: Database) -> str:
    """One of `search`."""
    return KeyStore(database).create("search", frozenset({Scope.INFERENCE}))[0]


@pytest.fixture
def events() -> list[Event]:
    """What `keyed` tells its observers."""
    return []


@pytest.fixture
def keyed(
    backend: FakeBackend,
    limits: Limits,
    tokenizer: Tokenizer,
    database: Database,
    threads: StoreThreads,
    clock: ManualClock,
    events: list[Event],
) -> FastAPI:
    """A gateway on `clock` with one tenant, `search`, whose keys are in `database` and fail closed."""
    return create_app(
        Served("tiny", "assistant", "release-1", "owner@example.com"),
        limits,
        backend=backend,
        tokenizer=tokenizer,
        chat_template=None,
        ready=lambda: backend.ready,
        tenancy=Tenancy("assistant", (Tenant(name="search"),), StateAway(), database, threads),
        observers=Observers(events.append),
        clock=clock,
        entropy=random.Random(7),
    )


@pytest.fixture
async def keyed_url(keyed: FastAPI, listener: socket.socket) -> AsyncIterator[str]:
    async with serving(keyed, listener) as url:
        yield url


@pytest.fixture
async def openai(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client
