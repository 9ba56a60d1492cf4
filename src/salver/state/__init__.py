"""What outlives a process, in SQL: keys, what tenants have used of their quotas, decisions."""

from salver.state.database import Database, sqlite_url
from salver.state.decisions import DecisionLog, DecisionRecord, find_decisions
from salver.state.keys import KeyRecord, KeySnapshot, KeyStore, split_key
from salver.state.quotas import LEASE_SECONDS, QuotaStore, Reservation

__all__ = [
    "LEASE_SECONDS",
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
