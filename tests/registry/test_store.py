"""The store by example: what is handed out, what is refused, what is left behind."""

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from salver.errors import FetchError, IntegrityError
from salver.registry import ArtifactRef, ArtifactStore, Digest, FileRef, pull


def put(store: ArtifactStore, data: bytes, expected: Digest | None = None) -> Digest:
    with store.landing("put") as landing:
        landing.restart()
        landing.write(data)
        return store.publish(landing, expected=expected)


def damage(path: Path) -> None:
    """Overwrite one byte in place, as a failing disk or a careless hand would."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"?")
    path.chmod(0o444)


def partials(store: ArtifactStore) -> list[str]:
    return [path.name for path in (store.root / "partial").iterdir()]


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name, text in [("model.safetensors", "weights"), ("config.json", "{}"), ("README.md", "")]:
        (directory / name).write_text(text)
    return directory


def test_an_object_is_its_bytes_and_cannot_be_written(store: ArtifactStore) -> None:
    digest = put(store, b"model")
    path = store.open_verified(digest)
    assert path.read_bytes() == b"model"
    assert digest == Digest(hashlib.sha256(b"model").hexdigest())
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert partials(store) == []


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_end(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    kind = {True: "directory", False: "file"}
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        steps.append(f"fsync {kind[stat.S_ISDIR(os.fstat(descriptor).st_mode)]}")
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> Path:
        steps.append(f"rename into {target.parent.name}")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    put(store, b"model")
    rename = steps.index("rename into objects")
    assert "fsync file" in steps[:rename]
    assert steps[rename + 1] == "fsync directory"


def test_what_was_not_declared_is_not_kept(store: ArtifactStore) -> None:
    with pytest.raises(IntegrityError) as caught:
        put(store, b"model", expected=Digest("0" * 64))
    assert caught.value.limit == f"sha256:{'0' * 64}"
    assert partials(store) == []
    assert list((store.root / "objects").iterdir()) == []


def test_a_corrupt_object_is_quarantined_and_never_served(store: ArtifactStore) -> None:
    digest = put(store, b"model")
    damage(store.open_verified(digest))
    with pytest.raises(IntegrityError, match="not the declared"):
        store.open_verified(digest)
    assert digest not in store
    assert (store.root / "quarantine" / digest.hex).read_bytes() == b"?odel"
    with pytest.raises(FetchError, match="not in the store"):
        store.open_verified(digest)
    put(store, b"model", expected=digest)
    assert store.open_verified(digest).read_bytes() == b"model"


def test_a_quarantine_does_not_take_what_was_put_right_meanwhile(store: ArtifactStore) -> None:
    digest = put(store, b"model")
    path = store.open_verified(digest)
    damage(path)
    opened = path.stat()
    put(store, b"model")
    store._quarantine(path, opened)
    assert store.open_verified(digest).read_bytes() == b"model"


def test_a_tree_is_handed_out_as_a_directory_of_exactly_its_files(
    store: ArtifactStore, model_directory: Path
) -> None:
    pulled = pull(FileRef(model_directory), store=store)
    assert {path.name for path in pulled.path.iterdir()} == {"model.safetensors", "config.json"}
    manifest = store.manifest(pulled.digest)
    assert manifest is not None
    assert manifest.digest == pulled.digest
    assert pulled.size == len("weights{}")
    assert pull(FileRef(model_directory), digest=pulled.digest, store=store).fetched is False


@pytest.mark.parametrize("change", ["extra", "missing", "replaced", "gone"])
def test_a_disturbed_tree_is_laid_out_again(
    store: ArtifactStore, model_directory: Path, change: str
) -> None:
    pulled = pull(FileRef(model_directory), store=store)
    config = pulled.path / "config.json"
    match change:
        case "extra":
            (pulled.path / "tokenizer.json").write_text("{}")
        case "missing":
            config.unlink()
        case "replaced":
            config.unlink()
            config.write_text('{"other": 1}')
        case "gone":
            for path in pulled.path.iterdir():
                path.unlink()
            pulled.path.rmdir()
    tree = store.open_verified(pulled.digest)
    assert {path.name for path in tree.iterdir()} == {"model.safetensors", "config.json"}
    assert (tree / "config.json").read_text() == "{}"


def test_a_tree_with_a_corrupt_file_is_not_served(
    store: ArtifactStore, model_directory: Path
) -> None:
    pulled = pull(FileRef(model_directory), store=store)
    damage(pulled.path / "config.json")
    with pytest.raises(IntegrityError):
        store.open_verified(pulled.digest)
    with pytest.raises(FetchError):
        store.open_verified(pulled.digest)
    assert pull(FileRef(model_directory), digest=pulled.digest, store=store).fetched


def test_a_corrupt_manifest_is_not_served(store: ArtifactStore, model_directory: Path) -> None:
    pulled = pull(FileRef(model_directory), store=store)
    damage(store.root / "manifests" / pulled.digest.hex)
    with pytest.raises(IntegrityError):
        store.open_verified(pulled.digest)


def test_a_tree_of_another_digest_is_not_recorded(
    store: ArtifactStore, model_directory: Path
) -> None:
    with pytest.raises(IntegrityError):
        pull(FileRef(model_directory), digest=Digest("0" * 64), store=store)
    assert list((store.root / "manifests").iterdir()) == []


def test_a_directory_without_weights_is_no_model(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(FetchError, match="no model directory"):
        pull(FileRef(tmp_path), store=store)


@pytest.mark.parametrize("path", ["/dev/zero", "absent.gguf", "fifo"])
def test_only_regular_files_are_read(store: ArtifactStore, tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FetchError, match="cannot be read"):
        pull(ArtifactRef.parse(f"file:{path}", base=tmp_path), store=store)


def test_the_store_holds_a_copy_that_the_source_cannot_change(
    store: ArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "m.gguf"
    source.write_bytes(b"GGUF")
    pulled = pull(FileRef(source), store=store)
    source.write_bytes(b"changed")
    assert store.open_verified(pulled.digest).read_bytes() == b"GGUF"


def test_old_partials_are_discarded_unless_someone_is_at_them(store: ArtifactStore) -> None:
    for key in ("held", "left"):
        with store.landing(key) as landing:
            landing.restart("somewhere")
            landing.write(b"some bytes")
            landing.workspace.mkdir()
    with store.landing("held"):
        store.discard_stale(older_than=-1.0)
    assert {name.partition(".")[0] for name in partials(store)} == {"held"}
    store.discard_stale(older_than=3600.0)
    assert "held" in partials(store)


def test_a_lock_is_waited_for_and_the_wait_is_bounded(tmp_path: Path) -> None:
    store, told = ArtifactStore(tmp_path, lock_timeout=0.1), threading.Event()
    with (
        store.landing("key"),
        pytest.raises(FetchError, match=f"process {os.getpid()}") as caught,
        store.landing("key", waiting=lambda text: told.set()),
    ):
        pytest.fail("two holders of one lock")
    assert told.is_set()
    assert caught.value.rule == "registry.lock_timeout"


def test_a_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match="the store at") as caught:
        ArtifactStore(tmp_path / "file" / "store")
    assert caught.value.rule == "registry.store"
