"""Real processes at one store: pulling the same digest at once, and killed at any moment."""

import random
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from salver.registry import ArtifactStore, Digest, HttpsRef, pull

if TYPE_CHECKING:
    from tests.registry.conftest import WebFile, WebServer

PULL = """
import sys
from pathlib import Path
from salver.registry import ArtifactStore, Digest, HttpsRef, landing, pull
landing._CHECKPOINT_EVERY = 128 << 10
root, url, digest = sys.argv[1:]
pulled = pull(HttpsRef(url), digest=Digest.parse(digest), store=ArtifactStore(Path(root)))
print(pulled.fetched, pulled.path)
"""


def start(store: ArtifactStore, url: str, digest: Digest) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, str(store.root), url, str(digest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def only_true_names(store: ArtifactStore) -> bool:
    objects = (store.root / "objects").iterdir()
    return all(path.name == sha256(path.read_bytes()).hexdigest() for path in objects)


@pytest.fixture
def file(web: "WebServer", payload: bytes) -> "WebFile":
    file = web.add("/m.gguf", payload)
    file.pace = 0.002
    return file


def test_processes_that_pull_one_digest_download_it_once(
    web: "WebServer", file: "WebFile", store: ArtifactStore, digest: Digest
) -> None:
    pulls = [start(store, web.url("/m.gguf"), digest) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0].split() for process in pulls]
    assert [process.returncode for process in pulls] == [0] * 4
    assert sorted(fetched for fetched, _ in answers) == ["False", "False", "False", "True"]
    assert len(file.requests) == 1
    assert store.open_verified(digest).exists()


def test_a_pull_killed_at_any_moment_is_mended_by_the_next(
    web: "WebServer", file: "WebFile", store: ArtifactStore, payload: bytes, digest: Digest
) -> None:
    moments = random.Random(8)
    for _ in range(6):
        begun = file.bodies_begun
        process = start(store, web.url("/m.gguf"), digest)
        while file.bodies_begun == begun and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        process.communicate()
        assert only_true_names(store)
    pulled = pull(HttpsRef(web.url("/m.gguf")), digest=digest, store=store)
    assert pulled.path.read_bytes() == payload
    assert only_true_names(store)
    assert any("Range" in request for request in file.requests)


def test_a_killed_holder_frees_the_lock_and_a_waiting_process_takes_over(
    web: "WebServer", file: "WebFile", store: ArtifactStore, digest: Digest
) -> None:
    file.pace = 0.05
    holder = start(store, web.url("/m.gguf"), digest)
    while not file.bodies_begun:
        time.sleep(0.005)
    waiter = start(store, web.url("/m.gguf"), digest)
    time.sleep(0.6)
    file.pace = 0.0
    holder.kill()
    holder.communicate()
    assert waiter.communicate(timeout=30)[0].split()[0] == "True"
    assert store.open_verified(digest) == Path(store.root / "objects" / digest.hex)
