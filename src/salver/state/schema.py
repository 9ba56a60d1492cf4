"""The tables of the state store. Instants are Unix seconds.

A key's secret is not here, only its hash. `accounts` has one row for each tenant of a deployment;
it holds nothing but is what a gateway locks while it decides on that tenant's quotas. `usage` is
what was charged in each second, `reservations` what is in flight, with the lease that ends it if
its gateway does.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

SCHEMA_VERSION = 1
NOTE_CHARS = 200
KEYS = "keys"  # the name of their revision

metadata = MetaData()

versions = Table("salver_schema", metadata, Column("version", Integer, primary_key=True))

keys = Table(
    "salver_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("scopes", String(200), nullable=False),  # separated by commas
    Column("note", String(NOTE_CHARS), nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
)

revisions = Table(
    "salver_revisions",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

accounts = Table("salver_accounts", metadata, Column("account", String(130), primary_key=True))

usage = Table(
    "salver_usage",
    metadata,
    Column("account", String(130), primary_key=True),
    Column("second", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)

reservations = Table(
    "salver_reservations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account", String(130), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),
    Index("salver_reservations_of_account", "account"),
)
