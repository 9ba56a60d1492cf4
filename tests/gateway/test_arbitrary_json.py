"""Whatever the body says, the answer is one of the documented ones, and it comes."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salver.gateway.wire.chat import ChatCompletionRequest
from salver.gateway.wire.completion import CompletionRequest
from salver.gateway.wire.errors import ErrorBody

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
names = sorted({*ChatCompletionRequest.model_fields, *CompletionRequest.model_fields})
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": anything}
    ),
    max_size=3,
)
bodies = anything | st.builds(
    lambda fields, prompt, chat: {"model": "tiny", "prompt": prompt, "messages": chat, **fields},
    st.dictionaries(st.sampled_from(names), anything, max_size=4),
    st.text(max_size=5) | anything,
    messages | anything,
)
near_misses = st.builds(
    lambda fields: {"model": "tiny", **fields},
    st.dictionaries(st.sampled_from(names), scalars, max_size=3),
)


async def answer_to(app: FastAPI, path: str, body: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        async with asyncio.timeout(5):
            return await client.post(path, json=body)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"]
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies | near_misses)
def test_no_body_makes_a_500(app: FastAPI, path: str, body: Any) -> None:
    answer = asyncio.run(answer_to(app, path, body))
    assert answer.status_code in {200, 400, 404, 413, 422}, (body, answer.text)
    if answer.status_code != 200:
        ErrorBody.model_validate_json(answer.content)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=40))
def test_no_bytes_make_a_500(app: FastAPI, body: bytes) -> None:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
            return await client.post(
                "/v1/completions", content=body, headers={"content-type": "application/json"}
            )

    assert asyncio.run(send()).status_code == 400
