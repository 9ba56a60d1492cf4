"""What outlives a process, in SQL: keys, and what tenants have used of their quotas."""

from salver.state.database import Database, sqlite_url
from salver.state.keys import KeyRecord, KeySnapshot, KeyStore, split_key
from salver.state.quotas import LEASE_SECONDS, QuotaStore, Reservation

__all__ = [
    "LEASE_SECONDS",
    "Database",
    "KeyRecord",
    "KeySnapshot",
    "KeyStore",
    "QuotaStore",
    "Reservation",
    "split_key",
    "sqlite_url",
]
