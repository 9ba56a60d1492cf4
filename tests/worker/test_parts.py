"""The parts that need no process: streams, queues, waiting times, probes."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import (
    Action,
    Cause,
    Decision,
    Finish,
    FinishReason,
    GenerateRequest,
    LoadSnapshot,
    Outcome,
    SamplingParams,
    Timings,
    TokenChunk,
)
from salver.errors import BackendLost, BackendUnavailable, DoesNotFit, MalformedFrame, Refused
from salver.testing import FakeBackend, ManualClock
from salver.worker import Backoff, ReadinessProbe
from salver.worker.error_report import describe, revive
from salver.worker.frames import Cancel, Refusal, StepFrame
from salver.worker.inbox import Inbox
from salver.worker.output import MAX_LINE_BYTES, MAX_LINES, OutputTail
from salver.worker.streams import Streams


def request(name: str = "r", n: int = 1) -> GenerateRequest:
    return GenerateRequest(name, (1,), SamplingParams(max_tokens=4), n=n)


def step(*chunks: TokenChunk) -> StepFrame:
    return StepFrame(chunks, LoadSnapshot())


def chunk(name: str = "r", choice: int = 0, *, last: bool = False) -> TokenChunk:
    finish = Finish(Outcome.FINISHED, FinishReason.STOP, Timings(0.0, 0.0, 0.0, 0.0))
    return TokenChunk(name, choice, (7,), "h", finish=finish if last else None)


# -- streams -------------------------------------------------------------------------------------


async def test_chunks_reach_their_own_stream_in_order() -> None:
    streams = Streams()
    first, second = streams.open(request("a")), streams.open(request("b"))
    streams.deliver(step(chunk("a"), chunk("b"), chunk("a", last=True)))
    assert [await first.next(), await first.next()] == [chunk("a"), chunk("a", last=True)]
    assert await second.next() == chunk("b")
    assert (first.undelivered, len(streams)) == (0, 1)


async def test_a_stream_lasts_until_every_choice_has_ended() -> None:
    streams = Streams()
    stream = streams.open(request(n=2))
    streams.deliver(step(chunk(choice=1, last=True)))
    assert (stream.uncomputed, len(streams)) == (1, 1)
    streams.deliver(step(chunk(choice=0, last=True)))
    assert (stream.uncomputed, len(streams)) == (0, 0)


async def test_an_abandoned_stream_keeps_nothing_but_its_id() -> None:
    streams = Streams()
    stream = streams.open(request())
    stream.abandon()
    streams.deliver(step(chunk(), chunk()))
    assert stream._arrived.empty()
    assert len(streams) == 1
    streams.deliver(step(chunk(last=True)))
    assert len(streams) == 0


async def test_what_arrived_before_a_loss_is_still_delivered() -> None:
    streams = Streams()
    stream = streams.open(request())
    streams.deliver(step(chunk()))
    streams.fail_all("the worker was eaten")
    assert await stream.next() == chunk()
    with pytest.raises(BackendLost, match="eaten"):
        await stream.next()


async def test_a_refusal_ends_its_stream_with_the_decision() -> None:
    streams = Streams()
    stream = streams.open(request())
    decision = Decision("d", "rule", 2.0, 1.0, Action.REFUSE, Cause.CALLER, "full")
    streams.deliver(Refusal("r", decision))
    with pytest.raises(Refused) as caught:
        await stream.next()
    assert caught.value.decision == decision


@pytest.mark.parametrize("report", [step(chunk("stranger")), step(chunk(last=True), chunk())])
async def test_a_report_on_what_is_not_in_flight_is_malformed(report: StepFrame) -> None:
    streams = Streams()
    streams.open(request())
    with pytest.raises(MalformedFrame, match="not in flight"):
        streams.deliver(report)


# -- inbox ---------------------------------------------------------------------------------------


def test_commands_are_taken_all_at_once_and_in_order() -> None:
    inbox = Inbox()
    for name in "abc":
        inbox.put(Cancel(name))
    assert inbox.take(wait=True) == [Cancel("a"), Cancel("b"), Cancel("c")]
    assert inbox.take(wait=False) == []


def test_a_full_inbox_makes_the_reader_wait() -> None:
    inbox = Inbox(capacity=2)
    inbox.put(Cancel("a"))
    inbox.put(Cancel("b"))
    reader = threading.Thread(target=inbox.put, args=(Cancel("c"),), daemon=True)
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    assert inbox.take(wait=False) == [Cancel("a"), Cancel("b")]
    reader.join(5)
    assert inbox.take(wait=False) == [Cancel("c")]


def test_closing_wakes_both_ends() -> None:
    inbox = Inbox(capacity=0)
    taken: list[object] = []
    ends = [
        threading.Thread(target=lambda: taken.append(inbox.take(wait=True)), daemon=True),
        threading.Thread(target=inbox.put, args=(Cancel("a"),), daemon=True),
    ]
    for end in ends:
        end.start()
    inbox.close()
    for end in ends:
        end.join(5)
        assert not end.is_alive()
    assert taken == [None]


# -- waiting times -------------------------------------------------------------------------------


@given(st.integers(1, 10**9), st.floats(0, 1e6), st.floats(1, 10), st.floats(0, 1e6))
def test_delays_are_bounded_and_never_shrink(
    failures: int, initial: float, factor: float, longest: float
) -> None:
    backoff = Backoff(initial, factor, longest)
    assert 0 <= backoff.delay(failures) <= backoff.delay(failures + 1) <= longest


def test_a_worker_that_was_stable_starts_afresh() -> None:
    backoff = Backoff(initial=1.0, stable_after=60.0)
    assert backoff.next(failures=5, uptime=59.9) == (6, 30.0)
    assert backoff.next(failures=5, uptime=60.0) == (1, 1.0)


# -- output --------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=3000), max_size=30))
def test_the_tail_of_the_output_is_bounded(pieces: list[bytes]) -> None:
    tail = OutputTail("w")
    for piece in pieces:
        tail.feed(piece)
    assert len(str(tail)) <= (MAX_LINES + 1) * (MAX_LINE_BYTES + 1)


def test_the_tail_holds_the_last_lines_and_the_unfinished_one() -> None:
    tail = OutputTail("w")
    tail.feed(b"one\ntw")
    tail.feed(b"o\nthr")
    assert str(tail) == "one\ntwo\nthr"


# -- errors --------------------------------------------------------------------------------------


def test_an_error_keeps_its_class_and_its_parts() -> None:
    error = DoesNotFit("too big", rule="envelope.memory", value=3, limit=2, fix="buy more")
    again = revive(describe(error))
    assert type(again) is DoesNotFit
    assert vars(again) == vars(error)


def test_a_bug_becomes_an_unavailable_backend() -> None:
    again = revive(describe(KeyError("x")))
    assert type(again) is BackendUnavailable
    assert "KeyError" in again.problem


# -- probes --------------------------------------------------------------------------------------


def probe_of(backend: FakeBackend, clock: ManualClock, interval: float = 10.0) -> ReadinessProbe:
    return ReadinessProbe(backend, (1,), interval, clock)


async def test_a_backend_is_ready_for_two_intervals_after_a_success() -> None:
    clock = ManualClock(100.0)
    probe = probe_of(FakeBackend("x"), clock)
    assert not probe.ready(100.0)
    assert await probe.probe()
    assert probe.last_success == 100.0
    assert probe.ready(120.0)
    assert not probe.ready(120.1)


def _unready(backend: FakeBackend) -> None:
    backend.ready = False


def _dying(backend: FakeBackend) -> None:
    backend.dies_after = 0


def _expiring(backend: FakeBackend) -> None:
    backend.outcome = Outcome.EXPIRED


def _hanging(backend: FakeBackend) -> None:
    backend.gate = asyncio.Semaphore(0)


@pytest.mark.parametrize(
    ("ail", "told"),
    [
        (_unready, "not ready"),
        (_dying, "died"),
        (_expiring, "expired"),
        (_hanging, "no answer within 0.02 s"),
    ],
)
async def test_a_probe_that_fails_says_why(ail: Callable[[FakeBackend], None], told: str) -> None:
    backend = FakeBackend("x")
    ail(backend)
    probe = probe_of(backend, ManualClock(), interval=0.02)
    assert not await probe.probe()
    assert told in probe.last_error
    assert not probe.ready(0.0)
    assert not backend.active


async def test_a_backend_that_died_is_not_ready_whatever_it_did_before() -> None:
    backend = FakeBackend("x")
    probe = probe_of(backend, ManualClock())
    await probe.probe()
    assert probe.ready(0.0)
    backend.ready = False
    assert not probe.ready(0.0)


async def test_a_probe_that_waits_behind_traffic_counts_the_traffic() -> None:
    class Busy(FakeBackend):
        """Computes a step whenever somebody looks, but none of the probe's."""

        steps = 0

        def load(self) -> LoadSnapshot:
            self.steps += 1
            return LoadSnapshot(steps=self.steps)

    backend = Busy("x")
    backend.gate = asyncio.Semaphore(0)
    assert await probe_of(backend, ManualClock(), interval=0.02).probe()
    backend.ready = False
    assert not await probe_of(backend, ManualClock(), interval=0.02).probe()


async def test_a_probe_asks_for_one_greedy_token_and_states_no_deadline() -> None:
    backend = FakeBackend("x")
    await probe_of(backend, ManualClock(5.0)).probe()
    (asked,) = backend.requests
    assert (asked.sampling.max_tokens, asked.sampling.temperature) == (1, 0.0)
    assert asked.deadline is None  # by which a busy backend would refuse it at once


async def test_probing_goes_on_until_cancelled() -> None:
    backend = FakeBackend("x")
    running = asyncio.create_task(probe_of(backend, ManualClock(), interval=0.001).run())
    while len(backend.requests) < 3:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len({asked.id for asked in backend.requests}) == len(backend.requests)
