"""The latency words by example and by law."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.telemetry import Stopwatch


def test_one_request_by_hand() -> None:
    watch = Stopwatch(started=10.0)
    watch.tokens(0, 1, 10.5)
    watch.tokens(0, 1, 10.7)
    watch.tokens(0, 2, 11.0)
    times = watch.read(11.5)
    assert (times.ttft, times.e2e) == (0.5, 1.5)
    assert times.tpot == pytest.approx(1.0 / 3)
    assert times.gaps == pytest.approx((0.2, 0.3, 0.0))


def test_without_tokens_there_is_no_first_one() -> None:
    watch = Stopwatch(0.0)
    watch.tokens(0, 0, 1.0)
    times = watch.read(2.0)
    assert (times.ttft, times.tpot, times.gaps, times.e2e) == (None, None, (), 2.0)


def test_gaps_are_between_tokens_of_one_choice() -> None:
    watch = Stopwatch(0.0)
    watch.tokens(0, 1, 1.0)
    watch.tokens(1, 1, 1.1)
    watch.tokens(0, 1, 3.0)
    assert watch.read(3.0).gaps == (2.0,)


steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.floats(0, 10)), min_size=1, max_size=20
)


@given(steps=steps)
def test_gaps_of_a_choice_add_up_to_its_span(steps: list[tuple[int, int, float]]) -> None:
    watch, now, counts = Stopwatch(0.0), 0.0, [0, 0, 0]
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for choice, count, wait in steps:
        now += wait
        watch.tokens(choice, count, now)
        counts[choice] += count
        if count:
            first.setdefault(choice, now)
            last[choice] = now
    times = watch.read(now)
    assert len(times.gaps) == sum(max(0, count - 1) for count in counts)
    assert sum(times.gaps) == pytest.approx(sum(last[c] - first[c] for c in first))
    assert times.ttft == (min(first.values()) if first else None)
