"""How many calls at once: who can take a place, and who is answered without one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from salver.contract import Scope
from salver.gateway import Limits
from salver.state import Database, KeyStore
from salver.testing import FakeBackend

Until = Callable[[Callable[[], bool]], Awaitable[None]]
PROMPT = {"model": "tiny", "prompt": "a"}


@asynccontextmanager
async def held(
    client: httpx.AsyncClient, backend: FakeBackend, number: int, until: Until
) -> AsyncIterator[None]:
    """So many calls in the backend, which does not answer meanwhile."""
    backend.gate = asyncio.Semaphore(0)
    calls = [
        asyncio.create_task(client.post("/v1/completions", json=PROMPT)) for _ in range(number)
    ]
    try:
        await until(lambda: len(backend.active) == number)
        yield
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@asynccontextmanager
async def unfinished(url: str, head: str, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that announce ten bytes and send none."""
    address = httpx.URL(url)
    streams = [await asyncio.open_connection(address.host, address.port) for _ in range(number)]
    for _, writer in streams:
        writer.write(f"{head} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n".encode())
    try:
        await asyncio.sleep(0.2)
        yield [reader for reader, _ in streams]
    finally:
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(each.wait_closed() for _, each in streams), return_exceptions=True)


async def test_too_many_calls_in_flight_are_back_pressure(
    client: httpx.AsyncClient, backend: FakeBackend, limits: Limits, until: Until
) -> None:
    async with held(client, backend, limits.max_in_flight, until):
        refusals = [await client.post("/v1/completions", json=PROMPT) for _ in range(20)]
    for refused in refusals:
        error = refused.json()["error"]
        assert (refused.status_code, error["rule"]) == (429, "gateway.max_in_flight")
        assert (error["value"], error["limit"]) == (limits.max_in_flight + 1, limits.max_in_flight)
        assert refused.headers["x-salver-decision"] == error["decision"]
    assert len({refused.headers["retry-after"] for refused in refusals}) > 1, "they come back apart"
    backend.gate = None
    assert (await client.post("/v1/completions", json=PROMPT)).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/version", "/docs"])
async def test_probes_and_scrapes_are_answered_whatever_the_load(
    client: httpx.AsyncClient, backend: FakeBackend, limits: Limits, until: Until, path: str
) -> None:
    async with held(client, backend, limits.max_in_flight, until):
        assert (await client.get(path)).status_code == 200


async def test_who_is_refused_while_sending_hears_it(
    base_url: str, backend: FakeBackend, limits: Limits, until: Until
) -> None:
    async with (
        httpx.AsyncClient(base_url=base_url) as client,
        held(client, backend, limits.max_in_flight, until),
    ):
        headers = {"content-type": "application/json"}
        refused = await client.post("/v1/completions", content=b"x" * (10 * 2**20), headers=headers)
    assert refused.status_code == 429
    assert refused.headers["connection"] == "close"


@pytest.mark.parametrize("head", ["POST /health", "POST /docs/ui/x", "POST /v1/completions"])
async def test_without_a_key_nobody_takes_a_place(
    keyed_url: str, key: str, limits: Limits, head: str
) -> None:
    async with (
        unfinished(keyed_url, head, limits.max_in_flight + 1),
        httpx.AsyncClient(base_url=keyed_url) as client,
    ):
        headers = {"authorization": f"Bearer {key}"}
        answer = await client.post("/v1/completions", json=PROMPT, headers=headers)
    assert answer.status_code == 200


async def test_an_open_path_does_not_wait_for_a_body(keyed_url: str) -> None:
    async with unfinished(keyed_url, "POST /health", 1) as (reader,):
        assert b" 405 " in await asyncio.wait_for(reader.readline(), 5)


async def test_a_refusal_is_counted_for_its_tenant(
    keyed: FastAPI,
    database: Database,
    key: str,
    backend: FakeBackend,
    limits: Limits,
    until: Until,
) -> None:
    operator = KeyStore(database).create("search", frozenset({Scope.OPERATIONS}))[0]
    transport = httpx.ASGITransport(keyed)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        client.headers["authorization"] = f"Bearer {key}"
        async with held(client, backend, limits.max_in_flight, until):
            await client.post("/v1/completions", json=PROMPT)
            headers = {"authorization": f"Bearer {operator}"}
            told = (await client.get("/metrics", headers=headers)).text
    counted = [line for line in told.splitlines() if 'rule="gateway.max_in_flight"' in line]
    assert counted
    assert all('tenant="search"' in line for line in counted)
