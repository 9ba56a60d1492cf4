"""What outlives a process, in SQL: keys, what tenants have used of their quotas, decisions."""

from typing import TYPE_CHECKING

from salver.lazy import lazily
from salver.state.decisions import DecisionLog, DecisionRecord, find_decisions
from salver.state.key_record import KeyRecord, KeySnapshot, split_key

if TYPE_CHECKING:
    from salver.state.database import Database, sqlite_url
    from salver.state.keys import KeyStore
    from salver.state.quotas import QuotaStore, Reservation

_LATER = {  # a service without tenants does not wait for SQLAlchemy
    "Database": "database",
    "KeyStore": "keys",
    "QuotaStore": "quotas",
    "Reservation": "quotas",
    "sqlite_url": "database",
}
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _LATER)

__all__ = [
    "Database",
    "DecisionLog",
    "DecisionRecord",
    "KeyRecord",
    "KeySnapshot",
    "KeyStore",
    "QuotaStore",
    "Reservation",
    "find_decisions",
    "split_key",
    "sqlite_url",
]
