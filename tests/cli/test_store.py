"""`salver store`: what it lists, and what it removes."""

import json
from pathlib import Path

import pytest

from salver.cli.app import run
from salver.registry import ArtifactRef, ArtifactStore, pull
from salver.registry.derived import Derived


class Bytes:
    name = "run"
    type = "uint8"
    data = memoryview(bytearray(5000))


@pytest.fixture
def digest(home: Path, tiny_gguf: Path) -> str:
    """Of an artifact in the store, with packed weights beside it."""
    store = ArtifactStore(home / "store")
    pulled = pull(ArtifactRef.parse(f"file:{tiny_gguf}"), store=store)
    entry = Derived(store.root, pulled.digest, "native-int8", "1", threads=1, say=print)
    assert not entry.fill([Bytes()])
    entry.keep([Bytes()])
    return str(pulled.digest)


def test_artifacts_and_packed_weights_are_listed(
    digest: str, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["store", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["artifacts"] == [{"digest": digest, "size": tiny_gguf.stat().st_size}]
    [packed] = told["packed"]
    assert (packed["source"], packed["label"]) == (digest, "native-int8")
    assert packed["size"] > 5000


def test_packed_weights_are_removed_and_artifacts_stay(
    digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["store", "--drop-packed"]) == 0
    assert "removed 1 packed" in capsys.readouterr().out
    assert run(["store"]) == 0
    listed = capsys.readouterr().out
    assert digest in listed
    assert "native-int8" not in listed


def test_an_empty_store_is_listed_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["store"]) == 0
    assert "empty" in capsys.readouterr().out
