"""Where bytes land on their way into the store: an append-only file that is hashed as it grows.

A landing outlives the process that filled it, so that a later one can go on where it stopped. What
an earlier process left is not trusted for being there: a checkpoint beside the file records a length
and the digest of that many bytes, and only a prefix that still hashes to it is kept. A crash costs
the bytes since the last checkpoint; a power cut that lost written pages, or a stray write, costs the
whole partial file, and never an intact-looking wrong one.
"""

import shutil
from hashlib import sha256
from pathlib import Path

import msgspec

from salver.errors import FetchError, IntegrityError
from salver.registry.digest import Digest
from salver.registry.formats import HEAD_BYTES

CHUNK_BYTES = 1 << 20
_CHECKPOINT_EVERY = 16 << 20


class _Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first `size` bytes hash to `sha256`; `origin` says where they came from."""

    origin: str
    size: int
    sha256: str


class Landing:
    """One file on its way. Owned by one thread of the process that holds the key's lock.

    It begins with whatever trusted prefix an earlier process left; a source either goes on from
    there or restarts it. `size` counts the bytes written so far, `head` is the first few of them, and `origin` is the
    source's own note about what it was sending, empty when it cannot go on from the middle.
    `limit` bounds `size`; a source that knows how much is coming lowers it.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.workspace = path.with_name(
            f"{path.name}.d"
        )  # for a source that needs files of its own
        self.limit = limit
        self.origin = ""
        self.size = 0
        self.head = b""
        self._hash = sha256()
        self._checkpoint_path = path.with_name(f"{path.name}.checkpoint")
        self._checkpointed = 0
        path.touch()
        path.chmod(0o600)  # a crash just before the rename leaves it read-only
        self._file = path.open("r+b")
        self._resume()

    def __repr__(self) -> str:
        return f"<Landing {self.path.name} size={self.size} origin={self.origin!r}>"

    @property
    def digest(self) -> Digest:
        """Of the bytes written so far."""
        return Digest(self._hash.hexdigest())

    def restart(self, origin: str = "") -> None:
        """Drop every byte; those that follow come from `origin`."""
        self._checkpoint_path.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size, self.head = sha256(), 0, b""
        self.origin, self._checkpointed = origin, 0

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            IntegrityError: the file would grow past `limit`.
        """
        if self.size + len(chunk) > self.limit:
            raise IntegrityError(
                f"the source sends more than the {self.limit:,} bytes that were declared",
                rule="registry.size",
                value=self.size + len(chunk),
                limit=self.limit,
                fix="check the artifact's reference; its source may have been tampered with",
            )
        self._file.write(chunk)
        self._absorb(chunk)
        if self.size - self._checkpointed >= _CHECKPOINT_EVERY:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Vouch for the bytes written so far, if the origin can be asked for the rest."""
        self._file.flush()
        if self.origin and self.size > self._checkpointed:
            staged = self._checkpoint_path.with_suffix(".staged")
            staged.write_bytes(
                msgspec.json.encode(_Checkpoint(self.origin, self.size, self.digest.hex))
            )
            staged.replace(self._checkpoint_path)
            self._checkpointed = self.size

    def require_space(self, coming: int) -> None:
        """Refuse `coming` more bytes before they are asked for, if they cannot be stored.

        Raises:
            FetchError: the disk is too full.
        """
        free = shutil.disk_usage(self.path.parent).free
        if coming > free:
            raise FetchError(
                f"{coming:,} more bytes do not fit on the disk, which has {free:,} free",
                rule="registry.disk_space",
                value=coming,
                limit=free,
                fix=f"free space on the file system of {self.path.parent}",
            )

    def seal(self) -> None:
        """Close the complete file, which may then be moved away."""
        self._file.close()

    def discard(self) -> None:
        """Remove the file and everything beside it."""
        discard(self.path)

    def close(self) -> None:
        """Leave an unsealed file to a later process if its origin can go on, and remove it if not."""
        if self._file.closed:
            return
        if self.origin and self.size and self.path.exists():
            self.checkpoint()
        else:
            self.discard()
        self._file.close()

    def _resume(self) -> None:
        """Keep the prefix that the last checkpoint vouches for; start over if there is none."""
        kept = self._read_checkpoint()
        if kept is None:
            return self.restart()
        while self.size < kept.size and (
            chunk := self._file.read(min(CHUNK_BYTES, kept.size - self.size))
        ):
            self._absorb(chunk)
        if (self.size, self.digest.hex) != (kept.size, kept.sha256):
            return self.restart()
        self._file.truncate(self.size)
        self.origin, self._checkpointed = kept.origin, kept.size
        return None

    def _absorb(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.head = (self.head + chunk[:HEAD_BYTES])[:HEAD_BYTES]
        self.size += len(chunk)

    def _read_checkpoint(self) -> _Checkpoint | None:
        try:
            return msgspec.json.decode(self._checkpoint_path.read_bytes(), type=_Checkpoint)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


def discard(path: Path) -> None:
    """Remove a landing that no process holds: its file, its checkpoint, its workspace."""
    shutil.rmtree(path.with_name(f"{path.name}.d"), ignore_errors=True)
    for leftover in (path, *path.parent.glob(f"{path.name}.*")):
        leftover.unlink(missing_ok=True)
