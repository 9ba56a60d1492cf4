"""API keys: made here, shown once, kept as hashes.

A key is `sk-salver-ID-SECRET`. The id is public: it finds the row, and is what people list and
revoke. The secret is 256 random bits, and only its keyed BLAKE2b hash is stored, the key being the
id. A fast hash is right here and would be wrong for a password: nobody guesses 256 random bits at
any speed, so slowness would protect nothing and cost every request. Keying it by the id ties a
hash to its row, so that it cannot be moved to another tenant's.

A gateway keeps all keys in memory and asks the store for one number to learn whether they have
changed; so an attacker's unknown keys cost no query each.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, update

from salver.contract.scope import Scope
from salver.errors import InvalidValue
from salver.state.database import Database
from salver.state.schema import KEYS, NOTE_CHARS, keys, revisions

PREFIX = "sk-salver-"
SECRET_BYTES = 32
_KEY = re.compile(r"sk-salver-([a-z2-7]{16})-([A-Za-z0-9_-]{43})")
_TENANT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the store knows of a key. Instants are Unix seconds; None: never."""

    id: str
    hash: bytes
    tenant: str
    scopes: frozenset[Scope]
    note: str
    created: float
    expires: float | None
    revoked: float | None

    def matches(self, secret: str) -> bool:
        """Whether this is the key's secret; takes the same time whether it is or not."""
        return hmac.compare_digest(self.hash, _hash(self.id, secret))

    def expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """Every key of the store by its id, at one revision; `now` is the store's clock."""

    revision: int
    now: float
    records: Mapping[str, KeyRecord]


def split_key(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key, or None if it has not the form of one."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


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
                key_id, _hash(key_id, secret), tenant, scopes, note, now, expires, None
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


def _hash(key_id: str, secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), key=key_id.encode(), digest_size=32).digest()


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
