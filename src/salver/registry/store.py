"""The content-addressed store: what is asked for by digest is what is handed out.

    ROOT/
      objects/HEX         one file, read-only, named by the SHA-256 of its bytes
      manifests/HEX       a tree, as the canonical manifest whose SHA-256 is HEX
      trees/HEX/NAME      that tree laid out for readers: hard links to objects, made on demand
      partial/KEY         bytes on their way (see landing.py), never served
      locks/KEY           held by whoever writes partial/KEY or lays out trees/KEY
      derived/HEX/LABEL   computed from HEX, and again when it is lost (see derived.py)
      quarantine/HEX      the last copy of HEX that turned out to be corrupt, for a person to look at

One idea carries law 8: a name under `objects` or `manifests` appears by one rename, after its bytes
are on disk and hash to that name, and nothing is ever written in place. So a crash at any point
leaves the old state or the new. Bytes can still rot, or be overwritten by someone who may write
there; therefore `open_verified` hashes the file again in the process that will serve it. A record of
"checked earlier" (by size and time, say) would miss exactly those two cases. The price is one
sequential read, which serving needs anyway: the pages hashed are the pages that mmap then serves.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path

from salver.errors import FetchError, IntegrityError
from salver.registry import landing as landings
from salver.registry.digest import Digest
from salver.registry.durable import disk_faults, make_directory, place, sync
from salver.registry.formats import refuse_runnable
from salver.registry.landing import Landing
from salver.registry.locks import exclusive, exclusive_now
from salver.registry.manifest import MAX_BYTES, Manifest

MAX_ARTIFACT_BYTES = 1 << 40
STALE_SECONDS = 14 * 24 * 3600.0
_READ_ONLY = 0o444


def _nobody_told(text: str) -> None:
    pass


class ArtifactStore:
    """Immutable files and trees by digest, shared safely by any number of processes.

    Args:
        root: the store's directory on a local file system; created if absent.
        lock_timeout: seconds to wait for another process that fetches the same artifact.
        max_bytes: no single file may be larger.
    """

    def __init__(
        self, root: Path, *, lock_timeout: float = 3600.0, max_bytes: int = MAX_ARTIFACT_BYTES
    ) -> None:
        self.root = root
        self._lock_timeout = lock_timeout
        self._max_bytes = max_bytes
        with disk_faults(root):
            for name in ("objects", "manifests", "trees", "partial", "locks", "quarantine"):
                make_directory(root / name)

    def __repr__(self) -> str:
        count = sum(1 for _ in (self.root / "objects").iterdir())
        return f"<ArtifactStore {self.root} objects={count}>"

    def __contains__(self, digest: Digest) -> bool:
        """Whether the digest is here; says nothing about the bytes, which only opening checks."""
        return self._object(digest).exists() or self._manifest(digest).exists()

    def open_verified(self, digest: Digest) -> Path:
        """Hash the artifact in this process and hand out its path, a file's or a directory's.

        The path stays good while the store is left alone; open it for reading only.

        Raises:
            FetchError: the artifact, or a file of the tree, is not in the store or not readable.
            IntegrityError: bytes on disk are not what the digest says. They are in quarantine now.
        """
        with disk_faults(self.root):
            if self._manifest(digest).exists():
                return self._open_tree(digest)
            return self._verified(self._object(digest), digest)

    def manifest(self, digest: Digest) -> Manifest | None:
        """The manifest of a tree, verified; None where the digest is a file's.

        Raises:
            IntegrityError: as for `open_verified`.
        """
        if not self._manifest(digest).exists():
            return None
        path = self._verified(self._manifest(digest), digest)
        with path.open("rb") as file:
            return Manifest.decode(file.read(MAX_BYTES + 1))

    @contextmanager
    def landing(
        self, key: str, *, waiting: Callable[[str], None] = _nobody_told
    ) -> Iterator[Landing]:
        """Hold `key` and give the file where its bytes land.

        What remains there can be resumed, unless an IntegrityError said that it is wrong. Keys are
        plain file names, the same for those who would fetch the same bytes.

        Raises:
            FetchError: another process held the key for longer than `lock_timeout`.
        """
        with exclusive(self._lock(key), timeout=self._lock_timeout, waiting=waiting):
            landing = Landing(self.root / "partial" / key, self._max_bytes)
            try:
                yield landing
            except IntegrityError:
                landing.discard()
                raise
            finally:
                landing.close()

    def publish(self, landing: Landing, *, expected: Digest | None = None) -> Digest:
        """Turn a complete landing into an object, and return its digest.

        Raises:
            IntegrityError: the bytes are not the expected ones, or are of a format that can run
                code.
        """
        digest = landing.digest
        require_digest(digest, expected)
        refuse_runnable(landing.head)
        self._place(landing, self._object(digest))
        return digest

    def publish_tree(self, manifest: Manifest) -> Digest:
        """Record a tree whose files are all objects already, and return its digest."""
        digest = manifest.digest
        with self.landing(f"manifest-{digest.hex}") as landing:
            landing.restart()
            landing.write(manifest.encode())
            self._place(landing, self._manifest(digest))
        return digest

    def discard_stale(self, *, older_than: float = STALE_SECONDS) -> None:
        """Remove partial files that nobody holds or has touched for `older_than` seconds."""
        horizon = time.time() - older_than
        for path in (self.root / "partial").iterdir():
            key = path.name.partition(".")[0]
            with exclusive_now(self._lock(key)) as free:
                if free and path.exists() and path.stat().st_mtime < horizon:
                    landings.discard(path.with_name(key))

    def _place(self, landing: Landing, target: Path) -> None:
        landing.seal()
        landing.path.chmod(_READ_ONLY)
        sync(landing.path)
        with self._placing():
            place(landing.path, target)
        landing.discard()

    def _verified(self, path: Path, digest: Digest) -> Path:
        try:
            with path.open("rb") as file:
                actual = Digest(file_digest(file, "sha256").hexdigest())
                opened = os.fstat(file.fileno())
        except FileNotFoundError:
            raise _absent(digest) from None
        if actual != digest:
            self._quarantine(path, opened)
            require_digest(actual, digest)
        return path

    def _quarantine(self, path: Path, opened: os.stat_result) -> None:
        """Move a corrupt file out of sight, unless someone has put a new one in its place."""
        with self._placing():
            if path.exists() and os.path.samestat(path.stat(), opened):
                place(path, self.root / "quarantine" / path.name)

    def _open_tree(self, digest: Digest) -> Path:
        manifest = self.manifest(digest)
        if manifest is None:
            raise _absent(digest)
        for entry in manifest.entries:
            self._verified(self._object(entry.digest), entry.digest)
        with exclusive(self._lock(f"tree-{digest.hex}"), timeout=60.0, waiting=_nobody_told):
            tree = self.root / "trees" / digest.hex
            if not self._laid_out(tree, manifest):
                self._lay_out(tree, manifest)
        return tree

    def _laid_out(self, tree: Path, manifest: Manifest) -> bool:
        """Whether the directory holds exactly the manifest's files, each the very object."""
        if not tree.is_dir() or {p.name for p in tree.iterdir()} != {
            e.name for e in manifest.entries
        }:
            return False
        return all((tree / e.name).samefile(self._object(e.digest)) for e in manifest.entries)

    def _lay_out(self, tree: Path, manifest: Manifest) -> None:
        staged = self.root / "partial" / f"tree-{tree.name}.d"
        for directory in (staged, tree):
            shutil.rmtree(directory, ignore_errors=True)
        staged.mkdir()
        for entry in manifest.entries:
            os.link(self._object(entry.digest), staged / entry.name)
        place(staged, tree)

    def _object(self, digest: Digest) -> Path:
        return self.root / "objects" / digest.hex

    def _manifest(self, digest: Digest) -> Path:
        return self.root / "manifests" / digest.hex

    def _lock(self, key: str) -> Path:
        return self.root / "locks" / key

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Held for the instant of a rename, so that a quarantine never takes a fresh object."""
        with exclusive(self._lock("placing"), timeout=60.0, waiting=_nobody_told):
            yield


def require_digest(actual: Digest, expected: Digest | None) -> None:
    """Refuse bytes that are not the declared ones; None declares nothing.

    Raises:
        IntegrityError: the digests differ.
    """
    if expected is not None and actual != expected:
        raise IntegrityError(
            f"the bytes have the digest {actual}, not the declared {expected}",
            rule="registry.digest",
            value=str(actual),
            limit=str(expected),
            fix="pull the artifact again; if the digest still differs, its source has changed: "
            "find out why before you write the new digest into a contract",
        )


def _absent(digest: Digest) -> FetchError:
    return FetchError(
        f"{digest} is not in the store",
        rule="registry.present",
        value=str(digest),
        fix="fetch it with `salver pull CONTRACT.yaml`",
    )
