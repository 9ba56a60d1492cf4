"""`hf:` artifacts against an imitation of the two hub endpoints that are used.

What this cannot show is the real hub: its redirects to other hosts, gated models, large-file storage.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from salver.errors import FetchError, IntegrityError
from salver.registry import (
    ArtifactRef,
    ArtifactStore,
    Digest,
    FileRef,
    HttpOptions,
    Pulled,
    PullOptions,
    pull,
)

if TYPE_CHECKING:
    from tests.registry.conftest import Notes, WebServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "README.md": b"# A model"}


class Hub:
    """One repository, org/repo, whose branch `main` is at COMMIT."""

    def __init__(self, web: "WebServer", weights: bytes) -> None:
        self.web = web
        self.weights = hashlib.sha256(weights).hexdigest()
        files = SMALL | {"model.safetensors": weights, "pytorch_model.bin": b"\x80\x02"}
        for name, data in files.items():
            web.add(f"/org/repo/resolve/{COMMIT}/{name}", data)
        self.listing = {
            "id": "org/repo",
            "sha": COMMIT,
            "siblings": [self._sibling(name, data) for name, data in files.items()],
        }
        self.publish()

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        sibling: dict[str, object] = {"rfilename": name, "size": len(data)}
        if name.endswith(".safetensors"):
            sibling["lfs"] = {"sha256": self.weights, "size": len(data), "pointerSize": 130}
        return sibling

    def publish(self) -> None:
        for revision in ("main", COMMIT):
            page = self.web.add(f"/api/models/org/repo/revision/{revision}", b"")
            page.body, page.kind = json.dumps(self.listing).encode(), "application/json"

    def requests(self, name: str) -> int:
        return len(self.web.files[f"/org/repo/resolve/{COMMIT}/{name}"].requests)


@pytest.fixture
def hub(web: "WebServer", payload: bytes) -> Hub:
    return Hub(web, b"weights" + payload)


@pytest.fixture
def options(web: "WebServer") -> PullOptions:
    http = HttpOptions(attempts=2, sleep=lambda seconds: None)
    return PullOptions(http=http, hf_endpoint=web.url(""))


def pull_text(text: str, store: ArtifactStore, options: PullOptions) -> Pulled:
    return pull(ArtifactRef.parse(text), store=store, options=options)


def test_a_branch_is_resolved_to_a_commit_and_told(
    hub: Hub, store: ArtifactStore, options: PullOptions, progress: "Notes"
) -> None:
    ref = ArtifactRef.parse("hf:org/repo@main/model.safetensors")
    pulled = pull(ref, store=store, options=options, progress=progress)
    assert str(pulled.ref) == f"hf:org/repo@{COMMIT}/model.safetensors"
    assert pulled.digest == Digest(hub.weights)
    assert any(COMMIT in note for note in progress.notes)


def test_an_interrupted_file_is_continued(
    hub: Hub, store: ArtifactStore, options: PullOptions
) -> None:
    file = hub.web.files[f"/org/repo/resolve/{COMMIT}/model.safetensors"]
    file.cuts = [2_000_000]
    pull_text("hf:org/repo@main/model.safetensors", store, options)
    assert [r.get("Range") for r in file.requests] == [None, "bytes=2000000-"]


def test_a_repository_and_its_clone_are_one_tree(
    hub: Hub, store: ArtifactStore, options: PullOptions, tmp_path: Path, payload: bytes
) -> None:
    pulled = pull_text("hf:org/repo@main/", store, options)
    names = {path.name for path in pulled.path.iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}
    assert hub.requests("pytorch_model.bin") == 0
    clone = tmp_path / "clone"
    clone.mkdir()
    for name, data in (SMALL | {"model.safetensors": b"weights" + payload}).items():
        (clone / name).write_bytes(data)
    local = ArtifactStore(tmp_path / "other")
    assert pull(FileRef(clone), store=local).digest == pulled.digest


def test_weights_already_in_the_store_are_not_fetched_again(
    hub: Hub, store: ArtifactStore, options: PullOptions
) -> None:
    pull_text("hf:org/repo@main/model.safetensors", store, options)
    pull_text("hf:org/repo@main/", store, options)
    assert hub.requests("model.safetensors") == 1


def test_the_declared_digest_is_held_against_the_hubs_before_anything_comes(
    hub: Hub, store: ArtifactStore, options: PullOptions
) -> None:
    ref = ArtifactRef.parse("hf:org/repo@main/model.safetensors")
    with pytest.raises(IntegrityError):
        pull(ref, digest=Digest("0" * 64), store=store, options=options)
    assert hub.requests("model.safetensors") == 0


def test_bytes_that_are_not_the_hubs_own_are_refused(
    hub: Hub, store: ArtifactStore, options: PullOptions, payload: bytes
) -> None:
    hub.web.files[f"/org/repo/resolve/{COMMIT}/model.safetensors"].body = b"Weights" + payload
    with pytest.raises(IntegrityError):
        pull_text("hf:org/repo@main/model.safetensors", store, options)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("hf:org/none@main/m.gguf", "registry.hub"),
        ("hf:org/repo@v9/m.gguf", "registry.hub"),
        ("hf:org/repo@main/m.gguf", "registry.hub_file"),
    ],
)
def test_what_the_hub_does_not_have_is_said(
    hub: Hub, store: ArtifactStore, options: PullOptions, text: str, rule: str
) -> None:
    with pytest.raises(FetchError) as caught:
        pull_text(text, store, options)
    assert caught.value.rule == rule
    assert caught.value.fix


@pytest.mark.parametrize("name", ["../../m.safetensors", "onnx/m.safetensors", ".safetensors"])
def test_a_tree_takes_only_plain_names_of_the_top_level(
    hub: Hub, store: ArtifactStore, options: PullOptions, name: str
) -> None:
    hub.listing["siblings"] = [{"rfilename": name, "size": 3}]
    hub.publish()
    with pytest.raises(FetchError, match="no model directory"):
        pull_text("hf:org/repo@main/", store, options)
