"""A tree's identity: the sorted list of its files with their sizes and digests.

The canonical text is one header line and one line per file, sorted by name:

    salver-manifest 1
    <sha256 of the file, hexadecimal> <size in bytes> <file name>

The digest of a tree is the SHA-256 of that text in UTF-8. A tree is flat: names hold no separator.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from salver.errors import IntegrityError
from salver.registry.digest import Digest

_HEADER = "salver-manifest 1"
_LINE = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) ([A-Za-z0-9_+=@,\-][^/\\\x00-\x1f\x7f]*)")
MAX_FILES = 1024
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file of a tree; `size` in bytes."""

    name: str
    digest: Digest
    size: int

    def __str__(self) -> str:
        return f"{self.digest.hex} {self.size} {self.name}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one tree, in the order of their names."""

    entries: tuple[ManifestEntry, ...]

    @classmethod
    def of(cls, entries: Iterable[ManifestEntry]) -> "Manifest":
        """Sort and check the entries.

        Raises:
            IntegrityError: no file, too many files, a repeated name, or a name that is not plain.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.name))
        if not 0 < len(ordered) <= MAX_FILES:
            raise _malformed(f"a tree holds 1 to {MAX_FILES} files", len(ordered))
        if len({entry.name for entry in ordered}) != len(ordered):
            raise _malformed("a tree names each file once", [entry.name for entry in ordered])
        for entry in ordered:
            if _LINE.fullmatch(str(entry)) is None:
                raise _malformed("a tree's file names are plain", entry.name)
        return cls(ordered)

    @classmethod
    def decode(cls, text: bytes) -> "Manifest":
        """Read the canonical text.

        Raises:
            IntegrityError: the text is not in canonical form.
        """
        header, *lines = text[:MAX_BYTES].decode("utf-8", "replace").split("\n")
        matches = [_LINE.fullmatch(line) for line in lines[:-1]]
        entries = (ManifestEntry(m[3], Digest(m[1]), int(m[2])) for m in matches if m is not None)
        manifest = cls.of(entries)
        if header != _HEADER or manifest.encode() != text:
            raise _malformed("a manifest is in canonical form", text[:80])
        return manifest

    def encode(self) -> bytes:
        """The canonical text."""
        return "".join(f"{line}\n" for line in (_HEADER, *self.entries)).encode()

    @property
    def digest(self) -> Digest:
        return Digest(sha256(self.encode()).hexdigest())

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)


def _malformed(rule: str, value: object) -> IntegrityError:
    return IntegrityError(
        f"malformed tree: {rule}",
        rule="registry.manifest",
        value=value,
        fix="pull the artifact again from a source that you trust",
    )
