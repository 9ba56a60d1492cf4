"""What answers when the release cannot."""

from collections.abc import AsyncGenerator, Callable

import pytest

from salver.clock import MonotonicClock
from salver.contract import Action, Backend, GenerateRequest, TokenChunk
from salver.errors import BackendLost, BackendUnavailable, SalverError, UnsupportedField
from salver.telemetry import Decided, Event, FellBack
from salver.testing import FakeBackend
from salver.upstream import FallbackChain, StaticAnswer

CLOCK = MonotonicClock()
Asked = Callable[..., GenerateRequest]


def actions(events: list[Event]) -> list[Action]:
    return [event.decision.action for event in events if isinstance(event, Decided)]


async def answer(backend: Backend, request: GenerateRequest) -> str:
    return "".join([chunk.text async for chunk in backend.generate(request)])


@pytest.fixture
def steps() -> list[FakeBackend]:
    return [FakeBackend("first", name="first"), FakeBackend("second", name="second")]


async def test_the_next_one_answers_and_a_decision_says_so(
    steps: list[FakeBackend], asked: Asked
) -> None:
    events: list[Event] = []
    chain = FallbackChain([*steps, StaticAnswer("Busy.", CLOCK)], events.append)
    assert await answer(chain, asked()) == "first"
    assert not events
    steps[0].ready = False
    assert await answer(chain, asked()) == "second"
    assert actions(events) == [Action.FALL_BACK]
    assert FellBack("default", "second") in events
    steps[1].ready = False
    assert await answer(chain, asked()) == "Busy."
    assert actions(events) == [Action.FALL_BACK] * 3
    assert chain.ready


async def test_without_a_static_text_it_fails_closed(
    steps: list[FakeBackend], asked: Asked
) -> None:
    chain = FallbackChain(steps, lambda _: None)
    for step in steps:
        step.ready = False
    assert not chain.ready
    with pytest.raises(SalverError, match="not ready"):
        await answer(chain, asked())


async def test_an_answer_that_began_is_not_replaced(steps: list[FakeBackend], asked: Asked) -> None:
    steps[0].pieces = ("one", "two")
    steps[0].dies_after = 1
    chain = FallbackChain(steps, lambda _: None)
    with pytest.raises(BackendLost):
        await answer(chain, asked())
    assert not steps[1].requests


async def test_one_that_dies_before_it_began_is_replaced(
    steps: list[FakeBackend], asked: Asked
) -> None:
    """As a worker does with all that wait in its queue."""
    steps[0].dies_after = 0
    chain = FallbackChain(steps, lambda _: None)
    assert await answer(chain, asked()) == "second"


async def test_what_the_release_finds_at_fault_no_fallback_is_asked(
    steps: list[FakeBackend], asked: Asked
) -> None:
    chain = FallbackChain([_Choosy(), *steps], lambda _: None)
    with pytest.raises(UnsupportedField):
        await answer(chain, asked())
    assert not steps[0].requests


async def test_what_a_fallback_finds_at_fault_the_next_one_may_answer(
    steps: list[FakeBackend], asked: Asked
) -> None:
    """The outage is not the caller's: without anybody who can, its refusal is what is told."""
    steps[0].ready = False
    events: list[Event] = []
    static = StaticAnswer("Busy.", CLOCK)
    chain = FallbackChain([steps[0], _Choosy(), static], events.append)
    assert await answer(chain, asked()) == "Busy."
    told = [each.backend for each in events if isinstance(each, FellBack)]
    assert told == ["choosy", "static"]
    with pytest.raises(BackendUnavailable, match="not ready"):
        await answer(FallbackChain([steps[0], _Choosy()], lambda _: None), asked())


async def test_not_even_by_a_backend_that_breaks_its_word(
    steps: list[FakeBackend], asked: Asked
) -> None:
    """One that says after its first chunk that it cannot take the request."""
    chain = FallbackChain([_Fickle(), steps[1]], lambda _: None)
    with pytest.raises(BackendUnavailable):
        await answer(chain, asked())
    assert not steps[1].requests


class _Choosy(FakeBackend):
    """It has no log-probabilities, whatever it is asked for."""

    def __init__(self) -> None:
        super().__init__(name="choosy")

    def _admit(self, request: GenerateRequest) -> None:
        raise UnsupportedField("no log-probabilities", rule="upstream.logprobs")


class _Fickle(FakeBackend):
    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        yield TokenChunk(request.id, 0, text="one")
        raise BackendUnavailable("gone")
