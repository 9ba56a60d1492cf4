import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.flow.server_pace import UNTRIED, Drain, Line, ServerPace

seen = st.lists(st.tuples(st.integers(1, 8192), st.floats(0.0, 1e3)), max_size=60)


@given(seen, st.integers(0, 8192), st.integers(1, 8192))
def test_no_time_is_negative_and_more_tokens_never_take_less(
    past: list[tuple[int, float]], ahead: int, own: int
) -> None:
    times = Line()
    for number, (tokens, seconds) in enumerate(past):
        times.note(tokens, seconds, float(number))
    assert times.base >= -1e-9
    assert times.slope >= 0
    assert 0.2 <= times.doubt <= 1.0
    queue, mine = times.told_high(ahead, own)
    assert queue >= 0
    assert mine >= times.told_high(ahead, 0)[1] >= -1e-9


@given(st.floats(0.0, 10.0), st.floats(1e-6, 0.1), st.lists(st.integers(1, 5000), min_size=2))
def test_a_line_lies_between_the_one_that_was_seen_and_one_through_zero(
    base: float, slope: float, past: list[int]
) -> None:
    line = Line()
    for work in past:
        line.note(work, base + slope * work, 0.0)
    assert slope * (1 - 1e-6) <= line.slope
    assert line.base <= base + 1e-6
    if base == 0:
        assert line.slope == pytest.approx(slope)


@pytest.mark.parametrize(("base", "slope"), [(0.0, 0.01), (0.02, 0.004), (0.07, 0.0001)])
def test_who_keeps_to_what_a_line_allows_comes_to_the_seconds_wanted(
    base: float, slope: float
) -> None:
    """From one request in flight or from far too many, of a server of which nothing is known."""
    for in_flight in (1.0, 64.0):
        line, flying = Line(), in_flight
        for number in range(3000):
            line.note(flying, base + slope * flying, 0.1 * number)
            flying = max(1.0, min(flying + 1, line.most(0.1)))
        assert (1 + line.doubt / 2) * (base + slope * flying) == pytest.approx(0.1, rel=1e-3)


def test_chance_in_work_that_was_all_alike_is_no_line() -> None:
    """The little more work took less time: that says nothing of twice as much."""
    line = Line()
    for work, seconds in [(10.0, 0.1), (10.01, 0.09)] * 20:
        line.note(work, seconds, 0.0)
    assert line.most(0.19) <= 20


def test_what_is_long_past_is_forgotten() -> None:
    """After 300 s, in units of 5 s, one observation counts e^60 times as much as those before."""
    times = Line()
    for _ in range(100):
        times.note(100, 60.0, 0.0)
        times.note(200, 120.0, 0.0)
    times.note(100, 0.1, 300.0)
    times.note(200, 0.2, 300.0)
    assert times.slope == pytest.approx(0.001)


def test_before_anything_was_seen_nothing_is_told() -> None:
    assert Line().told_high(1000, 1000) == (0.0, 0.0)
    assert Drain().seconds(1000) == 0.0


def test_room_counts_while_somebody_waits() -> None:
    drain = Drain()
    drain.freed(10_000, 0.0)  # nobody waited
    drain.look(0.0, waiting=True)
    for second in range(1, 100):
        drain.freed(50, float(second))
    drain.look(99.0, waiting=False)
    drain.look(1000.0, waiting=True)
    assert drain.seconds(500) == pytest.approx(0.8 * 500 / 50)


def test_what_is_in_flight_is_learned_from() -> None:
    """Two requests for 2 s, then one for 1 s: 5 request-seconds in the 3 s of 32 tokens."""
    pace = ServerPace(100.0)
    first = pace.send(40, 1, 100.0)
    second = pace.send(60, 2, 100.0)
    assert (second.ahead, pace.unanswered, pace.requests) == (40, 100, 2)
    pace.arrive(first, 1, 101.0)
    assert pace.first_tokens.slope == pytest.approx(1 / 40)
    assert pace.unanswered == 60
    pace.end(second, 103.0)  # without an answer: nothing is learned
    assert (pace.unanswered, pace.token_gaps.known) == (0, False)
    pace.arrive(first, 32, 104.0)
    assert pace.token_gaps.slope == pytest.approx(3 / 32 / (5 / 3))
    pace.end(first, 104.0)
    assert pace.requests == 0


def test_not_many_more_are_sent_than_were_tried() -> None:
    """However fast they were answered."""
    pace = ServerPace(0.0)
    flights = [pace.send(1, 1, 0.0) for _ in range(20)]
    for now in (1.0, 1.001):
        for flight in flights:
            pace.arrive(flight, 16, now)
    while pace.has_place(0.1):
        pace.send(1, 1, 1.001)
    assert 39 <= pace.requests <= 40  # twice a mean that is rounded


def test_one_request_always_has_a_place() -> None:
    pace = ServerPace(0.0)
    flights = [pace.send(1, 1, 0.0) for _ in range(UNTRIED)]
    assert pace.has_place(None)
    assert not pace.has_place(0.001)
    for tokens in (1, 16):
        pace.arrive(flights[0], tokens, 10.0 * tokens)
    for flight in flights:
        pace.end(flight, 200.0)
    assert pace.has_place(0.001)
    pace.send(1, 1, 200.0)
    assert not pace.has_place(0.001)


@pytest.mark.parametrize(("gap", "tried"), [(0.05, True), (0.09, False)])
def test_two_are_tried_where_one_by_one_kept_their_pace(gap: float, tried: bool) -> None:
    """A line through zero would have two take twice as long, and none would ever know better."""
    pace, now = ServerPace(0.0), 0.0
    for _ in range(10):
        flight = pace.send(100, 1, now)
        for tokens in (1, 16, 16):
            now += tokens * gap
            pace.arrive(flight, tokens, now)
        pace.end(flight, now)
    pace.send(100, 1, now)
    assert pace.has_place(0.08) is tried
