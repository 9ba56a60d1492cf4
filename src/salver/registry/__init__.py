"""Immutable artifacts by digest: references, the store, and the sources that fill it."""

from typing import TYPE_CHECKING

from salver.lazy import lazily
from salver.registry.digest import Digest
from salver.registry.manifest import Manifest, ManifestEntry
from salver.registry.progress import Progress, Silent
from salver.registry.reference import ArtifactRef, FileRef, HfRef, HttpsRef, PypiRef
from salver.registry.store import ArtifactStore

if TYPE_CHECKING:
    from salver.registry.pulling import Pulled, PullOptions, pull
    from salver.registry.sources.http import HttpOptions

_LATER = {
    "Pulled": "pulling",
    "PullOptions": "pulling",
    "pull": "pulling",
    "HttpOptions": "sources.http",
}
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _LATER)

__all__ = [
    "ArtifactRef",
    "ArtifactStore",
    "Digest",
    "FileRef",
    "HfRef",
    "HttpOptions",
    "HttpsRef",
    "Manifest",
    "ManifestEntry",
    "Progress",
    "PullOptions",
    "Pulled",
    "PypiRef",
    "Silent",
    "pull",
]
