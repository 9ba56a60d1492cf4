"""Lengths follow their distribution and stay within their bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.workload.lengths import draw_length
from salver.workload.mix import Lengths, Lognormal


def draws(lengths: Lengths, count: int = 4000, recorded: int = 0) -> NDArray[np.int64]:
    random = np.random.default_rng(5)
    return np.array([draw_length(lengths, random, recorded) for _ in range(count)])


@given(mean=st.floats(20, 2000), cv=st.floats(0.1, 1.5))
@settings(max_examples=20)
def test_a_lognormal_has_its_own_mean_and_cv(mean: float, cv: float) -> None:
    drawn = draws(Lengths(lognormal=Lognormal(mean=mean, cv=cv)), 20_000)
    assert drawn.mean() == pytest.approx(mean, rel=0.1)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.35)


@given(low=st.integers(1, 50), more=st.integers(0, 50))
def test_bounds_hold(low: int, more: int) -> None:
    bounded = Lengths(lognormal=Lognormal(mean=30.0, cv=2.0), min=low, max=low + more)
    drawn = draws(bounded, 300)
    assert drawn.min() >= low
    assert drawn.max() <= low + more


def test_uniform_includes_both_ends() -> None:
    assert set(draws(Lengths(uniform=(3, 6)))) == {3, 4, 5, 6}


def test_empirical_draws_each_as_often() -> None:
    drawn = draws(Lengths(empirical=(5, 5, 9, 70)))
    assert set(drawn) == {5, 9, 70}
    assert np.mean(drawn == 5) == pytest.approx(0.5, abs=0.03)


def test_a_recorded_length_is_scaled_and_never_zero() -> None:
    assert set(draws(Lengths(trace=0.125), 3, recorded=1000)) == {125}
    assert set(draws(Lengths(trace=0.125), 3, recorded=0)) == {1}
