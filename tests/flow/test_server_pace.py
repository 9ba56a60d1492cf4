import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.flow.server_pace import Drain, Line, ServerPace

seen = st.lists(st.tuples(st.integers(1, 8192), st.floats(0.0, 1e3)), max_size=60)


@given(seen, st.integers(0, 8192), st.integers(1, 8192))
def test_no_time_is_negative_and_more_tokens_never_take_less(
    past: list[tuple[int, float]], ahead: int, own: int
) -> None:
    times = Line()
    for tokens, seconds in past:
        times.note(tokens, seconds)
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
        line.note(work, base + slope * work)
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
        line, now = Line(), in_flight
        for _ in range(3000):
            line.note(now, base + slope * now)
            now = max(1.0, min(now + 1, line.most(0.1)))
        assert (1 + line.doubt) * (base + slope * now) == pytest.approx(0.1, rel=1e-3)


def test_what_is_long_past_is_forgotten() -> None:
    times = Line()
    for _ in range(100):
        times.note(100, 60.0)
        times.note(200, 120.0)
    for _ in range(300):
        times.note(100, 0.1)
        times.note(200, 0.2)
    assert times.slope == pytest.approx(0.001, rel=0.1)


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
    """Two requests side by side for 2 s of the first one's 3: it had 5 in 3 s beside it, itself too."""
    pace = ServerPace(100.0)
    first = pace.send(40, 1, 100.0)
    second = pace.send(60, 2, 100.0)
    assert (second.ahead, pace.unanswered, pace.requests) == (40, 100, 2)
    pace.arrive(first, 1, 101.0)
    assert pace.first_tokens.told_high(0, 0)[1] >= 0
    assert pace.unanswered == 60
    pace.end(second, 103.0)  # without an answer: nothing is learned
    assert (pace.unanswered, pace.token_gaps._weight) == (0, 0)
    pace.arrive(first, 30, 104.0)
    pace.end(first, 104.0)
    assert pace.requests == 0
    assert pace.token_gaps.slope == pytest.approx(3 / 30 / (5 / 3))


def test_one_request_always_has_a_place() -> None:
    pace = ServerPace(0.0)
    assert pace.has_place(0.001)
    flight = pace.send(1, 1, 0.0)
    pace.arrive(flight, 8, 1.0)
    pace.end(flight, 100.0)
    assert pace.has_place(0.001)
    pace.send(1, 1, 100.0)
    assert not pace.has_place(0.001)
    assert pace.has_place(None)
