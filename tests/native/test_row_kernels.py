"""Work on one row by itself, on each path of this machine, against double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

native = pytest.importorskip("salver._native")

Floats = NDArray[np.float32]
SEEDS = st.integers(0, 2**32 - 1)
LEAST = 4e-308  # e^-708, below which a weight is 0

pytestmark = pytest.mark.parametrize("isa", native.available_isas())


def draw(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@given(size=st.integers(1, 300), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=SEEDS)
@settings(max_examples=40)
def test_norm(isa: str, size: int, scale: float, seed: int) -> None:
    x, weight = draw(seed, size) * np.float32(scale), draw(seed + 1, size)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt(np.square(wide).mean() + 1e-5) * weight
    np.testing.assert_allclose(native.norm(isa, x, weight, 1e-5), expected, rtol=2e-6, atol=1e-7)


@given(size=st.integers(1, 300), wrong=st.sampled_from([np.nan, np.inf, -np.inf]), seed=SEEDS)
@settings(max_examples=40)
def test_norm_of_what_is_not_finite(isa: str, size: int, wrong: float, seed: int) -> None:
    """An infinity leaves zeros beside its NaN, so that the row stays one that is not finite."""
    x, weight = draw(seed, size), draw(seed + 1, size)
    x[seed % size] = wrong
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = wide / np.sqrt(np.square(wide).mean() + 1e-5) * weight
    found = native.norm(isa, x, weight, 1e-5)
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[seed % size])


@given(
    size=st.integers(1, 300),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
    temperature=st.sampled_from([0.01, 0.7, 1.0, 5.0]),
    seed=SEEDS,
)
@settings(max_examples=60)
def test_weigh(isa: str, size: int, scale: float, temperature: float, seed: int) -> None:
    logits = draw(seed, size) * np.float32(scale)
    most = float(logits.max())
    found = native.weigh(isa, logits, most, temperature)
    expected = np.exp((logits.astype(np.float64) - most) / temperature)
    np.testing.assert_allclose(found, expected, rtol=2e-15, atol=LEAST)
    assert (found[logits == most] == 1).all()


@given(size=st.integers(2, 300), seed=SEEDS)
@settings(max_examples=40)
def test_weigh_of_what_is_not_finite(isa: str, size: int, seed: int) -> None:
    """A banned token's logit is -infinity, which weighs nothing; NaN stays where it is."""
    logits = draw(seed, size)
    most = float(logits.max())
    clean = native.weigh(isa, logits, most, 1.0)
    banned, wrong = seed % size, (seed + 1) % size
    logits[banned], logits[wrong] = -np.inf, np.nan
    found = native.weigh(isa, logits, most, 1.0)
    assert found[banned] == 0
    assert np.isnan(found[wrong])
    others = np.isfinite(logits)
    np.testing.assert_array_equal(found[others], clean[others])


def test_what_does_not_fit_is_refused(isa: str) -> None:
    with pytest.raises(ValueError, match="temperature is positive"):
        native.weigh(isa, draw(1, 8), 1.0, 0.0)
    with pytest.raises(ValueError, match="logits are one row"):
        native.weigh(isa, draw(1, 2, 8), 1.0, 1.0)
