"""API keys: made here, shown once, kept as hashes (see `key_record`).

A gateway keeps all keys in memory and asks the store for one number to learn whether they have
changed; so an attacker's unknown keys cost no query each.
"""

import base64
import re
import secrets
from collections.abc import Sequence

from sqlalchemy import Connection, Row, insert, select, update

from salver.contract.scope import Scope
from salver.errors import InvalidValue
from salver.state.database import Database
from salver.state.key_record import KeyRecord, KeySnapshot, hash_of
from salver.state.schema import KEYS, NOTE_CHARS, keys, revisions

PREFIX = "sk-salver-"
SECRET_BYTES = 32
_TENANT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class KeyStore:
    """Creates, lists and revokes keys in one state store. All methods raise StateUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        tenant: str,
        scopes: frozenset[Scope],
        *,
        lifetime_seconds: float | None = None,
        note: str = "",
    ) -> tuple[str, KeyRecord]:
        """Make a key; returns the key itself, which is nowhere else, and its record.

        Raises:
            InvalidValue: the tenant's name is not one that a contract could declare.
        """
        _check(tenant, scopes, note)
        key_id = base64.b32encode(secrets.token_bytes(10)).decode().lower()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self._database.writing() as connection:
            now = self._database.now(connection)
            expires = None if lifetime_seconds is None else now + lifetime_seconds
            record = KeyRecord(
                key_id, hash_of(key_id, secret), tenant, scopes, note, now, expires, None
            )
            connection.execute(insert(keys).values(_row(record)))
            _bump(connection)
        return f"{PREFIX}{key_id}-{secret}", record

    def list(self, tenant: str | None = None) -> Sequence[KeyRecord]:
        """Every key ever made, or those of one tenant, oldest first."""
        wanted = select(keys).order_by(keys.c.created, keys.c.id)
        if tenant is not None:
            wanted = wanted.where(keys.c.tenant == tenant)
        with self._database.reading() as connection:
            return [_record(row) for row in connection.execute(wanted)]

    def revoke(self, key_id: str) -> KeyRecord:
        """End a key's life; revoking it again changes nothing.

        Raises:
            InvalidValue: there is no such key.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            live = update(keys).where(keys.c.id == key_id, keys.c.revoked.is_(None))
            if connection.execute(live.values(revoked=now)).rowcount:
                _bump(connection)
            row = connection.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
        if row is None:
            raise InvalidValue(
                "there is no key with this id",
                rule="keys.id",
                value=key_id,
                fix="`salver keys list` shows the ids",
            )
        return _record(row)

    def snapshot(self, known: KeySnapshot | None = None) -> KeySnapshot:
        """All keys as they are now; those that are `known` are not read again if nothing changed."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            revision = _revision(connection)
            if known is not None and known.revision == revision:
                return KeySnapshot(revision, now, known.records)
            records = {row.id: _record(row) for row in connection.execute(select(keys))}
        return KeySnapshot(revision, now, records)


def _check(tenant: str, scopes: frozenset[Scope], note: str) -> None:
    if not _TENANT.fullmatch(tenant):
        raise InvalidValue(
            "this cannot be the name of a tenant",
            param="tenant",
            rule="schema.form",
            value=tenant,
            limit=_TENANT.pattern,
        )
    if not scopes:
        raise InvalidValue("a key needs a scope", param="scopes", rule="keys.scopes")
    if len(note) > NOTE_CHARS:
        raise InvalidValue(
            "the note is too long",
            param="note",
            rule="keys.note",
            value=len(note),
            limit=NOTE_CHARS,
        )


def _bump(connection: Connection) -> None:
    """Tell every gateway that the keys have changed."""
    revision = update(revisions).where(revisions.c.name == KEYS)
    connection.execute(revision.values(revision=revisions.c.revision + 1))


def _revision(connection: Connection) -> int:
    mine = select(revisions.c.revision).where(revisions.c.name == KEYS)
    return int(connection.execute(mine).scalar_one())


def _row(record: KeyRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "hash": record.hash,
        "tenant": record.tenant,
        "scopes": ",".join(sorted(record.scopes)),
        "note": record.note,
        "created": record.created,
        "expires": record.expires,
        "revoked": record.revoked,
    }


def _record(row: "Row[tuple[object, ...]]") -> KeyRecord:
    return KeyRecord(
        id=row.id,
        hash=bytes(row.hash),
        tenant=row.tenant,
        scopes=frozenset(Scope(scope) for scope in row.scopes.split(",")),
        note=row.note,
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )
