"""Products with 4-bit groups on each path of this machine, against double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.models import GROUP_KINDS, FourBitGroups
from salver.models.groups import read_groups
from salver.testing.tiny_groups import draw_blocks

native = pytest.importorskip("salver._native")
native_weights = pytest.importorskip("salver.engine.runners.native_weights")

Floats = NDArray[np.float32]
ISAS = native.available_isas()
SEEDS = st.integers(0, 2**32 - 1)
RUN = {"Q4_0": 32, "Q4_1": 32, "Q4_K": 256}

pytestmark = [
    pytest.mark.parametrize("isa", ISAS),
    pytest.mark.parametrize("format_name", sorted(GROUP_KINDS)),
]


def draw(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def draw_groups(format_name: str, seed: int, n: int, k: int) -> FourBitGroups:
    rng = np.random.default_rng(seed)
    return read_groups(draw_blocks(rng, format_name, n, k), format_name, n)


def product(isa: str, x: Floats, groups: FourBitGroups, bias: Floats | None = None) -> Floats:
    found: Floats = native.product(isa, "q4", x, native_weights.grouped(groups), bias)
    return found


def rounded(x: Floats) -> NDArray[np.float64]:
    """What 255 levels per group of 32 keep of rows [m, k]."""
    groups = x.reshape(len(x), -1, 32)
    most = np.abs(groups).max(axis=2, keepdims=True)
    levels = np.round(groups * (np.float32(127) / most))
    kept: NDArray[np.float64] = (levels.astype(np.float64) * most / 127).reshape(x.shape)
    return kept


@given(m=st.integers(1, 70), n=st.integers(1, 100), runs=st.integers(1, 9), seed=SEEDS)
@settings(max_examples=40)
def test_products_are_those_of_rounded_rows_and_exact_weights(
    isa: str, format_name: str, m: int, n: int, runs: int, seed: int
) -> None:
    k = RUN[format_name] * (runs if RUN[format_name] == 32 else runs // 4 + 1)
    x, bias = draw(seed, m, k), draw(seed + 1, n)
    groups = draw_groups(format_name, seed + 2, n, k)
    weights = groups.weights().astype(np.float64)
    found = product(isa, x, groups, bias)
    expected = rounded(x) @ weights.T + bias
    terms = np.abs(x).astype(np.float64) @ np.full_like(weights, 15 * np.abs(weights).max()).T
    assert (np.abs(found - expected) <= 1e-6 * (1 + terms)).all()


@given(m=st.integers(2, 150), n=st.integers(1, 70), runs=st.integers(1, 7), seed=SEEDS)
@settings(max_examples=30)
def test_a_row_does_not_know_its_neighbours(
    isa: str, format_name: str, m: int, n: int, runs: int, seed: int
) -> None:
    """Few rows and many take other instructions; the cut may fall into any tile."""
    k = RUN[format_name] * (runs if RUN[format_name] == 32 else 1)
    x, groups = draw(seed, m, k), draw_groups(format_name, seed + 1, n, k)
    whole = product(isa, x, groups)
    cut = seed % (m - 1) + 1
    parts = [product(isa, part, groups) for part in (x[:cut], x[cut:])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_array_equal(whole[:1], product(isa, x[:1], groups))


def test_paths_differ_in_the_last_place_alone(isa: str, format_name: str) -> None:
    x, groups = draw(1, 40, 512), draw_groups(format_name, 2, 70, 512)
    expected = product("scalar", x, groups)
    np.testing.assert_allclose(product(isa, x, groups), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_spoils_itself_alone(
    isa: str, format_name: str, wrong: float
) -> None:
    x, groups = draw(1, 20, 256), draw_groups(format_name, 2, 48, 256)
    clean = product(isa, x, groups)
    x[7, 3] = wrong
    found = product(isa, x, groups)
    assert not np.isfinite(found[7]).any()
    others = np.arange(20) != 7
    np.testing.assert_array_equal(found[others], clean[others])


def test_rows_of_zeros_give_the_bias(isa: str, format_name: str) -> None:
    x, bias = draw(1, 3, 256), draw(3, 5)
    x[1] = 0
    found = product(isa, x, draw_groups(format_name, 2, 5, 256), bias)
    np.testing.assert_array_equal(found[1], bias)


@given(bits=st.integers(0, 0x7BFF), negative=st.booleans())
@settings(max_examples=60)
def test_every_scale_is_taken_as_it_is(
    isa: str, format_name: str, bits: int, negative: bool
) -> None:
    """Halves from the smallest to the largest, subnormal ones included."""
    groups = draw_groups(format_name, 5, 3, 256)
    groups.scales[1] = np.array(bits | negative << 15, np.uint16).view(np.float16)
    x = np.zeros((1, 256), np.float32)
    x[0, ::32] = 1
    expected = rounded(x) @ groups.weights().T.astype(np.float64)
    found = product(isa, x, groups)
    terms = np.abs(groups.weights()).max(axis=1) * 128
    assert (np.abs(found - expected) <= 1e-6 * terms).all()


def test_what_does_not_fit_is_refused(isa: str, format_name: str) -> None:
    groups = draw_groups(format_name, 1, 4, 256)
    with pytest.raises(ValueError, match=r"weights are \[n, k\]"):
        product(isa, draw(1, 2, 512), groups)
    with pytest.raises(ValueError, match="groups go with q4"):
        native.product(isa, "w8a16", draw(1, 2, 256), native_weights.grouped(groups))
    with pytest.raises(ValueError, match="groups go with q4"):
        native.product(isa, "q4", draw(1, 2, 256), draw(2, 4, 256))
    groups.codes[3, 200] = 16
    with pytest.raises(ValueError, match=r"codes are in \[0, 16\)"):
        product(isa, draw(1, 2, 256), groups)
