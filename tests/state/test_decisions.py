"""Every Decision is in the log or counted as lost, and the log is bounded and never changed."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from salver.contract import Action, Cause, Decision
from salver.errors import StateUnavailable
from salver.state import DecisionLog, find_decisions
from salver.telemetry import Decided, RequestRefused


def decided(number: int) -> Decided:
    decision = Decision(
        f"dec-{number}", "tenants.max_in_flight", 3, 2, Action.REFUSE, Cause.CALLER, "full", 1.5
    )
    return Decided(decision, "search", f"req-{number}")


def log(path: Path, **options: int) -> DecisionLog:
    return DecisionLog(path, deployment="assistant", release="r1", wall=lambda: 1000.0, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "decisions.db"


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as file:
        return [row[0] for row in file.execute("SELECT id FROM decisions ORDER BY seq")]


def test_a_decision_is_found_as_it_was(path: Path) -> None:
    writing = log(path)
    writing.observe(decided(1))
    writing.observe(RequestRefused("any", 400))
    writing.close()
    (found,) = find_decisions(path, "dec-1")
    assert found.decision == decided(1).decision
    assert (found.at, found.deployment, found.release) == (1000.0, "assistant", "r1")
    assert (found.tenant, found.request_id) == ("search", "req-1")
    assert find_decisions(path, "dec-2") == []
    assert find_decisions(path.with_name("absent.db"), "dec-1") == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_oldest_go_when_the_bound_is_reached(path: Path) -> None:
    for start in (0, 10):
        writing = log(path, max_rows=5)
        for number in range(start, start + 10):
            writing.observe(decided(number))
        writing.close()
    assert rows(path) == [f"dec-{number}" for number in range(15, 20)]


def test_a_row_is_never_changed(path: Path) -> None:
    writing = log(path)
    writing.observe(decided(1))
    writing.close()
    with (
        closing(sqlite3.connect(path)) as file,
        pytest.raises(sqlite3.IntegrityError, match="never changed"),
    ):
        file.execute("UPDATE decisions SET id = 'dec-2'")


def test_what_is_lost_under_pressure_is_counted(path: Path) -> None:
    writing = log(path, max_waiting=3)
    with closing(sqlite3.connect(path)) as hog:
        hog.execute("BEGIN IMMEDIATE")  # the writer waits for this
        begun = time.monotonic()
        for number in range(1000):
            writing.observe(decided(number))
        assert time.monotonic() - begun < 1.0, "noting never waits for the file"
        assert writing.lost >= 900
        hog.rollback()
    writing.close()
    assert len(rows(path)) + writing.lost == 1000


def test_a_file_that_cannot_be_written_loses_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writing = log(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE decisions")
    writing.observe(decided(1))
    writing.close()
    assert writing.lost == 1
    assert "1 decisions were not recorded" in caplog.text


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "decisions.db").write_bytes(b"something else" * 100)
    with pytest.raises(StateUnavailable, match="cannot be used"):
        log(tmp_path / "decisions.db")
    with pytest.raises(StateUnavailable):
        find_decisions(tmp_path / "decisions.db", "dec-1")
