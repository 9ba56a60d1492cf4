"""Workers with fake engines, in real processes that never outlive their test."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from salver.registry import ArtifactRef, ArtifactStore, pull
from salver.worker import Backoff, Patience, Supervisor, WorkerSpec

MakeSpec = Callable[[str], WorkerSpec]
MakeSupervisor = Callable[..., Supervisor]


@pytest.fixture
def make_spec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeSpec:
    """A spec for one of the engines in `moody_engines`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)

    def make(engine: str) -> WorkerSpec:
        return WorkerSpec(
            name="fake",
            store=str(tmp_path / "store"),
            digest="sha256:" + 64 * "0",
            memory_bytes=2**30,
            threads=1,
            max_context_tokens=1000,
            max_running=32,
            max_batch_tokens=64,
            max_queued_requests=64,
            max_queued_tokens=4096,
            engine=f"moody_engines:{engine}",
        )

    return make


@pytest.fixture
async def make_supervisor(make_spec: MakeSpec) -> AsyncIterator[MakeSupervisor]:
    """Supervisors that are stopped after the test."""
    made: list[Supervisor] = []

    def make(engine: str, **settings: object) -> Supervisor:
        defaults: dict[str, object] = {
            "patience": Patience(to_start=20.0, wedge_after=5.0),
            "backoff": Backoff(initial=0.01),
        }
        supervisor = Supervisor(make_spec(engine), **(defaults | settings))  # type: ignore[arg-type]
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        await supervisor.stop()


@pytest.fixture(scope="module")
def smollm2_spec(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    """The default model in a store of its own, and an envelope that holds it."""
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    pulled = pull(ArtifactRef.parse(f"file:{smollm2_path}"), store=store)
    return WorkerSpec(
        name="smollm2",
        store=str(store.root),
        digest=str(pulled.digest),
        memory_bytes=2**30,
        threads=2,
        max_context_tokens=512,
        max_running=4,
        max_batch_tokens=128,
        max_queued_requests=16,
        max_queued_tokens=4096,
    )
