"""A real server: `salver serve` as its own process, over the real model, on a loopback port."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

import httpx
import pytest

from salver.engine.runners.choice import native_is_built
from salver.registry import ArtifactRef, ArtifactStore, pull

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / ("smollm2.yaml" if native_is_built() else "smollm2-numpy.yaml")


@dataclass(frozen=True)
class Server:
    """A running `salver serve`; `events` are the JSON lines it printed."""

    process: subprocess.Popen[str]
    url: str
    home: Path

    def client(self, timeout: float = 120.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout)

    def metric(self, name: str) -> float:
        """The sum over all series of one metric."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name
        ]
        assert values, f"no metric {name}"
        return sum(values)

    def worker_pid(self) -> int:
        (child,) = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if b"salver.worker" in _read(path) and _parent(path) == self.process.pid
        ]
        return child


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parent(path: Path) -> int:
    stat = _read(path.with_name("stat")).decode()
    return int(stat.rsplit(")", 1)[1].split()[1]) if stat else -1


@pytest.fixture(scope="session")
def salver_home(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SALVER_HOME of the tests' own, whose store has the default model."""
    home = tmp_path_factory.mktemp("home")
    pull(ArtifactRef.parse(f"file:{smollm2_path}"), store=ArtifactStore(home / "store"))
    return home


def start(home: Path, contract: Path | str, *options: str) -> Server:
    """Start a server and wait until it says where it listens."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "salver.cli",
            "serve",
            str(contract),
            "--port",
            "0",
            "--json",
            *options,
        ],
        env={**os.environ, "SALVER_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        return Server(process, _listening(process.stdout)["url"], home)
    except Empty:
        process.kill()
        pytest.fail("the server did not become ready within 120 s")


def _listening(stdout: IO[str]) -> dict[str, str]:
    lines: SimpleQueue[str] = SimpleQueue()

    def pump() -> None:
        for line in stdout:
            lines.put(line)

    Thread(target=pump, daemon=True).start()
    while True:
        event: dict[str, str] = json.loads(lines.get(timeout=120))
        if "url" in event:
            return event


def stop(server: Server) -> int:
    server.process.send_signal(signal.SIGTERM)
    try:
        return server.process.wait(timeout=30)
    finally:
        server.process.kill()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="session")
def server(salver_home: Path) -> Iterator[Server]:
    """One server for all tests that leave it as they found it."""
    running = start(salver_home, EXAMPLE)
    yield running
    assert stop(running) == 0


@pytest.fixture
def own_server(salver_home: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that a test may break; ends them afterwards."""
    started: list[Server] = []

    def begin(contract: Path | str = EXAMPLE, *options: str) -> Server:
        started.append(start(salver_home, contract, *options))
        return started[-1]

    yield begin
    for running in started:
        stop(running)
