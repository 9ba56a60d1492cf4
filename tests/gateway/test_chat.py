"""Conversations: contents, roles, tools, templates."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from salver.gateway import Limits, Served, create_app
from salver.models import ChatTemplate, Tokenizer
from salver.testing import FakeBackend

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}


async def chat(client: httpx.AsyncClient, *messages: object, **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": messages, **fields}
    return await client.post("/v1/chat/completions", json=body)


def prompt(backend: FakeBackend) -> str:
    return bytes(backend.requests[-1].prompt_token_ids).decode()


async def test_roles_and_parts(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    answer = await chat(
        client, {"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}
    )
    assert answer.status_code == 200
    assert prompt(backend) == "system:be brief\nuser:one\ntwo\nassistant:"


async def test_an_answer_can_be_sent_back(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    first = (await chat(client, {"role": "user", "content": "hi"})).json()
    answer = await chat(client, first["choices"][0]["message"], {"role": "user", "content": "?"})
    assert answer.status_code == 200
    assert prompt(backend).startswith("assistant:Héllo there\nuser:?")


async def test_the_generation_prompt_can_be_left_out(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    await chat(client, {"role": "user", "content": "hi"}, add_generation_prompt=False)
    assert prompt(backend) == "user:hi\n"


async def test_tools_are_shown_only_to_who_asks_for_text(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    message = {"role": "user", "content": "hi"}
    for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": "required"}):
        refused = await chat(client, message, tools=[TOOL], **choice)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] in {"tools", "tool_choice"}
    answer = await chat(client, message, tools=[TOOL], tool_choice="none")
    assert answer.status_code == 200
    assert prompt(backend) == "tools:1\nuser:hi\nassistant:"


async def test_earlier_tool_calls_reach_the_template(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    answer = await chat(
        client,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    )
    assert answer.status_code == 200
    assert prompt(backend) == "assistant: look(1)\ntool:seen\nassistant:"


# Reads roles and contents and nothing else, as many small models' templates do.
DEAF = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"


@pytest.fixture
def deaf(backend: FakeBackend, limits: Limits, tokenizer: Tokenizer) -> FastAPI:
    return create_app(
        Served("tiny", "d", "r", "o"),
        limits,
        backend=backend,
        tokenizer=tokenizer,
        chat_template=ChatTemplate(DEAF, bos_token="", eos_token=""),
        ready=lambda: True,
    )


async def test_a_template_that_would_drop_tools_is_refused_by_name(deaf: FastAPI) -> None:
    transport = httpx.ASGITransport(deaf)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        user = {"role": "user", "content": "hi"}
        shown = await chat(client, user, tools=[TOOL], tool_choice="none")
        called = await chat(client, {"role": "assistant", "content": "", "tool_calls": [CALL]})
        assert (await chat(client, user)).status_code == 200
    assert [shown.status_code, called.status_code] == [400, 400]
    assert shown.json()["error"]["param"] == "tools"
    assert called.json()["error"]["param"] == "messages"


async def test_no_template_no_chat(
    backend: FakeBackend, limits: Limits, tokenizer: Tokenizer
) -> None:
    app = create_app(
        Served("tiny", "d", "r", "o"),
        limits,
        backend=backend,
        tokenizer=tokenizer,
        chat_template=None,
        ready=lambda: True,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        answer = await chat(client, {"role": "user", "content": "hi"})
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]


async def test_a_message_cannot_speak_in_control_tokens(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    await chat(client, {"role": "user", "content": "<s>"})
    assert prompt(backend) == "user:<s>\nassistant:"  # its bytes; as one token it would be id 256


async def test_a_template_that_refuses_says_why(
    backend: FakeBackend, limits: Limits, tokenizer: Tokenizer
) -> None:
    app = create_app(
        Served("tiny", "d", "r", "o"),
        limits,
        backend=backend,
        tokenizer=tokenizer,
        chat_template=ChatTemplate(
            "{{ raise_exception('roles must alternate') }}", bos_token="", eos_token=""
        ),
        ready=lambda: True,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        answer = await chat(client, {"role": "user", "content": "hi"})
    assert answer.status_code == 422
    assert "roles must alternate" in answer.json()["error"]["message"]


async def test_a_template_that_misbehaves_is_not_the_callers_fault(
    backend: FakeBackend, limits: Limits, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(
        Served("tiny", "d", "r", "o"),
        limits,
        backend=backend,
        tokenizer=tokenizer,
        chat_template=ChatTemplate(
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            bos_token="",
            eos_token="",
        ),
        ready=lambda: True,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        answer = await chat(client, {"role": "user", "content": "hi"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "cannot be trusted" in caplog.text
