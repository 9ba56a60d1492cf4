"""Health, readiness, versions, models, tokens, docs: what a person or a router asks."""

import httpx
import pytest

from salver import __version__
from salver.testing import FakeBackend


async def test_alive_is_not_ready(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    assert (await client.get("/ready")).json()["status"] == "ready"
    backend.ready = False
    refused = await client.get("/ready")
    assert (refused.status_code, refused.json()["error"]["rule"]) == (503, "deployment.ready")
    alive = await client.get("/health")
    assert alive.status_code == 200
    assert alive.json()["mode"] == "development"
    assert alive.json()["owner"] == "owner@example.com"


async def test_version(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/version")).json()
    assert (answer["version"], answer["release"]) == (__version__, "release-1")


async def test_the_model_says_its_context(client: httpx.AsyncClient) -> None:
    card = (await client.get("/v1/models")).json()["data"][0]
    assert (card["id"], card["root"], card["max_model_len"]) == ("tiny", "release-1", 2000)


async def test_tokenize_and_back(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    told = (await client.post("/tokenize", json={"prompt": "aé", "return_token_strs": True})).json()
    assert told["tokens"] == [256, 97, 195, 169]
    assert told["token_strs"] == ["<s>", "a", "\ufffd", "\ufffd"]
    assert (told["count"], told["max_model_len"]) == (4, 2000)
    back = await client.post("/detokenize", json={"tokens": told["tokens"]})
    assert back.json() == {"prompt": "<s>aé"}
    assert not backend.requests


async def test_tokenizing_a_chat_counts_what_a_chat_would(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    told = (await client.post("/tokenize", json=chat)).json()
    await client.post("/v1/chat/completions", json={"model": "tiny", **chat})
    assert tuple(told["tokens"]) == backend.requests[0].prompt_token_ids
    assert told["token_strs"] is None


async def test_docs_need_no_internet(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    for file in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/ui/{file}" in page
        assert (await client.get(f"/docs/ui/{file}")).status_code == 200
    # A Swagger UI before version 5 shows an error instead of an OpenAPI 3.1 document.
    assert "isOAS31" in (await client.get("/docs/ui/swagger-ui-bundle.js")).text


@pytest.mark.parametrize("path", ["/docs/ui/../__init__.py", "/docs/ui/%2e%2e/%2e%2e/__init__.py"])
async def test_docs_serve_nothing_else(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404
