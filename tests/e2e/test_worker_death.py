"""kill -9 of the worker: every stream ends clearly, the gateway stays up, service comes back."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

STREAMS = 16
CALL = {
    "model": "smollm2",
    "prompt": "Once upon a time",
    "max_tokens": 600,
    "ignore_eos": True,
    "stream": True,
}


async def test_kill_9_during_16_streams(own_server: Callable[..., "Server"]) -> None:
    server = own_server()
    flowing = asyncio.Semaphore(0)
    limits = httpx.Limits(max_connections=STREAMS + 4)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        streams = [asyncio.create_task(last_event(client, flowing)) for _ in range(STREAMS)]
        for _ in streams:
            await flowing.acquire()
        first_worker = server.worker_pid()
        os.kill(first_worker, signal.SIGKILL)
        ends = await asyncio.wait_for(asyncio.gather(*streams), timeout=10)
        for end in ends:
            assert end["error"]["code"] == "backend_lost", end
            assert "worker" in end["error"]["message"]
        assert (await client.get("/health")).status_code == 200
        refused = await client.post("/v1/completions", json=CALL)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "backend_unavailable"

        await until_ready(client)
        again = {**CALL, "max_tokens": 3, "stream": False}
        answer = await client.post("/v1/completions", json=again)
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] == 3
    assert server.worker_pid() != first_worker
    assert server.metric("salver_worker_restarts_total") == 1


async def last_event(
    client: httpx.AsyncClient, flowing: asyncio.Semaphore
) -> dict[str, dict[str, str]]:
    """Read one stream to its end, saying when its first token came."""
    last, seen = "", False
    async with client.stream("POST", "/v1/completions", json=CALL) as response:
        async for line in response.aiter_lines():
            if line:
                last = line
            if line and not seen:
                seen = True
                flowing.release()
    assert "[DONE]" not in last
    event: dict[str, dict[str, str]] = json.loads(last.removeprefix("data: "))
    return event


async def until_ready(client: httpx.AsyncClient, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while (await client.get("/ready")).status_code != 200:
        assert time.monotonic() < deadline, "the worker did not come back"
        await asyncio.sleep(0.1)
