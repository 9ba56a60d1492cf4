"""Files and directories of this machine, copied into the store."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from salver.errors import FetchError
from salver.registry.landing import CHUNK_BYTES, Landing
from salver.registry.progress import Progress


def copy_file(path: Path, landing: Landing, progress: Progress) -> None:
    """Copy one regular file.

    Raises:
        FetchError: it is absent, unreadable, not a regular file, or changed while it was read.
    """
    with open_regular(path) as (file, size):
        landing.restart()
        landing.limit = min(landing.limit, size)
        landing.require_space(size)
        while landing.size < size and (chunk := file.read(CHUNK_BYTES)):
            landing.write(chunk)
            progress.report(path.name, landing.size, size)
    if landing.size != size:
        raise FetchError(
            f"{path} shrank while it was read",
            rule="registry.file",
            value=landing.size,
            limit=size,
            fix="pull again once nothing writes to the file",
        )


def list_files(directory: Path) -> list[Path]:
    """The plain files directly inside a directory."""
    return [path for path in directory.iterdir() if path.is_file()]


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file for reading; yields it with its size in bytes.

    A pipe or a device is refused without waiting on it: it has no size, and may have no end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "not a regular file")
        yield file, status.st_size


def _unreadable(path: Path, reason: str) -> FetchError:
    return FetchError(
        f"{path} cannot be read: {reason}",
        rule="registry.file",
        value=str(path),
        fix="check the path; a relative one in a contract starts at the contract's directory",
    )
