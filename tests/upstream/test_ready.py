"""While no server may be asked: what callers hear, before any work is spent on them."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import httpx
import pytest

from salver.contract import Backend, Cause, GenerateRequest, TokenChunk
from salver.errors import BackendUnavailable, Refused
from salver.flow import QueueBound
from salver.flow.circuit_breaker import BreakerRule
from salver.gateway import Limits, Served, create_app
from salver.models import Tokenizer
from salver.telemetry import Decided, Event, Observers
from salver.testing import FakeBackend, Fault, FaultKind, ManualClock
from salver.upstream import FallbackChain, PoolRule, StaticAnswer, UpstreamPool, WaitingRule

if TYPE_CHECKING:
    from tests.upstream.conftest import Begin, Pool

Asked = Callable[..., GenerateRequest]
Read = Callable[..., Coroutine[None, None, list[TokenChunk]]]
WAIT_SECONDS = 7.0
RULE = PoolRule(
    waiting=WaitingRule(QueueBound(64, 10_000)),
    breaker=BreakerRule(failures=1, first_wait=WAIT_SECONDS),
    retries=0.0,
)


@pytest.fixture
async def left_alone(
    begin: "Begin", pool: "Pool", asked: Asked, read: Read
) -> tuple[UpstreamPool, ManualClock]:
    """A pool whose one server has just failed, and the clock of its breaker."""
    behind, clock = await begin("Hello"), ManualClock()
    upstreams, _ = await pool(RULE, behind, clock=clock)
    behind.proxy.fault = Fault(FaultKind.SERVER_ERROR)
    with pytest.raises(Refused, match="503"):
        await read(upstreams, asked())
    assert not upstreams.ready
    return upstreams, clock


@pytest.mark.parametrize("chained", [False, True])
async def test_the_gateway_tells_the_pools_own_refusal(
    left_alone: tuple[UpstreamPool, ManualClock],
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    chained: bool,
) -> None:
    """With the time until a server is tried again, and without tokenizing anything."""
    upstreams, clock = left_alone
    backend: Backend = FallbackChain([upstreams], lambda _: None) if chained else upstreams
    events: list[Event] = []
    app = create_app(
        Served("tiny", "assistant", "release-1", "owner@example.com"),
        Limits(2000, 200, 60.0),
        backend=backend,
        tokenizer=tokenizer,
        chat_template=None,
        ready=lambda: True,
        observers=Observers(events.append),
        clock=clock,
    )
    monkeypatch.setattr(Tokenizer, "encode", None)
    clock.advance(2.5)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://salver") as client:
        answer = await client.post("/v1/completions", json={"model": "tiny", "prompt": "a"})
    error = answer.json()["error"]
    (told,) = [event for event in events if isinstance(event, Decided)]
    assert (answer.status_code, error["rule"]) == (503, "upstreams.available")
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["x-salver-decision"] == error["decision"] == told.decision.id
    assert (told.decision.cause, told.decision.retry_after) == (Cause.SERVER, WAIT_SECONDS - 2.5)


async def test_ready_and_why_not_say_the_same(
    left_alone: tuple[UpstreamPool, ManualClock],
) -> None:
    """For a chain: while any step is ready nothing is raised, else what the first one raises."""
    upstreams, clock = left_alone
    other = FakeBackend(name="other")
    chain = FallbackChain([upstreams, other], lambda _: None)
    chain.check_ready("r")
    other.ready = False
    with pytest.raises(BackendUnavailable):
        other.check_ready("r")
    with pytest.raises(Refused, match="each has failed lately"):
        chain.check_ready("r")
    FallbackChain([upstreams, StaticAnswer("Busy.", clock)], lambda _: None).check_ready("r")
    clock.advance(WAIT_SECONDS)
    upstreams.check_ready("r")
    chain.check_ready("r")
