"""Law 8 over arbitrary histories: immutable artifacts, whatever dies and whatever rots.

A crash is a real one: a forked child publishes, and ends itself at a chosen one of its file-system
steps, as kill -9 would, so that no handler of ours runs. Python announces each such step as an audit
event just before it happens.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from salver.errors import FetchError, IntegrityError
from salver.registry import ArtifactStore, Digest, Manifest, ManifestEntry

# A numeric library may have threads here, of which Python 3.12 warns; the child touches files only.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

CONTENTS = [b"", b"GGUF", b"x" * 3_500]
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.link", "os.rmdir"}
CRASHED = 86

content = st.sampled_from(CONTENTS)
trees = st.lists(content, min_size=1, max_size=3).map(tuple)
steps = st.integers(0, 24)


def digest_of(data: bytes) -> Digest:
    return Digest(sha256(data).hexdigest())


def tree_of(files: Sequence[bytes]) -> Manifest:
    return Manifest.of(
        ManifestEntry(f"{n}.safetensors", digest_of(data), len(data))
        for n, data in enumerate(files)
    )


def publish(store: ArtifactStore, data: bytes) -> None:
    with store.landing(f"pull-{digest_of(data).hex}") as landing:
        if not landing.origin:
            landing.restart("a source that can go on")
        for at in range(landing.size, len(data), 1000):
            landing.write(data[at : at + 1000])
            landing.checkpoint()
        store.publish(landing, expected=digest_of(data))


def open_quietly(store: ArtifactStore, digest: Digest) -> None:
    with suppress(FetchError, IntegrityError):
        store.open_verified(digest)


def crash_within(action: Callable[[], None], root: Path, step: int) -> bool:
    """Run `action` in a child that dies just before its `step`-th step; False if it got through."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in STEPS and any(str(root) in str(argument) for argument in arguments):
                left -= 1
                if left < 0:
                    os._exit(CRASHED)

        sys.addaudithook(count)
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, CRASHED)
    return status == CRASHED


class Store(RuleBasedStateMachine):
    """`sound` is what must open; `rotten` is what was overwritten and not yet published again."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="salver-laws-"))
        self.store = ArtifactStore(self.root)
        self.sound: set[bytes] = set()
        self.rotten: set[bytes] = set()
        self.trees: set[tuple[bytes, ...]] = set()

    @rule(data=content)
    def publish(self, data: bytes) -> None:
        publish(self.store, data)
        self.sound.add(data)
        self.rotten.discard(data)

    @rule(data=content, step=steps)
    def crash_while_publishing(self, data: bytes, step: int) -> None:
        if not crash_within(lambda: publish(self.store, data), self.root, step):
            self.sound.add(data)
            self.rotten.discard(data)

    @rule(data=content, step=steps, kept=st.integers(0, 3000), kind=st.sampled_from(["", ".*"]))
    def lose_power_while_publishing_and_publish_again(
        self, data: bytes, step: int, kept: int, kind: str
    ) -> None:
        """Of the bytes (or of what is beside them) only `kept` survive; garbage follows."""
        if crash_within(lambda: publish(self.store, data), self.root, step):
            for path in (self.root / "partial").glob(f"pull-{digest_of(data).hex}{kind}"):
                path.chmod(0o644)
                path.write_bytes(path.read_bytes()[:kept] + b"?")
        self.publish(data)

    @rule(files=trees)
    def publish_tree(self, files: tuple[bytes, ...]) -> None:
        for data in files:
            self.publish(data)
        self.store.publish_tree(tree_of(files))
        self.trees.add(files)

    @precondition(lambda self: self.trees)
    @rule(data=st.data(), step=steps)
    def crash_while_opening_a_tree(self, data: st.DataObject, step: int) -> None:
        files = data.draw(st.sampled_from(sorted(self.trees)))
        digest = tree_of(files).digest
        crash_within(lambda: open_quietly(self.store, digest), self.root, step)

    @rule(data=st.data(), damage=st.sampled_from(["overwrite", "truncate"]))
    def rot(self, data: st.DataObject, damage: str) -> None:
        victim = data.draw(content)
        path = self.root / "objects" / digest_of(victim).hex
        if victim and path.exists():
            path.chmod(0o644)
            path.write_bytes(b"?" + victim[1:] if damage == "overwrite" else victim[:-1])
            self.sound.discard(victim)
            self.rotten.add(victim)

    @rule(data=content)
    def open(self, data: bytes) -> None:
        digest = digest_of(data)
        try:
            assert self.store.open_verified(digest).read_bytes() == data
        except (FetchError, IntegrityError):
            assert data not in self.sound
            assert digest not in self.store

    @rule(files=trees)
    def open_tree(self, files: tuple[bytes, ...]) -> None:
        manifest = tree_of(files)
        try:
            path = self.store.open_verified(manifest.digest)
        except (FetchError, IntegrityError):
            assert files not in self.trees or not self.sound.issuperset(files)
        else:
            assert files == tuple(p.read_bytes() for p in sorted(path.iterdir()))

    @invariant()
    def every_name_tells_the_truth(self) -> None:
        rotten = {digest_of(data).hex for data in self.rotten}
        for path in (self.root / "objects").iterdir():
            assert path.name in rotten or path.name == digest_of(path.read_bytes()).hex

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


TestLaw8 = Store.TestCase
TestLaw8.settings = settings(max_examples=30, stateful_step_count=15)
