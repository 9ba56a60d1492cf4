"""What the gateway's own calls leave in /metrics."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from salver.contract import Outcome
from salver.testing import FakeBackend

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


async def scrape(client: httpx.AsyncClient) -> dict[str, float]:
    """Samples as `name{value,value}` without the labels that never change."""
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    fixed = {"deployment", "release", "model_name", "tenant"}
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(v for k, v in sorted(sample.labels.items()) if k not in fixed)
            samples[f"{sample.name}{{{labels}}}"] = sample.value
    return samples


async def test_every_end_is_counted_once_by_its_outcome(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    await client.post("/v1/chat/completions", json=CHAT)
    backend.dies_after = 1
    await client.post("/v1/chat/completions", json=CHAT)
    backend.dies_after, backend.outcome = None, Outcome.EXPIRED
    await client.post("/v1/completions", json={"model": "tiny", "prompt": "a"})
    told = await scrape(client)
    assert told["salver_requests_total{chat,finished}"] == 1
    assert told["salver_requests_total{chat,failed}"] == 1
    assert told["salver_requests_total{completion,expired}"] == 1
    assert told["vllm:time_to_first_token_seconds_count{}"] == 3
    assert told["vllm:e2e_request_latency_seconds_count{}"] == 1


async def test_refusals_are_counted_by_rule_and_are_no_outcomes(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    await client.post("/v1/chat/completions", json={**CHAT, "model": "x"})
    await client.post("/v1/chat/completions", json=CHAT, headers={"x-salver-class": "a"})
    backend.ready = False
    await client.post("/v1/chat/completions", json=CHAT)
    told = await scrape(client)
    assert told["salver_refusals_total{404,deployment.model}"] == 1
    assert told["salver_refusals_total{422,header.x-salver-class}"] == 1
    assert told["salver_refusals_total{503,backend.ready}"] == 1
    assert told["salver_ready{}"] == 0
    assert not [name for name in told if name.startswith("salver_requests_total")]


async def test_tokens(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    backend.cached_tokens = 2
    await client.post("/v1/completions", json={"model": "tiny", "prompt": [1, 2, 3], "n": 2})
    told = await scrape(client)
    assert told["salver_tokens_total{prompt}"] == 3
    assert told["salver_tokens_total{cached}"] == 2
    assert told["salver_tokens_total{output}"] == 24
