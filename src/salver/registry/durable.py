"""File-system steps that hold across a crash or a power cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salver.errors import FetchError


def place(source: Path, target: Path) -> None:
    """Make `source` appear as `target`, whole or not at all, and durably.

    Both lie on one file system. The bytes reach the disk before the name does (fsync, then rename),
    and the name before this returns (fsync of the directory): a reader never finds the name without
    the bytes.
    """
    sync(source)
    source.replace(target)
    sync(target.parent)


def make_directory(path: Path) -> None:
    """Create a directory and its parents durably; nothing happens where it exists."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_faults(root: Path) -> Iterator[None]:
    """Report what the file system refuses under `root` as the store's own error.

    Raises:
        FetchError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise FetchError(
            f"the store at {root} cannot be used: {reason}",
            rule="registry.store",
            value=error.filename or reason,
            fix="free space there, or give the store a directory that this user may write",
        ) from error
