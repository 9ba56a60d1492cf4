"""Arrival processes have the mean, the CV and the burstiness they state; scaling keeps the shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.workload.arrivals import (
    Floats,
    Synthetic,
    burstiness_of,
    expected_rate,
    rate_of,
    renewals,
)
from salver.workload.mix import Diurnal, Gamma, OnOff, Poisson, Ramp
from salver.workload.randomness import stream


def times_of(process: Synthetic, duration: float, seed: int, factor: float = 1.0) -> Floats:
    rate = rate_of(process, duration, stream(seed, "phases")).scaled(factor)
    inner = renewals(rate.work[-1], burstiness_of(process), stream(seed, "gaps"))
    return rate.instants(inner)


PROCESSES: list[Synthetic] = [
    Poisson(rate=20.0),
    Gamma(rate=20.0, burstiness=0.1),
    Gamma(rate=20.0, burstiness=4.0),
    OnOff.model_construct(rate=50.0, on=2.0, off=3.0),
    Diurnal.model_construct(rate=20.0, swing=0.8, period=30.0),
    Ramp(begin=1.0, end=40.0),
]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_the_mean_rate_is_the_stated_one(process: Synthetic, seed: int) -> None:
    duration, runs = 100.0, 12
    counts = [len(times_of(process, duration, seed + run)) for run in range(runs)]
    expected = expected_rate(process, duration).mean * duration
    standard_error = max(np.std(counts, ddof=1), expected**0.5) / runs**0.5
    assert abs(np.mean(counts) - expected) < 6 * standard_error


@given(
    seed=st.integers(0, 2**32),
    burstiness=st.floats(0.2, 20.0),
    rate=st.floats(0.5, 200.0),
)
@settings(max_examples=40)
def test_gaps_have_the_stated_mean_and_cv(seed: int, burstiness: float, rate: float) -> None:
    gaps = np.diff(times_of(Gamma(rate=rate, burstiness=burstiness), 20_000 / rate, seed))
    cv = gaps.std() / gaps.mean()
    assert gaps.mean() == pytest.approx(1 / rate, rel=0.12)
    assert cv == pytest.approx(burstiness**-0.5, rel=0.12)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_poisson_gaps_are_exponential(seed: int) -> None:
    gaps = np.sort(np.diff(times_of(Poisson(rate=3.0), 3000.0, seed)))
    expected = 1 - np.exp(-3.0 * gaps)
    distance = np.abs(expected - np.arange(1, len(gaps) + 1) / len(gaps)).max()
    assert distance < 2.5 / len(gaps) ** 0.5  # Kolmogorov and Smirnov: 1e-5 of all runs exceed it


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_bursty_process_begins_as_if_it_had_always_run(seed: int) -> None:
    first_second = [
        np.count_nonzero(times_of(Gamma(rate=2.0, burstiness=0.05), 10.0, seed * 1000 + run) < 1.0)
        for run in range(400)
    ]
    assert abs(np.mean(first_second) - 2.0) < 6 * np.std(first_second) / 20


@pytest.mark.parametrize("process", PROCESSES[:3], ids=["poisson", "bursty", "regular"])
@given(seed=st.integers(0, 2**32), factor=st.floats(0.05, 20.0))
@settings(max_examples=30)
def test_scaling_a_steady_rate_scales_every_instant(
    process: Synthetic, seed: int, factor: float
) -> None:
    before, after = times_of(process, 50.0, seed), times_of(process, 50.0, seed, factor)
    shared = min(len(before), len(after))
    np.testing.assert_allclose(after[:shared] * factor, before[:shared], rtol=1e-9)


@pytest.mark.parametrize("process", PROCESSES[3:], ids=["on-off", "diurnal", "ramp"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_scaling_a_changing_rate_keeps_when_it_is_high(process: Synthetic, seed: int) -> None:
    """Shares of the arrivals in ten parts of the time stay, up to chance."""
    parts = np.linspace(0, 200.0, 11)
    before, after = (
        np.histogram(times_of(process, 200.0, seed, factor), parts)[0] for factor in (5.0, 20.0)
    )
    tolerance = 6 * (1 / before.sum()) ** 0.5
    assert np.abs(before / before.sum() - after / after.sum()).max() < tolerance


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_on_off_is_silent_while_off(seed: int) -> None:
    process = OnOff.model_construct(rate=100.0, on=1.0, off=4.0)
    rate = rate_of(process, 300.0, stream(seed, "phases"))
    times = times_of(process, 300.0, seed)
    phase = np.searchsorted(rate.times, times, side="right") - 1
    assert (np.diff(rate.work)[phase] > 0).all()
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() > 2


def test_a_sine_goes_up_first_and_down_then() -> None:
    times = times_of(Diurnal.model_construct(rate=50.0, swing=1.0, period=100.0), 100.0, 3)
    assert np.count_nonzero(times < 50) > 3 * np.count_nonzero(times >= 50)


def test_a_ramp_ends_at_its_end() -> None:
    times = times_of(Ramp(begin=1.0, end=99.0), 100.0, 3)
    assert np.count_nonzero(times >= 90) / 10 == pytest.approx(94.1, rel=0.15)
    assert np.count_nonzero(times < 10) / 10 == pytest.approx(5.9, rel=0.6)
