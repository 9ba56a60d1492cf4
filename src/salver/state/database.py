"""One SQL database behind everything that outlives a process: SQLite, or PostgreSQL when shared.

The same statements run on both. What differs is how a writer gets the turn. SQLite has one writer
at a time: a writing transaction begins with BEGIN IMMEDIATE, so it never finds, halfway through,
that somebody else has written since it read. PostgreSQL has many: whoever decides on rows locks
them first (`FOR UPDATE`, which SQLite's dialect leaves out). Every wait for the database is
bounded, so a store that hangs is an error within seconds and not a thread that is gone.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from salver.errors import InvalidValue, StateUnavailable
from salver.state.schema import KEYS, SCHEMA_VERSION, metadata, revisions, versions

PATIENCE_SECONDS = 2  # for a connection, for a lock and for a statement, each
_SETUP_LOCK = 0x5A1_7E12  # PostgreSQL's advisory lock under which tables are made


class Database:
    """A state store.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`.
        wall: Unix seconds; by default the database's own clock where several machines share it,
            and this machine's where they do not.

    Raises:
        InvalidValue: the URL names no kind of database that is known here.
        StateUnavailable: it cannot be opened, or was written by another version.
    """

    def __init__(self, url: str, *, wall: Callable[[], float] | None = None) -> None:
        parsed = _parse(url)
        self.shared = parsed.get_backend_name() == "postgresql"
        self.threads = 4 if self.shared else 1  # that can do useful work side by side
        self._shown = parsed.render_as_string(hide_password=True)
        self._wall = wall
        self._engine = _postgres(parsed) if self.shared else _sqlite(parsed)
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"Database({self._shown})"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises StateUnavailable."""
        with self._reached(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; on SQLite the only one that does. Raises StateUnavailable."""
        with self._reached(), self._engine.connect() as connection:
            writer = connection.execution_options(salver_writes=True)
            with writer.begin():
                yield writer

    def now(self, connection: Connection) -> float:
        """Unix seconds, on one clock for everybody who shares the store."""
        if self._wall is not None:
            return self._wall()
        if not self.shared:
            return time.time()
        return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)

    def close(self) -> None:
        self._engine.dispose()

    def _set_up(self) -> None:
        """Make the tables that are missing; refuse those of another version."""
        with self.writing() as connection:
            if self.shared:
                connection.execute(select(func.pg_advisory_xact_lock(_SETUP_LOCK)))
            metadata.create_all(connection)
            found = connection.scalar(select(versions.c.version))
            if found is None:
                connection.execute(insert(versions).values(version=SCHEMA_VERSION))
                connection.execute(insert(revisions).values(name=KEYS, revision=0))
            elif found != SCHEMA_VERSION:
                raise StateUnavailable(
                    f"the state store {self._shown} was written by another version of Salver",
                    rule="state.version",
                    value=found,
                    limit=SCHEMA_VERSION,
                    fix="use that version, or another store",
                )

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn the database's own errors into ours. A broken statement of ours is a bug and stays."""
        try:
            yield
        except (DataError, IntegrityError, ProgrammingError):
            raise
        except (DBAPIError, PoolTimeout) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StateUnavailable(
                f"the state store {self._shown} cannot be used: {_first_line(cause)}",
                rule="state.available",
                fix="see that it runs and can be reached, then try again",
            ) from error


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite state store in a file."""
    return f"sqlite:///{path}"


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
    except ArgumentError:
        kind = "?"
    if kind not in {"sqlite", "postgresql"} or (kind == "sqlite" and not parsed.database):
        raise InvalidValue(
            "the state store is none that Salver knows",
            param="SALVER_STATE",
            rule="state.url",
            fix="write sqlite:////absolute/path/state.db or postgresql://USER:PASSWORD@HOST/NAME",
        )
    return parsed


def _sqlite(url: URL) -> Engine:
    """WAL, so that readers never wait for the writer; files that only their owner can read."""
    path = Path(str(url.database))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(
        url.set(drivername="sqlite"), connect_args={"timeout": float(PATIENCE_SECONDS)}
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        _write_ahead(connection)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writes = connection.get_execution_options().get("salver_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Make it a WAL file, which it then stays.

    SQLite waits for a lock, but not for others who turn the same new file into one: it tells them busy
    at once. So the waiting is done here.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= end:
                raise
            time.sleep(0.005)


def _postgres(url: URL) -> Engine:
    milliseconds = PATIENCE_SECONDS * 1000
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_size=5,
            max_overflow=0,
            pool_timeout=PATIENCE_SECONDS,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": PATIENCE_SECONDS,
                "tcp_user_timeout": milliseconds,
                "options": f"-c lock_timeout={milliseconds} -c statement_timeout={milliseconds}",
            },
        )
    except ModuleNotFoundError as error:
        raise StateUnavailable(
            "PostgreSQL's client library is not installed",
            rule="state.driver",
            value=error.name,
            fix="pip install 'salver[postgres]'",
        ) from error


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]
