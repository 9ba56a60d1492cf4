"""Law 7 over HTTP, in pairs: the same prompt again hits for the tenant that sent it, and for no other.

Cached tokens are counted, since they are what makes a prompt fast; `benchmarks/serving/isolation.py`
looks at the times themselves.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from salver.contract import Scope
from salver.engine.runners.choice import native_is_built
from salver.state import Database, KeyStore, sqlite_url

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / ("smollm2.yaml" if native_is_built() else "smollm2-numpy.yaml")
WORDS = "A prompt that is long enough to fill more than a few blocks of the cache. " * 8


@pytest.fixture
def keyed(own_server: "Callable[..., Server]", tmp_path: Path) -> "Server":
    contract = tmp_path / "tenants.yaml"
    contract.write_text(EXAMPLE.read_text() + "tenants: [{name: search}, {name: labs}]\n")
    return own_server(contract)


def test_a_prompt_hits_for_its_tenant_and_for_no_other(keyed: "Server") -> None:
    database = Database(sqlite_url(keyed.home / "state.db"))
    keys = {
        name: KeyStore(database).create(name, frozenset({Scope.INFERENCE}))[0]
        for name in ("search", "labs")
    }
    database.close()

    def cached(tenant: str, number: int) -> int:
        answer = httpx.post(
            f"{keyed.url}/v1/completions",
            json={"model": "smollm2", "prompt": f"{number}. {WORDS}", "max_tokens": 1},
            headers={"authorization": f"Bearer {keys[tenant]}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        tokens: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        return tokens

    for number in range(6):
        first, other = ("search", "labs") if number % 2 else ("labs", "search")
        assert cached(first, number) == 0
        assert cached(first, number) > 0, "the same tenant"
        assert cached(other, number) == 0, "another tenant, after two of the first's"
        assert cached(other, number) > 0
        assert cached(first, number) > 0
