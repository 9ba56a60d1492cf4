"""Law 8 in the gateway's process: hashed once, opened once, and nothing else is used."""

from collections.abc import Callable
from pathlib import Path

import pytest

from salver.cli.check import examine
from salver.cli.development import assume_contract
from salver.registry import ArtifactStore, Digest


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """The digests that were verified, one for each time."""
    verified: list[Digest] = []
    open_verified = ArtifactStore.open_verified

    def counted(store: ArtifactStore, digest: Digest) -> Path:
        verified.append(digest)
        return open_verified(store, digest)

    monkeypatch.setattr(ArtifactStore, "open_verified", counted)
    return verified


def test_checking_and_then_serving_hashes_once(
    contract: Callable[..., Path], pulled: Path, hashed: list[Digest]
) -> None:
    artifact = examine(contract()).artifact
    assert artifact
    assert artifact.model().checkpoint is artifact.checkpoint
    assert hashed == [Digest(pulled.name)]


def test_a_bare_model_is_hashed_once_after_it_was_taken_in(
    tiny_gguf: Path, home: Path, hashed: list[Digest]
) -> None:
    _, artifact = assume_contract(tiny_gguf, ArtifactStore(home / "store"))
    assert artifact.model().tokenizer.encode(
        "th", add_special_tokens=False, parse_special=False
    ) == [256]
    assert len(hashed) == 1


def test_what_takes_the_place_of_verified_bytes_is_not_used(
    contract: Callable[..., Path], pulled: Path
) -> None:
    artifact = examine(contract()).artifact
    assert artifact
    pulled.unlink()
    pulled.write_bytes(b"something else")
    assert artifact.model().tokenizer.token_bytes(256) == b"th"
    assert artifact.checkpoint.tensor("model.norm.weight").tolist() == [1.0] * 16
