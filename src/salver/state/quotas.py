"""Quotas that hold over every gateway that shares the store.

Deciding and charging are one transaction under the account's lock, so no two gateways decide on the
same numbers. A reservation carries a lease: a gateway that dies stops renewing it, and what it held
in flight is free again when the lease ends. What such calls were charged for the minute stays
charged; nobody is left to say what they used.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, text, update

from salver.flow.quota import (
    LEASE_SECONDS,
    Denial,
    Quota,
    Spent,
    Standing,
    Use,
    charged,
    oldest_second,
    refusal,
    standing,
)
from salver.state.database import Database
from salver.state.schema import accounts, reservations, usage

_OPEN_ACCOUNT = text(
    "INSERT INTO salver_accounts (account) VALUES (:account) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Reservation:
    """`tokens` held for one call of one account, and charged in one second of Unix time."""

    id: str
    account: str
    tokens: int
    second: int
    standing: Standing


class QuotaStore:
    """The quotas of one deployment's tenants. All methods raise StateUnavailable."""

    def __init__(self, database: Database, deployment: str) -> None:
        self._database = database
        self._deployment = deployment

    def reserve(self, call_id: str, tenant: str, quota: Quota, tokens: int) -> Reservation | Denial:
        """Charge a call with the most it can use, or say which bound it would break."""
        account = f"{self._deployment}/{tenant}"
        with self._database.writing() as connection:
            _lock(connection, account)
            now = self._database.now(connection)
            _forget(connection, account, now)
            use = _use(connection, account)
            refused = refusal(f"dec-{call_id}", quota, use, tokens, now)
            if refused is not None:
                return Denial(refused, standing(quota, use, now))
            second = int(now)
            _charge(connection, account, second, tokens)
            connection.execute(
                insert(reservations).values(
                    id=call_id, account=account, tokens=tokens, expires=now + LEASE_SECONDS
                )
            )
        after = standing(quota, charged(use, second, tokens), now)
        return Reservation(call_id, account, tokens, second, after)

    def settle(self, reservation: Reservation, used: int) -> None:
        """End a reservation and give back what the call did not use.

        One that has ended already, settled or by its lease, gives nothing back.
        """
        with self._database.writing() as connection:
            _lock(connection, reservation.account)
            _forget(connection, reservation.account, self._database.now(connection))
            ended = delete(reservations).where(reservations.c.id == reservation.id)
            if not connection.execute(ended).rowcount:
                return
            second = update(usage).where(
                usage.c.account == reservation.account, usage.c.second == reservation.second
            )
            given_back = reservation.tokens - used
            connection.execute(second.values(tokens=usage.c.tokens - given_back))

    def renew(self, reservation: Reservation) -> bool:
        """Begin the lease anew; False if it has ended."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            mine = update(reservations).where(reservations.c.id == reservation.id)
            found = connection.execute(mine.values(expires=now + LEASE_SECONDS))
        return bool(found.rowcount)


def _lock(connection: Connection, account: str) -> None:
    """Wait for the account's turn. SQLite's writing transaction has it already."""
    mine = select(accounts).where(accounts.c.account == account).with_for_update()
    if connection.execute(mine).one_or_none() is None:
        connection.execute(_OPEN_ACCOUNT, {"account": account})
        connection.execute(mine).one()


def _forget(connection: Connection, account: str, now: float) -> None:
    """Drop what counts no more: leases that ended, seconds that left the window."""
    connection.execute(
        delete(reservations).where(reservations.c.account == account, reservations.c.expires <= now)
    )
    connection.execute(
        delete(usage).where(usage.c.account == account, usage.c.second < oldest_second(now))
    )


def _use(connection: Connection, account: str) -> Use:
    held = select(func.count(), func.coalesce(func.sum(reservations.c.tokens), 0))
    in_flight, tokens = connection.execute(held.where(reservations.c.account == account)).one()
    seconds = select(usage).where(usage.c.account == account).order_by(usage.c.second)
    minute = [Spent(row.second, row.requests, row.tokens) for row in connection.execute(seconds)]
    return Use(int(in_flight), int(tokens), minute)


def _charge(connection: Connection, account: str, second: int, tokens: int) -> None:
    now = update(usage).where(usage.c.account == account, usage.c.second == second)
    more = now.values(requests=usage.c.requests + 1, tokens=usage.c.tokens + tokens)
    if not connection.execute(more).rowcount:
        fresh = insert(usage).values(account=account, second=second, requests=1, tokens=tokens)
        connection.execute(fresh)
