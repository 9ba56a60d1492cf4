"""Keys and quotas against a real server and the real model, with OpenAI's client."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from salver.engine.runners.choice import native_is_built

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / ("smollm2.yaml" if native_is_built() else "smollm2-numpy.yaml")
TENANTS = """
tenants:
  - {name: search}
  - {name: labs, tokens_per_minute: 60, requests_per_minute: 100}
"""


def salver(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "salver.cli", *arguments]
    environment = {**os.environ, "SALVER_HOME": str(home)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def keyed(own_server: "Callable[..., Server]", tmp_path: Path) -> "Server":
    contract = tmp_path / "tenants.yaml"
    contract.write_text(EXAMPLE.read_text() + TENANTS)
    return own_server(contract)


def test_keys_and_quotas_from_the_command_line_to_the_client(keyed: "Server") -> None:
    search = salver(keyed.home, "keys", "create", "search")
    labs = json.loads(salver(keyed.home, "keys", "create", "labs", "--json"))
    metrics = salver(keyed.home, "keys", "create", "search", "--scope", "operations")

    def call(key: str) -> str:
        with openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=key, max_retries=0) as client:
            answer = client.completions.create(
                model="smollm2", prompt="The capital of France is", max_tokens=24, temperature=0
            )
            return answer.choices[0].text

    assert "Paris" in call(search)
    with pytest.raises(openai.AuthenticationError):
        call("none")
    assert "Paris" in call(labs["key"])
    with pytest.raises(openai.RateLimitError) as limited:
        [call(labs["key"]) for _ in range(5)]
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 61
    decision = limited.value.response.headers["x-salver-decision"]
    assert "tenants.tokens_per_minute" in salver(keyed.home, "explain", decision)
    assert "Paris" in call(search), "one tenant's quota is not another's"
    salver(keyed.home, "keys", "revoke", labs["id"])
    time.sleep(1.1)
    with pytest.raises(openai.AuthenticationError, match="revoked"):
        call(labs["key"])
    scraped = httpx.get(f"{keyed.url}/metrics", headers={"authorization": f"Bearer {metrics}"})
    assert 'tenant="search"' in scraped.text
    assert httpx.get(f"{keyed.url}/metrics").status_code == 401
    assert httpx.get(f"{keyed.url}/ready").status_code == 200
