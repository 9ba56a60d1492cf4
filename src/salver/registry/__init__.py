"""Immutable artifacts by digest: references, the store, and the sources that fill it."""

from salver.registry.digest import Digest
from salver.registry.manifest import Manifest, ManifestEntry
from salver.registry.progress import Progress, Silent
from salver.registry.pull import Pulled, PullOptions, pull
from salver.registry.reference import ArtifactRef, FileRef, HfRef, HttpsRef, PypiRef
from salver.registry.sources.http import HttpOptions
from salver.registry.store import ArtifactStore

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
