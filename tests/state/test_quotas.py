"""Quotas are never overspent (law 14): by interleaving, by racing, by crashing."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from salver.flow.quota import LEASE_SECONDS, Denial, Quota
from salver.state import Database, QuotaStore, Reservation, sqlite_url

if TYPE_CHECKING:
    from tests.state.conftest import Wall

QUOTA = Quota(
    requests_per_minute=6, tokens_per_minute=100, max_in_flight=4, max_tokens_in_flight=80
)


def reserve(store: QuotaStore, call: str, quota: Quota, tokens: int) -> Reservation:
    reserved = store.reserve(call, "search", quota, tokens)
    assert isinstance(reserved, Reservation), reserved
    return reserved


def test_what_was_not_used_is_given_back(database: Database) -> None:
    store = QuotaStore(database, "assistant")
    first = reserve(store, "a", QUOTA, 80)
    refused = store.reserve("b", "search", QUOTA, 30)
    assert isinstance(refused, Denial)
    assert refused.decision.rule == "tenants.max_tokens_in_flight"
    assert refused.standing.tokens is not None
    assert refused.standing.tokens.remaining == QUOTA.tokens_per_minute - 80  # type: ignore[operator]
    store.settle(first, 20)
    store.settle(first, 0)  # a second time: nothing
    second = reserve(store, "c", QUOTA, 80)
    assert second.standing.tokens is not None
    assert second.standing.tokens.remaining == 0
    assert second.standing.requests is not None
    assert second.standing.requests.remaining == 4


def test_tenants_and_deployments_do_not_spend_each_others_quota(database: Database) -> None:
    full = Quota(max_in_flight=1)
    store, other = QuotaStore(database, "assistant"), QuotaStore(database, "coder")
    assert isinstance(store.reserve("a", "search", full, 1), Reservation)
    assert isinstance(store.reserve("b", "labs", full, 1), Reservation)
    assert isinstance(other.reserve("c", "search", full, 1), Reservation)
    assert isinstance(store.reserve("d", "search", full, 1), Denial)


def test_a_crashed_gateways_calls_end_with_their_lease(database: Database, wall: "Wall") -> None:
    quota = Quota(max_in_flight=1, tokens_per_minute=100)
    store = QuotaStore(database, "assistant")
    lost = reserve(store, "lost", quota, 60)
    wall.now += LEASE_SECONDS - 1
    assert store.renew(lost)
    wall.now += LEASE_SECONDS - 1
    assert isinstance(store.reserve("b", "search", quota, 10), Denial), "it was renewed"
    wall.now += 1
    assert isinstance(store.reserve("c", "search", quota, 10), Reservation)
    assert not store.renew(lost)
    store.settle(lost, 0)  # it lives after all: what it was charged for stays charged


def test_two_hundred_at_once_over_two_gateways(open_database: Callable[[], Database]) -> None:
    quota = Quota(tokens_per_minute=1000, requests_per_minute=150)
    gateways = [QuotaStore(open_database(), "assistant") for _ in range(2)]

    def call(number: int) -> Reservation | Denial:
        return gateways[number % 2].reserve(f"call-{number}", "search", quota, 10)

    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(call, range(200)))
    admitted = [end for end in ends if isinstance(end, Reservation)]
    refused = [end for end in ends if isinstance(end, Denial)]
    assert len(admitted) == 100, "all of the quota and nothing beyond it"
    assert {end.decision.rule for end in refused} == {"tenants.tokens_per_minute"}
    assert all(end.decision.value == 1010 for end in refused)


def test_racing_calls_that_end_leave_nothing_behind(
    open_database: Callable[[], Database],
) -> None:
    quota = Quota(max_in_flight=5, max_tokens_in_flight=45)
    gateways = [QuotaStore(open_database(), "assistant") for _ in range(2)]

    def call(number: int) -> bool:
        store = gateways[number % 2]
        reserved = store.reserve(f"call-{number}", "search", quota, 10)
        if isinstance(reserved, Denial):
            return False
        store.settle(reserved, 3)
        return True

    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(call, range(100)))
    assert admitted >= 4
    left = [gateways[0].reserve(f"after-{number}", "search", quota, 10) for number in range(5)]
    assert [isinstance(end, Reservation) for end in left] == [True, True, True, True, False]


class Spending(RuleBasedStateMachine):
    """A model that knows what every call was charged and used, beside the store that decides."""

    live = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = 5000.0
        self.database = Database(
            sqlite_url(Path(self.directory.name) / "state.db"), wall=lambda: self.now
        )
        self.store = QuotaStore(self.database, "assistant")
        self.charged: dict[str, tuple[float, int]] = {}
        self.in_flight: dict[str, tuple[float, int]] = {}  # until when its lease runs, tokens
        self.calls = 0

    @rule(target=live, tokens=st.integers(1, 60))
    def arrive(self, tokens: int) -> object:
        self.calls += 1
        name = f"call-{self.calls}"
        end = self.store.reserve(name, "search", QUOTA, tokens)
        fits = self._fits(tokens)
        if isinstance(end, Denial):
            assert not fits, f"refused by {end.decision.rule} although it fits"
            return multiple()
        self.charged[name] = (self.now, tokens)
        self.in_flight[name] = (self.now + LEASE_SECONDS, tokens)
        return end

    def _fits(self, tokens: int) -> bool:
        """Whether it fits for sure: a second counts up to one second longer than it must."""
        recent = [used for at, used in self.charged.values() if at > self.now - 61]
        held = [held for until, held in self.in_flight.values() if until > self.now]
        return (
            sum(recent) + tokens <= 100
            and len(recent) < 6
            and sum(held) + tokens <= 80
            and len(held) < 4
        )

    @rule(reservation=consumes(live), share=st.floats(0, 1))
    def finish(self, reservation: Reservation, share: float) -> None:
        used = int(reservation.tokens * share)
        self.store.settle(reservation, used)
        until, _ = self.in_flight.pop(reservation.id)
        if until > self.now:
            self.charged[reservation.id] = (self.charged[reservation.id][0], used)

    @rule(reservation=consumes(live))
    def crash(self, reservation: Reservation) -> None:
        """Nobody settles it."""

    @rule(reservation=live)
    def renew(self, reservation: Reservation) -> None:
        until, tokens = self.in_flight[reservation.id]
        if until > self.now and self.store.renew(reservation):
            self.in_flight[reservation.id] = (self.now + LEASE_SECONDS, tokens)

    @rule(seconds=st.floats(0.01, 70))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def law_14_no_quota_is_overspent(self) -> None:
        held = [tokens for until, tokens in self.in_flight.values() if until > self.now]
        assert len(held) <= 4
        assert sum(held) <= 80
        for end, _ in self.charged.values():
            inside = [used for at, used in self.charged.values() if end - 60 < at <= end]
            assert len(inside) <= 6
            assert sum(inside) <= 100

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=30, stateful_step_count=40)
