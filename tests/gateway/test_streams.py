"""The bytes of server-sent events, and what becomes of a stream that breaks."""

import json
from typing import Any

import httpx
import pytest

from salver.contract import Action, Cause, Decision, Outcome, TokenChunk
from salver.gateway.chunks import EventFrame
from salver.gateway.wire.chat import ChatCompletionChunk
from salver.gateway.wire.completion import CompletionChunk
from salver.testing import FakeBackend

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TEXT = {"model": "tiny", "prompt": "hi", "stream": True}


def events(body: bytes) -> list[Any]:
    """The parsed `data:` lines; everything between them must be one empty line."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [b if b == "[DONE]" else json.loads(b) for b in (x[6:].decode() for x in blocks)]


async def test_the_bytes_of_a_chat_stream(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    backend.pieces = ('quote " and\nline',)
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    first = json.loads(answer.content.split(b"\n\n")[0][6:])
    head = (
        b'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":"tiny",'
        b'"system_fingerprint":"release-1","choices":[{"index":0,'
        % (first["id"].encode(), first["created"])
    )
    none = b'"logprobs":null,"finish_reason":null}]}\n\n'
    assert answer.content == (
        head + b'"delta":{"role":"assistant","content":""},' + none
        + head + b'"delta":{"content":"quote \\" and\\nline"},' + none
        + head + b'"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}\n\n'
        + b"data: [DONE]\n\n"
    )  # fmt: skip


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("logprobs", [False, True])
async def test_every_event_is_a_documented_chunk(
    client: httpx.AsyncClient, *, usage: bool, logprobs: bool
) -> None:
    options = {"stream_options": {"include_usage": usage}, "n": 2}
    chat = {"logprobs": True, "top_logprobs": 2} if logprobs else {}
    text = {"logprobs": 2, "echo": True} if logprobs else {}
    chats = await client.post("/v1/chat/completions", json=CHAT | options | chat)
    texts = await client.post("/v1/completions", json=TEXT | options | text)
    for event in events(chats.content)[:-1]:
        ChatCompletionChunk.model_validate(event)
    for event in events(texts.content)[:-1]:
        CompletionChunk.model_validate(event)
    assert events(chats.content)[-1] == events(texts.content)[-1] == "[DONE]"
    assert ("usage" in events(texts.content)[0]) is usage


async def test_continuous_usage_counts_the_whole_call_so_far(client: httpx.AsyncClient) -> None:
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    body = {**TEXT, "prompt": ["a", "b"], "n": 2, **options}
    *told, last = events((await client.post("/v1/completions", json=body)).content)[:-1]
    counts = [event["usage"]["completion_tokens"] for event in told]
    assert counts == sorted(counts)
    assert len(set(counts)) > 4  # of four choices with several tokens each
    assert counts[-1] == last["usage"]["completion_tokens"]
    for usage in (event["usage"] for event in told):
        assert usage["prompt_tokens"] == last["usage"]["prompt_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    for event in told:
        CompletionChunk.model_validate(event)


def test_continuous_usage_counts_tokens_that_are_not_shown() -> None:
    frame = EventFrame(
        "text_completion", call_id="c", created=0, model="m", release="r",
        prompt_tokens=5, include_usage=True, continuous=True,
    )  # fmt: skip
    frame.count(TokenChunk("c", 0, (1, 2), ""))  # half a character
    frame.count(TokenChunk("c", 0, (3,), "é"))
    frame.count(TokenChunk("c", 0, text="xy", unnamed_tokens=2))  # of another server
    (event,) = events(frame.choice(0, b'"text":"x"'))
    assert event["usage"]["completion_tokens"] == 5
    assert event["usage"]["total_tokens"] == 10


async def test_continuous_usage_alone_asks_for_none(client: httpx.AsyncClient) -> None:
    options = {"stream_options": {"continuous_usage_stats": True}}
    answer = await client.post("/v1/completions", json=TEXT | options)
    assert b'"usage"' not in answer.content


async def test_choices_of_several_prompts_share_one_stream(client: httpx.AsyncClient) -> None:
    body = {"model": "tiny", "prompt": ["a", "b"], "n": 2, "stream": True, "echo": True}
    answer = await client.post("/v1/completions", json=body)
    texts: dict[int, str] = {}
    for event in events(answer.content)[:-1]:
        choice = event["choices"][0]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == {i: ("a" if i < 2 else "b") + "Héllo there" for i in range(4)}


async def test_logprobs_follow_tokens_that_have_no_text_yet(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.pieces = ("",)
    body = {**CHAT, "logprobs": True}
    assert len(events((await client.post("/v1/chat/completions", json=body)).content)) == 3


@pytest.mark.parametrize(("path", "body"), [("chat/completions", CHAT), ("completions", TEXT)])
async def test_an_error_before_the_first_chunk_keeps_its_status(
    client: httpx.AsyncClient, backend: FakeBackend, path: str, body: dict[str, object]
) -> None:
    backend.dies_after = 0
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "backend_lost"
    backend.refusal = Decision(
        "d-2", "request.deadline_seconds", 2, 1, Action.REFUSE, Cause.DEADLINE, "cannot be met"
    )
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 504
    assert answer.json()["error"]["decision"] == answer.headers["x-salver-decision"] == "d-2"


@pytest.mark.parametrize(("path", "body"), [("chat/completions", CHAT), ("completions", TEXT)])
async def test_a_stream_that_breaks_ends_with_its_error_and_no_done(
    client: httpx.AsyncClient, backend: FakeBackend, path: str, body: dict[str, object]
) -> None:
    backend.dies_after = 2
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 200
    last = events(answer.content)[-1]
    assert last["error"]["code"] == "backend_lost"
    assert b"[DONE]" not in answer.content


async def test_an_expired_stream_says_so(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    backend.outcome = Outcome.EXPIRED
    answer = await client.post("/v1/chat/completions", json=CHAT)
    error = events(answer.content)[-1]["error"]
    assert (error["type"], error["code"]) == ("timeout_error", "deadline_exceeded")
    assert error["rule"] == "request.deadline_seconds"
    assert error["limit"] == 20.0
    assert "cancel" not in answer.text


async def test_a_stream_that_ends_early_is_not_a_finished_one(
    client: httpx.AsyncClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_finish", lambda *_, **__: None)
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert events(answer.content)[-1]["error"]["rule"] == "backend.complete"


async def test_a_bug_mid_stream_is_told_by_request_id_alone(
    client: httpx.AsyncClient,
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(backend, "_finish", broken)
    headers = {"x-request-id": "find-me"}
    answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    error = events(answer.content)[-1]["error"]
    assert error["code"] == "internal_error"
    assert "find-me" in error["message"]
    assert "secret" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    assert "find-me" in caplog.text
