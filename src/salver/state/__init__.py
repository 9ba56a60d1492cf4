"""What outlives a process, in SQL: keys, what tenants have used of their quotas."""

from salver.state.database import Database, sqlite_url
from salver.state.keys import KeyRecord, KeySnapshot, KeyStore, split_key

__all__ = ["Database", "KeyRecord", "KeySnapshot", "KeyStore", "split_key", "sqlite_url"]
