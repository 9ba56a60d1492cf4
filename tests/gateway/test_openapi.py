"""/openapi.json is true: real requests and answers, good and bad, fit what it says."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from salver.contract import Action, Cause, Decision, Outcome
from salver.gateway import Limits, Served, create_app
from salver.testing import FakeBackend

HI = {"role": "user", "content": "hi"}
CHAT = {"model": "tiny", "messages": [HI]}
TEXT = {"model": "tiny", "prompt": "a"}


def faults(value: Any, schema: Any, document: Any, at: str = "$") -> Iterator[str]:
    """Where a value does not fit a JSON Schema, for the keywords that our document uses."""
    if reference := schema.get("$ref"):
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    for options in (schema.get("anyOf"), schema.get("oneOf")):
        if options and all(list(faults(value, option, document)) for option in options):
            yield f"{at}: fits no alternative"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: not in {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{at}: not {schema['const']}"
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool,
             "number": (int, float), "null": type(None)}  # fmt: skip
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        yield f"{at}: not {schema['type']}"
        return
    if isinstance(value, dict):
        yield from _member_faults(value, schema, document, at)
    for item in value if isinstance(value, list) and "items" in schema else ():
        yield from faults(item, schema["items"], document, f"{at}[]")


def _member_faults(value: Any, schema: Any, document: Any, at: str) -> Iterator[str]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{at}.{name}: missing" for name in schema.get("required", ()) if name not in value)
    for name, member in value.items():
        if name in known or isinstance(rest, dict):
            yield from faults(member, known.get(name, rest), document, f"{at}.{name}")
        elif not rest:
            yield f"{at}.{name}: unknown"


@pytest.fixture(scope="module")
def document(tokenizer: Any) -> Any:
    """What /openapi.json serves, made once."""
    backend = FakeBackend()
    app = create_app(
        Served("tiny", "d", "r", "o"),
        Limits(2000, 200, 20.0),
        backend=backend,
        tokenizer=tokenizer,
        chat_template=None,
        ready=lambda: True,
    )

    async def fetch() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
            return (await client.get("/openapi.json")).json()

    return asyncio.run(fetch())


def answer_schema(document: Any, path: str, method: str, status: int, media: str) -> Any:
    return document["paths"][path][method]["responses"][str(status)]["content"][media]["schema"]


def body_schema(document: Any, path: str) -> Any:
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


REFUSAL = Decision("d", "some.rule", 2, 1, Action.REFUSE, Cause.CALLER, "no")

# path, body, status, what to script on the backend
POSTS: list[tuple[str, Any, int, dict[str, Any]]] = [
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 1}, 200, {}),
    ("/v1/chat/completions", {**CHAT, "prompt_logprobs": 1}, 200, {"matched": 5}),
    ("/v1/completions", {**TEXT, "echo": True, "logprobs": 1}, 200, {"matched": "x"}),
    ("/v1/completions", {**TEXT, "prompt_logprobs": 1}, 200, {}),
    ("/tokenize", {"prompt": "a", "return_token_strs": True}, 200, {}),
    ("/tokenize", {"messages": [HI]}, 200, {}),
    ("/detokenize", {"tokens": [1]}, 200, {}),
    ("/v1/chat/completions", {**CHAT, "nope": 1}, 400, {}),
    ("/v1/chat/completions", {**CHAT, "model": "x"}, 404, {}),
    ("/v1/completions", {**TEXT, "prompt": "x" * 3000}, 413, {}),
    ("/v1/completions", {**TEXT, "n": 0}, 422, {}),
    ("/v1/completions", TEXT, 429, {"refusal": REFUSAL}),
    ("/v1/completions", TEXT, 503, {"ready": False}),
    ("/v1/completions", TEXT, 503, {"dies_after": 0}),
    ("/v1/completions", TEXT, 504, {"outcome": Outcome.EXPIRED}),
    ("/v1/completions", TEXT, 500, {"outcome": Outcome.FAILED}),
    ("/v1/completions", TEXT, 500, {"pieces": 5}),
    ("/detokenize", {"tokens": "a"}, 400, {}),
    ("/tokenize", {"prompt": "a", "model": "x"}, 404, {}),
]


@pytest.mark.parametrize(("path", "body", "status", "script"), POSTS)
async def test_answers_are_as_documented(
    client: httpx.AsyncClient,
    document: Any,
    backend: FakeBackend,
    path: str,
    body: Any,
    status: int,
    script: dict[str, Any],
) -> None:
    for name, value in script.items():
        setattr(backend, name, value)
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    schema = answer_schema(document, path, "post", status, "application/json")
    assert list(faults(answer.json(), schema, document)) == []
    if status == 200:
        assert list(faults(body, body_schema(document, path), document)) == []


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/health", "/ready", "/version"])
async def test_gets_are_as_documented(client: httpx.AsyncClient, document: Any, path: str) -> None:
    told = path.replace("tiny", "{model}")
    answer = await client.get(path)
    schema = answer_schema(document, told, "get", 200, "application/json")
    assert list(faults(answer.json(), schema, document)) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/chat/completions", "ChatCompletionChunk"), ("/v1/completions", "CompletionChunk")],
)
async def test_streams_are_documented_by_their_events(document: Any, path: str, kind: str) -> None:
    schema = answer_schema(document, path, "post", 200, "text/event-stream")
    assert schema["$ref"].endswith(f"/{kind}")
    assert kind in document["components"]["schemas"]


async def test_requests_are_closed_and_null_is_said_to_be_allowed(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name in ("ChatCompletionRequest", "CompletionRequest", "TokenizeText", "UserMessage"):
        assert schemas[name]["additionalProperties"] is False, name
    best_of = schemas["CompletionRequest"]["properties"]["best_of"]
    assert best_of["enum"] == [1, None]


async def test_the_headers_of_a_call_are_documented(document: Any) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        names = {each["name"] for each in document["paths"][path]["post"]["parameters"]}
        assert names == {"Request-Timeout-Ms", "x-request-id"}, path


async def test_every_reference_leads_somewhere(document: Any) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else ())
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= set(document["components"]["schemas"])


async def test_no_error_is_documented_in_the_frameworks_shape(document: Any) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/ErrorBody"), (path, method, status)
