"""How `salver serve` starts, and when it does not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from salver.contract import load_deployment
from salver.engine.runners.choice import native_is_built

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

EXAMPLES = Path(__file__).parents[2] / "examples"


def serve(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A start that is refused, so that the process ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "salver.cli", "serve", *arguments],
        check=False,
        env={**os.environ, "SALVER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_keys_it_listens_on_loopback_only(tmp_path: Path) -> None:
    done = serve(tmp_path, str(EXAMPLES / "smollm2-numpy.yaml"), "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "loopback only" in done.stderr


def test_a_contract_that_cannot_be_kept_opens_no_port(tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    text = (EXAMPLES / "full.yaml").read_text()
    contract.write_text(text.replace("threads: 2", "threads: 1000"))
    done = serve(tmp_path, str(contract), "--port", "0")
    assert done.returncode == 3
    assert "machine.threads" in done.stderr
    assert "not yet enforced" in done.stderr


@pytest.mark.model
def test_a_bare_model_is_served_under_a_contract_that_is_shown(
    own_server: Callable[..., "Server"], smollm2_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = own_server(smollm2_path)
    health = httpx.get(f"{server.url}/health").json()
    assert health["mode"] == "development"
    shown = capfd.readouterr().err
    text = shown[shown.index("# Assumed") :].split("\n20")[0]  # log lines follow, by date
    assert load_deployment(text).release.id == health["release"]
    assert 'mode="development"' in httpx.get(f"{server.url}/metrics").text


@pytest.mark.model
def test_a_port_in_use_is_named(server: "Server") -> None:
    port = server.url.rsplit(":", 1)[1]
    done = serve(server.home, str(EXAMPLES / "smollm2-numpy.yaml"), "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "choose another port" in done.stderr


@pytest.mark.model
def test_a_start_measures_what_check_then_foretells(server: "Server", tmp_path: Path) -> None:
    contract = tmp_path / "contract.yaml"
    source = EXAMPLES / ("smollm2.yaml" if native_is_built() else "smollm2-numpy.yaml")
    contract.write_text(source.read_text() + "slo: {ttft_p95: 10m, tpot_p95: 5m}\n")
    done = subprocess.run(
        [sys.executable, "-m", "salver.cli", "check", str(contract), "--json"],
        check=False,
        env={**os.environ, "SALVER_HOME": str(server.home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    latency = json.loads(done.stdout)["latency"]
    assert latency["unknown"] == ""
    assert [found["objective"] for found in latency["forecasts"]] == [
        "slo.ttft_p95",
        "slo.tpot_p95",
    ]
