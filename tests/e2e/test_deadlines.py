"""Law 6 over HTTP: five hundred short timeouts on the real model, and nothing left behind."""

import asyncio
import json
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

REQUESTS, AT_ONCE = 500, 100
SHORTEST_MS, LONGEST_MS = 50, 2000
MOST_IN_A_STEP = 512  # max_batch_tokens of the examples


def level(server: "Server", name: str, *labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    mine = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rsplit(" ", 1)[1]) for line in mine if all(x in line for x in labels))


def holds_nothing(server: "Server") -> bool:
    """No request waits or runs, and no block is owned; but for a readiness probe, now and then."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return not any(server.metric(f"vllm:{name}") for name in names)


async def one(client: httpx.AsyncClient, timeout_ms: int, *, stream: bool) -> str:
    """How a request with a timeout ends, in one word."""
    answer = await client.post(
        "/v1/completions",
        json={
            "model": "smollm2",
            "prompt": f"Count slowly, beginning with {timeout_ms}: ",
            "max_tokens": 200,
            "stream": stream,
        },
        headers={"Request-Timeout-Ms": str(timeout_ms)},
    )
    if answer.status_code != 200:
        return str(answer.json()["error"]["code"])
    if not stream:
        return "done"
    assert answer.text.endswith("data: [DONE]\n\n") or '"error"' in answer.text
    events = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return str(json.loads(events[-1][6:]).get("error", {}).get("code", "done"))


async def all_of_them(url: str) -> Counter[str]:
    chance, gate = random.Random(5), asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE)

    async with httpx.AsyncClient(base_url=url, timeout=60.0, limits=limits) as client:

        async def turn(timeout_ms: int, stream: bool) -> str:
            async with gate:
                return await one(client, timeout_ms, stream=stream)

        asked = [(chance.randint(SHORTEST_MS, LONGEST_MS), bool(i % 2)) for i in range(REQUESTS)]
        return Counter(await asyncio.gather(*(turn(*each) for each in asked)))


def test_no_token_after_the_deadline_no_block_left_and_nobody_cancelled(server: "Server") -> None:
    cancelled = level(server, "salver_requests_total", 'outcome="cancelled"')
    expired = level(server, "salver_requests_total", 'outcome="expired"')
    late = server.metric("salver_late_tokens_total")
    ended = asyncio.run(all_of_them(server.url))
    assert ended.total() == REQUESTS
    assert set(ended) <= {"done", "deadline_exceeded", "deadline_unreachable"}, ended
    until = time.monotonic() + 20
    while not (empty := holds_nothing(server)) and time.monotonic() < until:
        time.sleep(0.05)
    assert empty, "requests or blocks are left"
    assert level(server, "salver_requests_total", 'outcome="cancelled"') == cancelled
    expired = level(server, "salver_requests_total", 'outcome="expired"') - expired
    assert expired == ended["deadline_exceeded"]
    assert ended["done"] < REQUESTS, "none was in a hurry"
    assert server.metric("salver_overdue_tokens_total") == 0
    assert server.metric("salver_late_tokens_total") - late <= expired * MOST_IN_A_STEP
