"""The state store, on a clock that tests move."""

from collections.abc import Callable, Iterator

import pytest

from salver.state import Database


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
