"""What becomes of a product's elements, on each path of this machine, against double precision.

The elements themselves are those of `store`, which `test_kernels.py` and `test_group_kernels.py` hold.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.models.groups import read_groups
from salver.testing.tiny_groups import draw_blocks

native = pytest.importorskip("salver._native")
native_weights = pytest.importorskip("salver.engine.runners.native_weights")

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
PRECISIONS = ["w8a16", "w8a8", "bf16", "two_bf16", "q4"]
SEEDS = st.integers(0, 2**32 - 1)
SPECIAL = [0.0, 1.0, 20.0, 87.0, 88.5, 103.0, 200.0, 1e30, np.inf]
LANES = 16

pytestmark = [
    pytest.mark.parametrize("isa", native.available_isas()),
    pytest.mark.parametrize("precision", PRECISIONS),
]


def draw(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def operands(precision: str, seed: int, m: int, n: int, k: int) -> tuple[Floats, Any]:
    """Rows [m, k] and weights [n, k] as that precision takes them; 4-bit groups make k whole groups."""
    if precision != "q4":
        return draw(seed, m, k), draw(seed + 1, n, k)
    k = -(-k // 32) * 32
    blocks = draw_blocks(np.random.default_rng(seed), "Q4_1", n, k)
    return draw(seed, m, k), native_weights.grouped(read_groups(blocks, "Q4_1", n))


def assert_swiglu(found: Floats, stored: Floats) -> None:
    """That `found` is silu(gate) * up of `stored` [m, n], where 16 gates come before their 16 ups.

    What is not finite may be NaN or infinite: a gate far below zero is 0 in float32, where e^-gate is
    infinite, and 0 times infinity NaN. That 0 in place of 88.7 / 2^128 is what the bound knows of it.
    """
    parts = stored.astype(np.float64).reshape(len(stored), -1, 2, LANES)
    gates, ups = (parts[:, :, i].reshape(len(stored), -1) for i in range(2))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = gates / (np.exp(-gates) + 1) * ups
        finite = np.isfinite(expected.astype(np.float32))
        bound = 1e-6 * np.abs(expected) + 3e-37 * (1 + np.abs(ups))
    np.testing.assert_array_equal(np.isfinite(found), finite)
    assert (np.abs(found[finite] - expected[finite]) <= bound[finite]).all()
    assert np.isnan(found[np.isnan(gates) | np.isnan(ups)]).all()


@given(m=st.integers(1, 140), n=st.integers(1, 100), k=st.integers(1, 200), seed=SEEDS)
@settings(max_examples=30)
def test_what_is_added_is_the_stored_element(
    isa: str, precision: str, m: int, n: int, k: int, seed: int
) -> None:
    x, weights = operands(precision, seed, m, n, k)
    bias, onto = draw(seed + 2, n), 3 * draw(seed + 3, m, n)
    stored = native.product(isa, precision, x, weights, bias)
    found = native.product(isa, precision, x, weights, bias, "add", onto)
    expected = onto.astype(np.float64) + stored
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@given(
    m=st.integers(1, 140),
    panels=st.integers(1, 4),
    k=st.integers(1, 200),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    seed=SEEDS,
)
@settings(max_examples=30)
def test_swiglu(
    isa: str, precision: str, m: int, panels: int, k: int, scale: float, seed: int
) -> None:
    x, weights = operands(precision, seed, m, 2 * LANES * panels, k)
    x *= np.float32(scale)
    bias = draw(seed + 2, 2 * LANES * panels)
    stored = native.product(isa, precision, x, weights, bias)
    found = native.product(isa, precision, x, weights, bias, "swiglu")
    assert_swiglu(found, stored)


def test_swiglu_of_every_pair_of_special_numbers(isa: str, precision: str) -> None:
    """A row of zeros gives the bias, which may be anything."""
    numbers = [*SPECIAL, *(-each for each in SPECIAL), np.nan]
    pairs = np.array([*product(numbers, numbers)], np.float32)
    pairs = np.pad(pairs, ((0, -len(pairs) % LANES), (0, 0)))
    bias = pairs.reshape(-1, LANES, 2).transpose(0, 2, 1).ravel()
    x, weights = operands(precision, 1, 1, len(bias), 32)
    assert_swiglu(
        native.product(isa, precision, np.zeros_like(x), weights, bias, "swiglu"), bias[None]
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("epilogue", ["add", "swiglu"])
def test_a_row_that_is_not_finite_spoils_itself_alone(
    isa: str, precision: str, epilogue: str, wrong: float
) -> None:
    x, weights = operands(precision, 1, 40, 64, 64)
    onto = draw(4, 40, 64) if epilogue == "add" else None
    clean = native.product(isa, precision, x, weights, None, epilogue, onto)
    x[7, 3] = wrong
    found = native.product(isa, precision, x, weights, None, epilogue, onto)
    others = np.arange(40) != 7
    assert not np.isfinite(found[7]).any()
    np.testing.assert_array_equal(found[others], clean[others])


def test_what_does_not_fit_is_refused(isa: str, precision: str) -> None:
    x, weights = operands(precision, 1, 2, 33, 32)
    for wrong in ("add", "swiglu", "mul"):
        with pytest.raises(ValueError, match=r"epilogue|whole panels"):
            native.product(isa, precision, x, weights, None, wrong)
    with pytest.raises(ValueError, match=r"what to add to is \[m, n\]"):
        native.product(isa, precision, x, weights, None, "add", draw(1, 2, 32))
