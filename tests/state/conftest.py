"""The state store on SQLite and on a real PostgreSQL server that the tests start themselves."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from salver.state import Database, sqlite_url

_names = (f"salver_{number}" for number in itertools.count())


def _server_programs() -> Path | None:
    """The directory of `initdb` and `postgres`, or None where no server is installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists()), None)


def _server_user() -> str | None:
    """PostgreSQL refuses to run as root; its own account is used then."""
    return "postgres" if os.geteuid() == 0 else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server's maintenance database; SALVER_TEST_POSTGRES names another server."""
    if given := os.environ.get("SALVER_TEST_POSTGRES"):
        yield given
        return
    programs = _server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here")
    with tempfile.TemporaryDirectory(prefix="salver-pg-", ignore_cleanup_errors=True) as directory:
        yield from _running(programs, Path(directory))


def _running(programs: Path, directory: Path) -> Iterator[str]:
    user = _server_user()
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    options = ["-U", "salver", "-A", "trust", "--no-sync"]
    command: list[str | Path] = [programs / "initdb", "-D", data, *options]
    subprocess.run(command, check=True, user=user, cwd=directory, stdout=subprocess.DEVNULL)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(directory), "-c", "fsync=off"]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], user=user, cwd=directory, stderr=log
        )
    try:
        url = f"postgresql://salver@127.0.0.1:{port}/postgres"
        _until_up(url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def _until_up(url: str) -> None:
    patience = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < patience, "PostgreSQL did not start"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of the test's own."""
    name = next(_names)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.rpartition("/")[0] + f"/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, on each kind of database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "state.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


class Wall:
    """A wall clock that tests move by hand."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def open_database(store_url: str, wall: Wall) -> Iterator[Callable[[], Database]]:
    """Opens the same store as often as there are gateways."""
    opened: list[Database] = []

    def open_one() -> Database:
        opened.append(Database(store_url, wall=wall))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: Callable[[], Database]) -> Database:
    return open_database()
