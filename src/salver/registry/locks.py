"""One holder at a time, across processes and threads, by `flock` on a file that is never removed.

The kernel drops the lock when its holder dies, however it dies, so there is nothing to recover. The
file stays for good: removing it would let two processes hold locks on two files of one name.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from salver.errors import FetchError

_POLL_SECONDS = 0.05


@contextmanager
def exclusive(path: Path, *, timeout: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock at `path`, waiting at most `timeout` seconds for it.

    `waiting` is called once, with a sentence, when another holder has it.

    Raises:
        FetchError: the wait took longer than `timeout`.
    """
    with path.open("a+") as file:
        if not _taken(file):
            waiting(f"waiting for {_holder(path)}, which is at the same artifact")
            _wait(file, path, time.monotonic() + timeout, timeout)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def exclusive_now(path: Path) -> Iterator[bool]:
    """Try for the lock at `path`; yields whether it was free, and holds it if so."""
    with path.open("a+") as file:
        yield _taken(file)


def _wait(file: IO[str], path: Path, deadline: float, timeout: float) -> None:
    while not _taken(file):
        if time.monotonic() > deadline:
            raise FetchError(
                f"{_holder(path)} has held the lock {path.name} for {timeout:g} s",
                rule="registry.lock_timeout",
                value=f"{timeout:g} s",
                fix="see what that process does; end it if it hangs, then pull again",
            )
        time.sleep(_POLL_SECONDS)


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    pid = path.read_text()
    return f"process {pid}" if pid.isdecimal() else "another process"
