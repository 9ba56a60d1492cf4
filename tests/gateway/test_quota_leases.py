"""Leases and late writes, where the state store fails in ways that nobody foresaw."""

import asyncio
import logging
from contextlib import closing
from typing import Any, cast

import pytest

from salver.contract import StateAway
from salver.flow.quota import Quota, Standing
from salver.gateway import StoreThreads
from salver.gateway.tenancy import quotas
from salver.gateway.tenancy.quotas import Charge, StoredQuotas
from salver.state import QuotaStore, Reservation


class Failing:
    """A store whose first renewal, and whose every settlement, ends in what no store should raise."""

    def __init__(self) -> None:
        self.renewals = 0
        self.renewed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def reserve(self, *_: Any) -> Reservation:
        return Reservation("call-1", "labs", 10, 0, Standing())

    def renew(self, _: Reservation) -> bool:
        self.renewals += 1
        if self.renewals == 1:
            raise ZeroDivisionError("no store raises this")
        self._loop.call_soon_threadsafe(self.renewed.set)
        return True

    def settle(self, *_: Any) -> None:
        raise ZeroDivisionError("nor this")


async def test_a_lease_is_renewed_after_an_error_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quotas, "LEASE_SECONDS", 0.03)
    store, threads = Failing(), StoreThreads(1)
    bounds = {"labs": Quota(max_in_flight=1)}
    held = StoredQuotas(
        cast("QuotaStore", store), threads, bounds, StateAway(), observe=lambda _: None
    )
    with caplog.at_level(logging.WARNING), closing(threads):
        async with held.hold(Charge("call-1", "labs", 10), tell=lambda _: None):
            await asyncio.wait_for(store.renewed.wait(), 10)
    told = [record.message for record in caplog.records]
    assert "the lease of call-1 was not renewed" in told
    assert "not written" in told  # the settlement
