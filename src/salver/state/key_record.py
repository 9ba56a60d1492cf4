"""A key as text, and what the store knows of it; nothing here needs the store's library.

A key is `sk-salver-ID-SECRET`. The id is public: it finds the row, and is what people list and
revoke. The secret is 256 random bits, and only its keyed BLAKE2b hash is stored, the key being the
id. A fast hash is right here and would be wrong for a password: nobody guesses 256 random bits at
any speed, so slowness would protect nothing and cost every request. Keying it by the id ties a
hash to its row, so that it cannot be moved to another tenant's.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from salver.contract import Scope

_KEY = re.compile(r"sk-salver-([a-z2-7]{16})-([A-Za-z0-9_-]{43})")


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
        return hmac.compare_digest(self.hash, hash_of(self.id, secret))

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


def hash_of(key_id: str, secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), key=key_id.encode(), digest_size=32).digest()
