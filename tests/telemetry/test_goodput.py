"""Goodput counts good arrivals over all arrivals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.telemetry import Ending, Latencies, Objectives, goodput, is_good, tpot_of

SLO = Objectives(ttft=1.0, tpot=0.1, e2e=10.0)
FAST = Latencies(0.5, 0.05, 5.0, ())
SLOW = Latencies(1.5, 0.05, 5.0, ())


def test_refused_failed_and_late_arrivals_count_against_it() -> None:
    arrivals = [(ending, FAST) for ending in Ending if ending is not Ending.ABANDONED]
    measured = goodput([*arrivals, (Ending.COMPLETE, SLOW)], SLO, seconds=2.0)
    assert (measured.good, measured.arrivals, measured.rate) == (1, 6, 0.5)
    assert measured.share == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    "late",
    [Latencies(1.1, 0.05, 5, ()), Latencies(0.5, 0.11, 5, ()), Latencies(0.5, 0.05, 11, ())],
)
def test_each_objective_must_be_met(late: Latencies) -> None:
    assert not is_good(Ending.COMPLETE, late, SLO)
    assert is_good(Ending.COMPLETE, late, Objectives())


@given(st.floats(0, 5), st.floats(0, 5))
def test_who_hangs_up_is_judged_on_what_it_saw(waited: float, bound: float) -> None:
    nothing_yet = Latencies(None, None, waited, ())
    assert is_good(Ending.ABANDONED, nothing_yet, Objectives(ttft=bound)) == (waited <= bound)
    first = Latencies(waited, None, 100.0, (), 1)
    assert is_good(Ending.ABANDONED, first, Objectives(ttft=bound)) == (waited <= bound)
    assert not is_good(Ending.ABANDONED, first, Objectives(ttft=bound, e2e=99))


@pytest.mark.parametrize("slo", [Objectives(ttft=2), Objectives(tpot=2), Objectives(e2e=2)])
def test_who_was_never_answered_was_not_served(slo: Objectives) -> None:
    assert not is_good(Ending.ABANDONED, Latencies(None, None, 10.0, ()), slo)
    assert is_good(Ending.ABANDONED, Latencies(None, None, 1.0, ()), slo)


@given(
    gaps=st.lists(st.floats(0, 0.1), min_size=1, max_size=9), silence=st.floats(0, 0.1), stall=...
)
def test_a_silence_before_a_caller_hung_up_counts(
    gaps: list[float], silence: float, stall: bool
) -> None:
    """No gap over the bound is good, the one that it saw no end of included; a long one is not."""
    end = 0.5 + sum(gaps) + (silence + 2.0 if stall else silence)
    tokens = len(gaps) + 1
    seen = Latencies(0.5, tpot_of(0.5, end, tokens), end, tuple(gaps), tokens)
    assert is_good(Ending.ABANDONED, seen, Objectives(ttft=1.0, tpot=0.1000001)) is not stall


def test_one_token_has_no_tpot_to_miss() -> None:
    assert is_good(Ending.COMPLETE, Latencies(0.5, None, 0.5, ()), SLO)


def test_no_arrivals_are_no_failure() -> None:
    assert goodput([], SLO, seconds=1).share == 1.0
