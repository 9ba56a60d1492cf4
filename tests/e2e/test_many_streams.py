"""Laws 2 and 3 over HTTP: 64 streams at once say what each says alone, and leave nothing behind."""

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

STREAMS = 64
SUBJECTS = ["the sea", "a lighthouse", "prime numbers", "bread", "winter", "a lost key", "trains"]


def call(index: int) -> dict[str, object]:
    """Mixed prompts, lengths and sampling; some share a long prefix, some share none."""
    subject = SUBJECTS[index % len(SUBJECTS)]
    prefix = "You are a patient teacher who answers with care. " * (index % 4 * 3)
    return {
        "model": "smollm2",
        "prompt": f"{prefix}Write {index} words about {subject}.",
        "max_tokens": 4 + index * 7 % 29,
        "temperature": 0.0 if index % 3 else 0.9,
        "seed": index,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def stream(client: httpx.AsyncClient, index: int) -> tuple[str, int]:
    """The text of one stream, and how many tokens it says it holds."""
    text, tokens = "", -1
    async with client.stream("POST", "/v1/completions", json=call(index)) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            text += "".join(choice["text"] for choice in event["choices"])
            tokens = (event["usage"] or {"completion_tokens": tokens})["completion_tokens"]
    return text, tokens


async def test_64_streams_at_once_equal_each_alone(server: "Server") -> None:
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(base_url=server.url, timeout=240, limits=limits) as client:
        together = await asyncio.gather(*(stream(client, index) for index in range(STREAMS)))
        assert server.metric("vllm:kv_cache_usage_perc") == 0
        alone = [await stream(client, index) for index in range(0, STREAMS, 3)]
    assert [tokens for _, tokens in together] == [4 + index * 7 % 29 for index in range(STREAMS)]
    assert alone == together[::3]
    assert server.metric("vllm:num_requests_running") == 0
    assert server.metric("vllm:num_requests_waiting") == 0
    assert server.metric("vllm:kv_cache_usage_perc") == 0
