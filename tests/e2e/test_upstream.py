"""One Salver in front of another, and in front of nothing."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

EXAMPLE = Path(__file__).parents[2] / "examples/upstream-salver.yaml"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

pytestmark = pytest.mark.model


def ask(server: "Server", model: str, **more: object) -> httpx.Response:
    body = {"model": model, "messages": QUESTION, "max_tokens": 12, "temperature": 0, **more}
    with server.client() as client:
        return client.post("/v1/chat/completions", json=body)


@pytest.fixture
def front(own_server: Callable[..., "Server"], tmp_path: Path) -> Callable[..., "Server"]:
    """Starts a Salver in front of a URL."""

    def begin(url: str, more: str = "") -> "Server":
        contract = tmp_path / "front.yaml"
        text = EXAMPLE.read_text().replace("http://127.0.0.1:8000", url)
        contract.write_text(f"{text}{more}\n")
        return own_server(contract)

    return begin


def test_the_answer_is_that_of_the_server_behind(
    server: "Server", front: Callable[..., "Server"]
) -> None:
    before = front(server.url)
    assert httpx.get(f"{before.url}/ready").status_code == 200
    ours, theirs = ask(before, "front").json(), ask(server, "smollm2").json()
    assert ours["model"] == "front"
    assert ours["choices"] == theirs["choices"]
    for count in ("prompt_tokens", "completion_tokens"):
        assert ours["usage"][count] == theirs["usage"][count]
    assert before.metric("salver_tokens_total") > 0


def test_what_the_server_behind_cannot_do_is_refused(
    server: "Server", front: Callable[..., "Server"]
) -> None:
    refused = ask(front(server.url), "front", logprobs=True)
    assert refused.status_code == 400
    assert refused.json()["error"]["rule"] == "upstream.logprobs"


def test_nothing_behind_and_a_static_text(front: Callable[..., "Server"]) -> None:
    with socket.socket() as taken:  # bound and not listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        alone = front(url, 'fallback: [{static: "Busy, please retry."}]')
        answer = ask(alone, "front").json()
        assert answer["choices"][0]["message"]["content"] == "Busy, please retry."
        assert answer["usage"]["completion_tokens"] == 0
        assert httpx.get(f"{alone.url}/ready").status_code == 503
