"""The table of bad inputs: each with its status, the field at fault, and the rule it broke."""

import json
from typing import Any

import httpx
import pytest

from salver.models import ChatTemplate, Tokenizer
from salver.testing import FakeBackend

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = {"role": "user", "content": "hi"}
LONG = "x" * 5000
IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}

# path, fields beside `model` (or over it), status, param, rule
FIELDS: list[tuple[str, dict[str, Any], int, str | None, str]] = [
    # missing or unknown
    (TEXT, {}, 400, "prompt", "request.missing"),
    (TEXT, {"prompt": "a", "model": None}, 400, "model", "request.string_type"),
    (TEXT, {"prompt": "a", "model": "other"}, 404, "model", "deployment.model"),
    (TEXT, {"prompt": "a", "tempratur": 1}, 400, "tempratur", "request.unknown_field"),
    (CHAT, {"messages": [{**HI, "mood": 1}]}, 400, "messages[0].mood", "request.unknown_field"),
    # wrong types
    (TEXT, {"prompt": 5}, 400, "prompt", "request.list_type"),
    (TEXT, {"prompt": {"a": 1}}, 400, "prompt", "request.list_type"),
    (TEXT, {"prompt": [1, "a"]}, 400, "prompt[1]", "request.int_type"),
    (TEXT, {"prompt": ["a", 1]}, 400, "prompt[1]", "request.string_type"),
    (TEXT, {"prompt": [[1], [True]]}, 400, "prompt[1][0]", "request.int_type"),
    (TEXT, {"prompt": "a", "max_tokens": "5"}, 400, "max_tokens", "request.int_type"),
    (TEXT, {"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens", "request.int_type"),
    (TEXT, {"prompt": "a", "temperature": True}, 400, "temperature", "request.float_type"),
    (TEXT, {"prompt": "a", "stream": 1}, 400, "stream", "request.bool_type"),
    (TEXT, {"prompt": "a", "stop": 5}, 400, "stop", "request.list_type"),
    (CHAT, {"messages": "hi"}, 400, "messages", "request.list_type"),
    (CHAT, {"messages": [{"content": "a"}]}, 400, "messages[0]", "request.union_tag_not_found"),
    (CHAT, {"messages": [{**HI, "role": "cat"}]}, 400, "messages[0]", "request.union_tag_invalid"),
    (CHAT, {"messages": [{"role": "user"}]}, 400, "messages[0].content", "request.missing"),
    # well-formed, not allowed
    (TEXT, {"prompt": "a", "max_tokens": -1}, 422, "max_tokens", "request.greater_than_equal"),
    (TEXT, {"prompt": "a", "max_tokens": 0}, 422, "max_tokens", "request.greater_than_equal"),
    (TEXT, {"prompt": "a", "max_tokens": 201}, 422, "max_tokens", "envelope.max_output_tokens"),
    (TEXT, {"prompt": [1] * 1990, "max_tokens": 11}, 422, "max_tokens", "envelope.max_context_tokens"),
    (TEXT, {"prompt": "a", "min_tokens": 17}, 422, "min_tokens", "request.min_tokens"),
    (TEXT, {"prompt": "a", "temperature": 5}, 422, "temperature", "request.less_than_equal"),
    (TEXT, {"prompt": "a", "top_p": 0}, 422, "top_p", "request.greater_than"),
    (TEXT, {"prompt": "a", "top_k": -2}, 422, "top_k", "request.greater_than_equal"),
    (TEXT, {"prompt": "a", "min_p": 1.1}, 422, "min_p", "request.less_than_equal"),
    (TEXT, {"prompt": "a", "presence_penalty": 3}, 422, "presence_penalty", "request.less_than_equal"),
    (TEXT, {"prompt": "a", "repetition_penalty": 0}, 422, "repetition_penalty", "request.greater_than_equal"),
    (TEXT, {"prompt": "a", "n": 0}, 422, "n", "request.greater_than_equal"),
    (TEXT, {"prompt": "a", "n": 17}, 422, "n", "gateway.max_choices"),
    (TEXT, {"prompt": ["a"] * 17}, 422, "prompt", "gateway.max_choices"),
    (TEXT, {"prompt": "a", "seed": 2**64}, 422, "seed", "request.less_than"),
    (TEXT, {"prompt": "a", "logprobs": 21}, 422, "logprobs", "request.less_than_equal"),
    (TEXT, {"prompt": "a", "stop": ["a"] * 17}, 422, "stop", "request.too_long"),
    (TEXT, {"prompt": "a", "stop": ""}, 422, "stop", "request.string_too_short"),
    (TEXT, {"prompt": "a", "stop_token_ids": [257]}, 422, "stop_token_ids", "model.vocab_size"),
    (TEXT, {"prompt": "a", "logit_bias": {"257": 1}}, 422, "logit_bias", "model.vocab_size"),
    (TEXT, {"prompt": "a", "logit_bias": {"1": 101}}, 422, "logit_bias.1", "request.less_than_equal"),
    (TEXT, {"prompt": "a", "logit_bias": {"x": 1}}, 422, "logit_bias.x", "request.string_pattern_mismatch"),
    (TEXT, {"prompt": "a", "prompt_logprobs": 1, "stream": True}, 422, "prompt_logprobs", "request.prompt_logprobs"),
    (TEXT, {"prompt": "a", "stream_options": {}}, 422, "stream_options", "request.stream_options"),
    (TEXT, {"prompt": [5, 257]}, 422, "prompt", "model.vocab_size"),
    (TEXT, {"prompt": [[5], [257]]}, 422, "prompt[1]", "model.vocab_size"),
    (TEXT, {"prompt": [-1]}, 422, "prompt[0]", "request.greater_than_equal"),
    (TEXT, {"prompt": ""}, 422, "prompt", "request.empty_prompt"),
    (TEXT, {"prompt": []}, 422, "prompt", "request.empty_prompt"),
    (TEXT, {"prompt": [[]]}, 422, "prompt", "request.empty_prompt"),
    (TEXT, {"prompt": ["a", ""]}, 422, "prompt[1]", "request.empty_prompt"),
    (CHAT, {"messages": []}, 422, "messages", "request.too_short"),
    (CHAT, {"messages": [{"role": "assistant"}]}, 422, "messages[0].content", "request.empty_message"),
    (CHAT, {"messages": [HI], "top_logprobs": 1}, 422, "top_logprobs", "request.top_logprobs"),
    (CHAT, {"messages": [HI], "max_tokens": 1, "max_completion_tokens": 2}, 422, "max_completion_tokens", "request.max_completion_tokens"),
    # known, not implemented
    (TEXT, {"prompt": "a", "best_of": 2}, 400, "best_of", "request.unsupported_option"),
    (TEXT, {"prompt": "a", "suffix": "z"}, 400, "suffix", "request.unsupported_option"),
    (CHAT, {"messages": [HI], "response_format": {"type": "json_object"}}, 400, "response_format", "request.unsupported_option"),
    (CHAT, {"messages": [HI], "store": True}, 400, "store", "request.unsupported_option"),
    (CHAT, {"messages": [HI], "modalities": ["audio"]}, 400, "modalities", "request.unsupported_option"),
    (CHAT, {"messages": [HI], "reasoning_effort": "low"}, 400, "reasoning_effort", "request.unsupported_option"),
    (CHAT, {"messages": [HI], "tool_choice": "required"}, 400, "tool_choice", "request.unsupported_option"),
    (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, 400, "messages[0].content[0].type", "request.literal_error"),
    # over the envelope
    (TEXT, {"prompt": LONG}, 413, "prompt", "envelope.max_context_tokens"),
    (TEXT, {"prompt": ["a", LONG]}, 413, "prompt[1]", "envelope.max_context_tokens"),
    (TEXT, {"prompt": "x" * 1999}, 413, "prompt", "envelope.max_context_tokens"),
    (TEXT, {"prompt": [1] * 2000}, 413, "prompt", "envelope.max_context_tokens"),
    (CHAT, {"messages": [{"role": "user", "content": LONG}]}, 413, "messages", "envelope.max_context_tokens"),
    (TEXT, {"prompt": "x" * 70_000}, 413, None, "gateway.max_body_bytes"),
    (TEXT, {"prompt": "a", "user": {str(i): 1 for i in range(5000)}}, 413, None, "json.max_members"),
    ("/tokenize", {}, 400, "prompt", "request.missing"),
    ("/tokenize", {"prompt": "a", "messages": [HI]}, 400, "prompt", "request.unknown_field"),
    ("/detokenize", {"tokens": [257]}, 422, "tokens", "model.vocab_size"),
    ("/detokenize", {"tokens": [1] * 2001}, 413, "tokens", "envelope.max_context_tokens"),
    ("/detokenize", {"tokens": [1], "model": "x"}, 404, "model", "deployment.model"),
]  # fmt: skip

RAW: list[tuple[bytes, str]] = [
    (b"", "json.syntax"),
    (b"{", "json.syntax"),
    (b"{'model': 1}", "json.syntax"),
    (b'{"model":"tiny","prompt":"\xff"}', "json.utf8"),
    (b'\xef\xbb\xbf{"model":"tiny"}', "json.syntax"),
    (b'{"model":"tiny","prompt":"\\ud800"}', "json.surrogates"),
    (b'{"model":"tiny","prompt":"a","temperature":NaN}', "json.number"),
    (b'{"model":"tiny","prompt":"a","temperature":-Infinity}', "json.number"),
    (b'{"model":"tiny","prompt":"a","temperature":1e999}', "json.number"),
    (b'{"model":"tiny","prompt":"a","seed":' + b"9" * 5000 + b"}", "json.number"),
    (b'{"model":"tiny","prompt":"a","prompt":"b"}', "json.unique_keys"),
    (b'{"prompt":' + b"[" * 100 + b"]" * 100 + b"}", "json.max_depth"),
    (b"[" * 60_000, "json.max_depth"),
    (b"[]", "request.model_attributes_type"),
    (b"null", "request.model_attributes_type"),
    (b'"text"', "request.model_attributes_type"),
]

HEADERS: list[tuple[dict[str, str], int, str]] = [
    ({"x-request-id": "new\tline"}, 422, "x-request-id"),
    ({"x-request-id": "a" * 129}, 422, "x-request-id"),
    ({"request-timeout-ms": "0"}, 422, "request-timeout-ms"),
    ({"request-timeout-ms": "-5"}, 422, "request-timeout-ms"),
    ({"request-timeout-ms": "1.5"}, 422, "request-timeout-ms"),
    ({"request-timeout-ms": "9" * 40}, 422, "request-timeout-ms"),
    ({"x-salver-class": "urgent"}, 422, "x-salver-class"),
    ({"content-type": "text/plain"}, 400, "content-type"),
    ({"content-type": "application/x-www-form-urlencoded"}, 400, "content-type"),
]


def check(answer: httpx.Response, status: int, param: str | None, rule: str | None) -> None:
    error = answer.json()["error"]
    told = (answer.status_code, error["param"], error["rule"])
    assert told == (status, param, rule or error["rule"]), answer.text
    assert set(error) == {
        "message", "type", "param", "code", "rule", "value", "limit", "decision",
    }  # fmt: skip
    assert error["message"]
    assert len(answer.text) < 1000  # nothing long is repeated
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(("path", "fields", "status", "param", "rule"), FIELDS)
async def test_fields(
    client: httpx.AsyncClient,
    backend: FakeBackend,
    path: str,
    fields: dict[str, Any],
    status: int,
    param: str | None,
    rule: str,
) -> None:
    answer = await client.post(path, json={"model": "tiny", **fields})
    check(answer, status, param, rule)
    assert not backend.requests  # refused before anything was computed


@pytest.mark.parametrize(("body", "rule"), RAW)
async def test_bodies(client: httpx.AsyncClient, body: bytes, rule: str) -> None:
    answer = await client.post(TEXT, content=body, headers={"content-type": "application/json"})
    check(answer, 400, None, rule)


@pytest.mark.parametrize(("headers", "status", "param"), HEADERS)
async def test_headers(
    client: httpx.AsyncClient, headers: dict[str, str], status: int, param: str
) -> None:
    body = json.dumps({"model": "tiny", "prompt": "a"})
    answer = await client.post(
        TEXT, content=body, headers={"content-type": "application/json", **headers}
    )
    check(answer, status, param, None)


async def test_what_cannot_fit_is_refused_before_it_is_tokenized(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "encode", None)
    monkeypatch.setattr(ChatTemplate, "render", None)
    for path, body in (
        (TEXT, {"prompt": "x" * 2001}),
        (TEXT, {"prompt": ["a" * 2001, "a"]}),
        (CHAT, {"messages": [{"role": "user", "content": "é" * 1001}]}),
        ("/tokenize", {"prompt": "x" * 2001}),
    ):
        answer = await client.post(path, json={"model": "tiny", **body})
        assert answer.status_code == 413, path
        assert "at least" in answer.json()["error"]["message"]


async def test_no_such_path_and_no_such_method(client: httpx.AsyncClient) -> None:
    check(await client.get("/v1/nothing"), 404, None, "http.not_found")
    refused = await client.get(TEXT)
    check(refused, 405, None, "http.method_not_allowed")
    assert refused.headers["allow"] == "POST"


async def test_defaults_of_unimplemented_options_are_accepted(client: httpx.AsyncClient) -> None:
    no_ops = {
        "response_format": {"type": "text"}, "n": 1, "best_of": 1, "store": False, "metadata": None,
        "logit_bias": None, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
        "modalities": ["text"], "service_tier": "auto", "length_penalty": 1, "priority": 0,
        "use_beam_search": False, "stop": None, "seed": None, "max_tokens": None, "user": "me",
        "functions": [], "stream_options": None, "top_k": -1,
    }  # fmt: skip
    answer = await client.post(CHAT, json={"model": "tiny", "messages": [HI], **no_ops})
    assert answer.status_code == 200, answer.text


async def test_harmless_headers_pass(client: httpx.AsyncClient) -> None:
    headers = {
        "authorization": "Bearer sk-none",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-session-id": "s",
        "x-request-id": "mine-1",
        "content-type": "application/json; charset=utf-8",
    }
    body = json.dumps({"model": "tiny", "prompt": "a"})
    answer = await client.post(TEXT, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-salver-release"] == "release-1"


async def test_several_faults_are_counted(client: httpx.AsyncClient) -> None:
    answer = await client.post(TEXT, json={"model": "tiny", "prompt": "a", "n": 0, "top_p": 2})
    assert "(and 1 more)" in answer.json()["error"]["message"]


async def test_a_prompt_is_never_repeated(client: httpx.AsyncClient) -> None:
    secret = "the patient's name is " + "y" * 200
    answer = await client.post(TEXT, json={"model": "tiny", "prompt": "a", "temperature": secret})
    assert answer.json()["error"]["value"] == secret[:64] + "…"


async def test_a_bug_is_a_500_with_its_id_and_no_trace(
    client: httpx.AsyncClient,
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(backend, "_admit", broken)
    answer = await client.post(
        TEXT, json={"model": "tiny", "prompt": "a"}, headers={"x-request-id": "find-me"}
    )
    check(answer, 500, None, None)
    assert "find-me" in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert "secret inside" in caplog.text
