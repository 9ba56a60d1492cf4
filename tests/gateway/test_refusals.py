"""Refusals and their Decisions: which are kept, and that an answer names no other."""

import random

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import Action, Cause, Decision
from salver.errors import (
    BackendUnavailable,
    Refused,
    SalverError,
    StateUnavailable,
    Unauthenticated,
)
from salver.gateway.errors import KEYLESS_DECISIONS_AT_ONCE, Refusals
from salver.gateway.ids import Ids
from salver.gateway.tenancy.key_ring import REFRESH_SECONDS
from salver.state import KeyStore
from salver.telemetry import Decided, Event
from salver.testing import FakeBackend, ManualClock

PROMPT = {"model": "tiny", "prompt": "a"}
DECISION = Decision("dec-1", "a.rule", 2, 1, Action.REFUSE, Cause.CALLER, "no", retry_after=1.0)
ERRORS = (
    Refused(DECISION),
    Unauthenticated("no key", rule="key.missing"),
    BackendUnavailable("it died", rule="worker.ready"),
    BackendUnavailable("it died and does not say by which rule"),
    StateUnavailable("away", rule="state.available"),
)


@given(
    errors=st.lists(st.sampled_from(ERRORS), max_size=2 * KEYLESS_DECISIONS_AT_ONCE),
    tenant=st.sampled_from(["", "search"]),
)
def test_law_an_answer_names_its_decision_if_and_only_if_it_is_kept(
    errors: list[SalverError], tenant: str
) -> None:
    """And of those whose tenant is unknown few are kept, whatever they are."""
    events: list[Event] = []
    refusals = Refusals(events.append, Ids(random.Random(7)), ManualClock())
    told = [refusals.of(error, "req-1", tenant) for error in errors]
    kept = [event.decision for event in events if isinstance(event, Decided)]
    named = [refusal.detail.decision for refusal in told if refusal.detail.decision]
    assert [decision.id for decision in kept] == named
    assert all(decision.rule for decision in kept)
    for refusal in told:
        assert dict(refusal.headers).get("x-salver-decision") == refusal.detail.decision
    assert len(named) == (len(told) if tenant else min(len(told), KEYLESS_DECISIONS_AT_ONCE))


def client_of(app: FastAPI, key: str = "") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://salver", headers=headers)


async def test_a_backend_that_is_not_ready_leaves_a_decision(
    keyed: FastAPI, key: str, backend: FakeBackend, events: list[Event]
) -> None:
    backend.ready = False
    async with client_of(keyed, key) as client:
        answer = await client.post("/v1/completions", json=PROMPT)
    (told,) = [event for event in events if isinstance(event, Decided)]
    assert answer.status_code == 503
    assert answer.headers["x-salver-decision"] == told.decision.id
    assert answer.headers["retry-after"] == str(told.decision.retry_after).removesuffix(".0")
    assert (told.tenant, told.decision.rule) == ("search", "backend.ready")
    assert (told.decision.action, told.decision.cause) == (Action.REFUSE, Cause.SERVER)
    assert not backend.requests, "work was spent on it"


async def test_so_does_a_store_that_is_away(
    keyed: FastAPI,
    key: str,
    clock: ManualClock,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise StateUnavailable("away", rule="state.available")

    async with client_of(keyed, key) as client:
        assert (await client.post("/v1/completions", json=PROMPT)).status_code == 200
        monkeypatch.setattr(KeyStore, "snapshot", away)
        clock.advance(REFRESH_SECONDS)
        answer = await client.post("/v1/completions", json=PROMPT)
    (told,) = [event for event in events if isinstance(event, Decided)]
    assert answer.status_code == 503
    assert answer.headers["x-salver-decision"] == told.decision.id
    assert (told.tenant, told.decision.cause) == ("", Cause.SERVER)


async def test_a_probe_that_hears_no_leaves_none(
    keyed: FastAPI, backend: FakeBackend, events: list[Event]
) -> None:
    """Probes ask all day, and the log is bounded."""
    backend.ready = False
    async with client_of(keyed) as client:
        answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["error"]["rule"]) == (503, "deployment.ready")
    assert not [event for event in events if isinstance(event, Decided)]
