"""Deadlines that cannot be met are refused at the door, as early as that is known."""

import json
from typing import Any

import httpx
import pytest

from salver.clock import MonotonicClock
from salver.contract import LatencyModel
from salver.models import Tokenizer
from salver.testing import FakeBackend

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
SLOW = LatencyModel(base=0.1, per_token=0.01, per_attended=0.0, per_logit_row=0.0)
CALLS: list[tuple[str, dict[str, Any]]] = [
    (TEXT, {"prompt": "x" * 1000}),
    (TEXT, {"prompt": [7] * 1000}),
    (TEXT, {"prompt": ["a", "x" * 1000]}),
    (CHAT, {"messages": [{"role": "user", "content": "x" * 1000}]}),
]


async def post(
    client: httpx.AsyncClient, path: str, timeout_ms: int, **fields: Any
) -> tuple[httpx.Response, dict[str, Any]]:
    headers = {"Request-Timeout-Ms": str(timeout_ms)}
    response = await client.post(path, json={"model": "tiny", **fields}, headers=headers)
    return response, json.loads(response.content).get("error", {})


@pytest.mark.parametrize(("path", "fields"), CALLS)
async def test_a_prompt_that_takes_too_long_is_504(
    client: httpx.AsyncClient, backend: FakeBackend, path: str, fields: dict[str, Any]
) -> None:
    backend.latency = SLOW
    response, error = await post(client, path, 2000, **fields)
    assert response.status_code == 504, error
    assert (error["code"], error["type"]) == ("deadline_unreachable", "timeout_error")
    assert error["rule"] == "admission.reachable_deadline_s"
    assert error["value"] > 8 > error["limit"]
    assert response.headers["x-salver-decision"] == error["decision"]
    assert "retry-after" not in response.headers
    assert backend.requests == []
    scrape = (await client.get("/metrics")).text
    assert 'rule="admission.reachable_deadline_s"' in scrape
    response, _ = await post(client, path, 20_000, **fields)
    assert response.status_code == 200


async def test_bytes_decide_before_they_are_tokenized(
    client: httpx.AsyncClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object, **__: object) -> list[int]:
        raise AssertionError("tokenized")

    backend.latency = SLOW
    monkeypatch.setattr(Tokenizer, "encode", encode)
    for path, fields in CALLS[::3]:
        response, _ = await post(client, path, 2000, **fields)
        assert response.status_code == 504


async def test_a_long_queue_says_when_to_come_back(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.queue_seconds = 5.5
    response, error = await post(client, TEXT, 3000, prompt="a")
    assert (response.status_code, error["code"]) == (504, "deadline_unreachable")
    assert response.headers["retry-after"] == "3"


async def test_a_queue_that_was_told_some_time_ago_is_shorter_by_now(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    """The engine tells it once a step, and a step may be long."""
    backend.queue_seconds = 5.5
    for age, status in ((0.0, 504), (4.0, 200), (400.0, 200)):
        backend.told_at = MonotonicClock().now() - age
        response, _ = await post(client, TEXT, 3000, prompt="a")
        assert response.status_code == status


async def test_output_that_is_certain_counts_and_hoped_for_output_does_not(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.latency = SLOW
    forced, _ = await post(client, TEXT, 2000, prompt="a", max_tokens=100, ignore_eos=True)
    assert forced.status_code == 504
    free, _ = await post(client, TEXT, 2000, prompt="a", max_tokens=100)
    assert free.status_code == 200
