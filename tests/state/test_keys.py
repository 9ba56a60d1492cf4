"""Keys are shown once, stored as hashes, and end when they are told to."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from salver.contract.scope import Scope
from salver.errors import InvalidValue, StateUnavailable
from salver.state import Database, KeyStore, split_key, sqlite_url
from salver.state.schema import keys, versions

if TYPE_CHECKING:
    from tests.state.conftest import Wall

BOTH = frozenset(Scope)
INFERENCE = frozenset({Scope.INFERENCE})


def test_a_key_matches_its_record_and_nothing_else_does(database: Database, wall: "Wall") -> None:
    store = KeyStore(database)
    text, record = store.create("search", INFERENCE, note="for the index")
    wall.now += 1
    other, _ = store.create("labs", BOTH)
    key_id, secret = split_key(text) or ("", "")
    assert key_id == record.id
    assert record.matches(secret)
    assert not record.matches((split_key(other) or ("", ""))[1])
    assert store.list("search") == [record]
    assert [each.tenant for each in store.list()] == ["search", "labs"]


def test_the_store_holds_no_secret(database: Database) -> None:
    text, record = KeyStore(database).create("search", INFERENCE)
    secret = text[-43:]
    with database.reading() as connection:
        (row,) = connection.execute(select(keys))
    assert secret not in repr(row)
    assert secret not in repr(record)
    assert len(row.hash) == 32


def test_a_hash_is_of_its_own_row(database: Database) -> None:
    """Whoever can write rows cannot give another row's hash a new tenant under a new id."""
    store = KeyStore(database)
    text, _ = store.create("search", INFERENCE)
    victim, (_, other) = store.list("search")[0], store.create("labs", BOTH)
    with database.writing() as connection:
        connection.execute(update(keys).where(keys.c.id == other.id).values(hash=victim.hash))
    (_, secret) = split_key(text) or ("", "")
    assert not store.list("labs")[0].matches(secret)


def test_keys_differ_in_256_bits(database: Database) -> None:
    store = KeyStore(database)
    secrets = {(split_key(store.create("a", INFERENCE)[0]) or ("", ""))[1] for _ in range(20)}
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {43}  # 256 bits in base64


def test_expiry_is_on_the_clock_of_the_store(database: Database, wall: "Wall") -> None:
    _, record = KeyStore(database).create("a", INFERENCE, lifetime_seconds=60)
    assert not record.expired(wall.now + 59)
    assert record.expired(wall.now + 60)


def test_revoking_is_seen_by_a_snapshot_and_only_then_are_keys_read_again(
    open_database: Callable[[], Database], wall: "Wall"
) -> None:
    here, there = KeyStore(open_database()), KeyStore(open_database())
    _, record = here.create("a", INFERENCE)
    first = there.snapshot()
    assert first.records[record.id].revoked is None
    assert there.snapshot(first).records is first.records
    here.revoke(record.id)
    assert there.snapshot(first).records[record.id].revoked == wall.now
    assert here.revoke(record.id).revoked == wall.now, "again changes nothing"


def test_an_unknown_id_cannot_be_revoked(database: Database) -> None:
    with pytest.raises(InvalidValue, match="no key with this id"):
        KeyStore(database).revoke("a" * 16)


@pytest.mark.parametrize("tenant", ["", "a b", "-a", "a" * 64, "ü"])
def test_a_tenant_is_named_as_in_a_contract(database: Database, tenant: str) -> None:
    with pytest.raises(InvalidValue):
        KeyStore(database).create(tenant, INFERENCE)
    assert KeyStore(database).list() == []


def test_a_key_needs_a_scope_and_a_short_note(database: Database) -> None:
    with pytest.raises(InvalidValue):
        KeyStore(database).create("a", frozenset())
    with pytest.raises(InvalidValue):
        KeyStore(database).create("a", INFERENCE, note="x" * 201)


@pytest.mark.parametrize(
    "text", ["", "sk-salver-", "sk-salver-short-x", "sk-other-aaaaaaaaaaaaaaaa-" + "x" * 43]
)
def test_what_is_no_key_is_not_split(text: str) -> None:
    assert split_key(text) is None


def test_keys_made_side_by_side_are_all_there(open_database: Callable[[], Database]) -> None:
    stores = [KeyStore(open_database()) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: stores[number % 3].create("a", INFERENCE), range(30)))
    assert len(stores[0].list()) == 30
    assert stores[0].snapshot().revision == 30


def test_stores_opened_at_once_make_their_tables_once(store_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: Database(store_url), range(6)))
    for database in opened:
        assert KeyStore(database).list() == []
        database.close()


def test_a_store_of_another_version_is_refused(database: Database, store_url: str) -> None:
    with database.writing() as connection:
        connection.execute(update(versions).values(version=99))
    with pytest.raises(StateUnavailable, match="another version") as refused:
        Database(store_url)
    assert refused.value.value == 99


def test_the_clock_is_the_same_for_all_who_share_a_store(store_url: str) -> None:
    database = Database(store_url)
    with database.reading() as connection:
        first = database.now(connection)
    with database.reading() as connection:
        assert first <= database.now(connection) <= first + 60
    database.close()


class TestAStoreThatIsAway:
    def test_a_server_that_is_not_there(self) -> None:
        with pytest.raises(StateUnavailable, match="cannot be used") as away:
            Database("postgresql://salver:hunter2@127.0.0.1:1/none")
        assert "hunter2" not in str(away.value)

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").write_bytes(b"not a database" * 100)
        with pytest.raises(StateUnavailable):
            Database(sqlite_url(tmp_path / "state.db"))

    def test_a_writer_that_does_not_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("salver.state.database.PATIENCE_SECONDS", 0.05)
        database = Database(sqlite_url(tmp_path / "state.db"))
        with sqlite3.connect(tmp_path / "state.db") as hog:
            hog.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateUnavailable, match="locked"):
                KeyStore(database).create("a", INFERENCE)
            assert KeyStore(database).list() == [], "readers do not wait for a writer"
        hog.close()
        database.close()

    @pytest.mark.parametrize("url", ["mysql://a@b/c", "nonsense", "sqlite://", "oracle:x"])
    def test_a_url_of_another_kind(self, url: str) -> None:
        with pytest.raises(InvalidValue, match="none that Salver knows"):
            Database(url)

    def test_only_its_owner_can_read_the_file(self, tmp_path: Path) -> None:
        Database(sqlite_url(tmp_path / "home" / "state.db")).close()
        assert (tmp_path / "home" / "state.db").stat().st_mode & 0o777 == 0o600
