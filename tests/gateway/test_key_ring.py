"""The keys in memory: what they are worth when the store fails, in whatever way."""

import asyncio
from math import inf

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.exc import ProgrammingError

from salver.contract import Scope
from salver.errors import StateUnavailable
from salver.gateway import StoreThreads
from salver.gateway.tenancy.key_ring import REFRESH_SECONDS, KeyRing
from salver.state import Database, KeyRecord, KeySnapshot, KeyStore
from salver.state.schema import KEYS, keys, revisions
from salver.testing import ManualClock

FAILURES = (
    StateUnavailable("away", rule="state.available"),
    ProgrammingError("SELECT", None, Exception("permission denied for table keys")),
    ValueError("'chief' is not a valid Scope"),
    KeyError("revision"),
)
RECORD = KeyRecord("known", bytes(32), "search", frozenset({Scope.INFERENCE}), "", 0.0, None, None)


class ScriptedStore(KeyStore):
    """Fails with `failure`, or has one key, on the clock that the ring is on."""

    def __init__(self, clock: ManualClock) -> None:
        self.failure: Exception | None = None
        self._clock = clock

    def snapshot(self, known: KeySnapshot | None = None) -> KeySnapshot:
        if self.failure is not None:
            raise self.failure
        return KeySnapshot(1, self._clock.now(), {RECORD.id: RECORD})


@settings(max_examples=60, deadline=None)
@given(
    fail_open=st.booleans(),
    looks=st.lists(
        st.tuples(
            st.sampled_from([None, *FAILURES]),
            st.sampled_from([0.0, 0.3, REFRESH_SECONDS, 5.0]),
            st.integers(1, 3),
        ),
        max_size=8,
    ),
)
def test_law_no_key_is_taken_on_a_look_that_failed(
    threads: StoreThreads,
    fail_open: bool,
    looks: list[tuple[Exception | None, float, int]],
) -> None:
    """Whatever was raised: closed is closed until a look succeeds, and the store's clock goes on."""

    async def callers(ring: KeyRing, number: int) -> list[object]:
        finds = (ring.find(RECORD.id) for _ in range(number))
        return await asyncio.gather(*finds, return_exceptions=True)

    async def run() -> None:
        clock = ManualClock()
        store = ScriptedStore(clock)
        ring = KeyRing(store, threads, clock, fail_open=fail_open)
        seen, fresh, failed = False, -inf, False
        for failure, seconds, number in looks:
            clock.advance(seconds)
            store.failure = failure
            if clock.now() - fresh >= REFRESH_SECONDS:
                seen, fresh, failed = seen or failure is None, clock.now(), failure is not None
            for found in await callers(ring, number):
                if not seen or (failed and not fail_open):
                    assert isinstance(found, StateUnavailable), found
                else:
                    assert found == (RECORD, pytest.approx(clock.now()))

    asyncio.run(run())


async def test_a_store_with_what_this_version_does_not_know_revokes_nobody_quietly(
    keyed: FastAPI, database: Database, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A scope that only a newer version has: nobody is let in on what was known before."""
    key, record = KeyStore(database).create("search", frozenset({Scope.INFERENCE}))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(keyed),
        base_url="http://salver",
        headers={"authorization": f"Bearer {key}"},
    )
    async with client:
        assert (await client.get("/v1/models")).status_code == 200
        with database.writing() as connection:
            connection.execute(
                update(keys).where(keys.c.id == record.id).values(scopes="chief", revoked=1.0)
            )
            connection.execute(
                update(revisions)
                .where(revisions.c.name == KEYS)
                .values(revision=revisions.c.revision + 1)
            )
        for _ in range(3):
            clock.advance(REFRESH_SECONDS)
            for _ in range(3):
                refused = await client.get("/v1/models")
                assert refused.status_code == 503
                assert refused.json()["error"]["rule"] == "state.keys"
                assert "chief" not in refused.text
    assert "chief" in caplog.text
