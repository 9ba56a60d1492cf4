"""The log of Decisions: a SQLite file of bounded length, to which rows are only ever added.

A Decision is noted without waiting: it goes into a bounded queue that one thread writes out, many
to a transaction. When the queue is full, or the file cannot be written, Decisions are lost rather
than requests held up; each loss is counted, and told in the log of the process. A row is never
changed, which a trigger enforces; the oldest rows go when there are more than the bound.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread

import msgspec

from salver.contract import Decision
from salver.errors import StateUnavailable
from salver.telemetry import Decided, Event

MAX_ROWS = 100_000
MAX_WAITING = 4096
BATCH = 256
BUSY_SECONDS = 2.0

logger = logging.getLogger("salver.state")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS decisions_by_id ON decisions (id);
CREATE TRIGGER IF NOT EXISTS decisions_stay BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'a decision is never changed'); END;
"""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A Decision and where it was taken. `at` is Unix time; no tenant: not known yet."""

    at: float
    deployment: str
    release: str
    tenant: str
    request_id: str
    decision: Decision


class DecisionLog:
    """Writes one service's Decisions to a file. Close it to have the last ones written.

    Raises:
        StateUnavailable: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        deployment: str,
        release: str,
        max_rows: int = MAX_ROWS,
        max_waiting: int = MAX_WAITING,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.lost = 0
        self._path = path
        self._service = (deployment, release)
        self._max_rows = max_rows
        self._wall = wall
        self._waiting: Queue[DecisionRecord | None] = Queue(max_waiting)
        _make(path)
        self._writer = Thread(target=self._write, name="salver-decisions", daemon=True)
        self._writer.start()

    def observe(self, event: Event) -> None:
        """Note a Decision; never waits. An `Observer`."""
        if not isinstance(event, Decided):
            return
        record = DecisionRecord(
            self._wall(), *self._service, event.tenant, event.request_id, event.decision
        )
        try:
            self._waiting.put_nowait(record)
        except Full:
            self._lose(1, "the queue is full")

    def close(self) -> None:
        """Write what waits, and end."""
        if self._writer.is_alive():
            self._waiting.put(None)
            self._writer.join()

    def _write(self) -> None:
        more = True
        while more:
            batch = [self._waiting.get()]
            try:
                while len(batch) < BATCH:
                    batch.append(self._waiting.get_nowait())
            except Empty:
                pass
            more = None not in batch
            self._append([record for record in batch if record is not None])

    def _append(self, records: Sequence[DecisionRecord]) -> None:
        rows = [(record.decision.id, msgspec.json.encode(asdict(record))) for record in records]
        try:
            with closing(_open(self._path)) as file, file:
                file.executemany("INSERT INTO decisions (id, record) VALUES (?, ?)", rows)
                file.execute(
                    "DELETE FROM decisions WHERE seq <= (SELECT max(seq) FROM decisions) - ?",
                    (self._max_rows,),
                )
        except sqlite3.Error as error:
            self._lose(len(rows), str(error))

    def _lose(self, count: int, why: str) -> None:
        """Count a loss; the first of each thousand is told, so that telling is bounded too."""
        before, self.lost = self.lost, self.lost + count
        if before == 0 or before // 1000 != self.lost // 1000:
            logger.warning("%d decisions were not recorded so far: %s", self.lost, why)


def find_decisions(path: Path, decision_id: str) -> list[DecisionRecord]:
    """The Decisions with this id, latest first; a caller that repeats a request id repeats it.

    Raises:
        StateUnavailable: the file is there, but cannot be read.
    """
    if not path.exists():
        return []
    wanted = "SELECT record FROM decisions WHERE id = ? ORDER BY seq DESC LIMIT 100"
    try:
        with closing(_open(path)) as file:
            rows = file.execute(wanted, (decision_id,)).fetchall()
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    return [msgspec.json.decode(record, type=DecisionRecord) for (record,) in rows]


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(_open(path)) as file:
            file.executescript(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error


def _open(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=BUSY_SECONDS)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=NORMAL")
    return file


def _unusable(path: Path, error: Exception) -> StateUnavailable:
    return StateUnavailable(
        f"the log of decisions {path} cannot be used: {error}",
        rule="state.decisions",
        fix="see that the file is Salver's own and can be written, or move it away",
    )
