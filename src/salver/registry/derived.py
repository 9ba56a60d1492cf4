"""What was computed from an artifact, kept beside it so that it need not be computed again.

    ROOT/derived/HEX/LABEL     computed from the artifact HEX, read-only

An object is named by the digest of its bytes. A derived entry cannot be: nobody knows its bytes
before they are computed. So it carries the digests of its runs itself, and whoever reads it hashes
its own copy, in its own memory, against them (law 8): what was verified is what is used, whatever
happens to the file. An entry that does not verify is put into quarantine and computed again; losing
one never costs more than time, which is why nothing here raises.

The first to need an entry holds its lock until it is written. Others wait for that, and compute for
themselves if it takes too long.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from salver.errors import FetchError
from salver.registry.derived_file import Damaged, DerivedFile, Outdated, Run
from salver.registry.digest import Digest
from salver.registry.durable import make_directory, place
from salver.registry.locks import exclusive

PATIENCE_SECONDS = 10.0  # a writer that was stopped must not keep others from starting
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_READ_ONLY = 0o444


class Derived:
    """One derived entry, for one reading and at most one writing.

    Args:
        root: the store's directory.
        source: the artifact that it is computed from.
        label: what it is, a plain name: other entries of the source have others.
        form: the version of its bytes; an entry of another form is computed anew.
        threads: how many read and hash.
        say: told what a person may want to know.
        patience: seconds to wait for another process that computes it.
    """

    def __init__(
        self,
        root: Path,
        source: Digest,
        label: str,
        form: str,
        *,
        threads: int,
        say: Callable[[str], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is not a plain name")
        self.path = root / "derived" / source.hex / label
        self._file = DerivedFile(str(source), form)
        self._key = f"derived-{source.hex}-{label}"
        self._root = root
        self._threads = threads
        self._said = ""
        self._to = say
        self._patience = patience
        self._held = ExitStack()
        self._writes = False

    def __repr__(self) -> str:
        return f"<Derived {self.path} {'held' if self._writes else 'not held'}>"

    def fill(self, runs: Sequence[Run]) -> bool:
        """Read the entry into the runs, verified. False: the caller computes it, and calls `keep`."""
        if self._read(runs):
            return True
        if not self._hold():
            return False
        if self._read(runs):  # whoever held it before has written it
            self._held.close()
            return True
        self._writes = True
        return False

    def keep(self, runs: Sequence[Run]) -> None:
        """Write the entry, whole or not at all, if it is ours to write."""
        if not self._writes:
            return
        self._writes = False
        partial = self._root / "partial" / self._key
        with self._held:
            try:
                self._write(runs, partial)
            except OSError as error:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                self._say(f"{self.path} cannot be kept: {error.strerror or error}")

    def _read(self, runs: Sequence[Run]) -> bool:
        try:
            with self.path.open("rb", buffering=0) as file, self._workers() as workers:
                self._file.read(file.fileno(), runs, workers)
        except FileNotFoundError:
            return False
        except Outdated as reason:
            self._say(f"{self.path} is computed again: {reason}")
            return False
        except Damaged as reason:
            self._quarantine(str(reason))
            return False
        except OSError as error:
            self._say(f"{self.path} cannot be read: {error.strerror or error}")
            return False
        return True

    def _write(self, runs: Sequence[Run], partial: Path) -> None:
        make_directory(self.path.parent)
        partial.unlink(missing_ok=True)
        with partial.open("xb", buffering=0) as file, self._workers() as workers:
            self._file.write(file.fileno(), runs, workers)
        partial.chmod(_READ_ONLY)
        place(partial, self.path)

    def _hold(self) -> bool:
        lock = exclusive(
            self._root / "locks" / self._key, timeout=self._patience, waiting=self._say
        )
        try:
            self._held.enter_context(lock)
        except (OSError, FetchError) as error:
            self._say(f"{self.path} is not kept: {error}")
            return False
        return True

    def _quarantine(self, reason: str) -> None:
        self._say(f"{self.path} is damaged and computed again: {reason}")
        try:
            place(self.path, self._root / "quarantine" / self._key)
        except OSError as error:
            self._say(f"{self.path} stays where it is: {error.strerror or error}")

    def _say(self, sentence: str) -> None:
        if sentence != self._said:  # reading twice finds the same fault twice
            self._said = sentence
            self._to(sentence)

    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, "derived")


@dataclass(frozen=True, slots=True)
class DerivedEntry:
    """An entry as it lies in a store; `size` in bytes."""

    source: Digest
    label: str
    size: int
    path: Path

    def remove(self) -> None:
        """Readers keep what they have read; the next one computes it again."""
        self.path.unlink(missing_ok=True)


def derived_entries(root: Path) -> Iterator[DerivedEntry]:
    """What a store keeps of this kind, by artifact and label."""
    for path in sorted((root / "derived").glob("*/*")):
        with suppress(FileNotFoundError):  # it has just been removed
            yield DerivedEntry(Digest(path.parent.name), path.name, path.stat().st_size, path)
