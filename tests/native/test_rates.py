"""The probes of the roofline: that they measure something, and refuse what they cannot measure."""

import math

import pytest

native = pytest.importorskip("salver._native")
rates = pytest.importorskip("salver.engine.runners.rates")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 4096, 3 * 2**20 + 17])
def test_reading(threads: int, size: int) -> None:
    rate = rates.read_rate(threads, size, seconds=0.0)
    assert math.isfinite(rate)
    assert rate > 0


@pytest.mark.parametrize("isa", native.available_isas())
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_products(isa: str, precision: str) -> None:
    rate = rates.matrix_rate(precision, 2, isa=isa, seconds=0.0)
    assert math.isfinite(rate)
    assert rate > 0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="threads"):
        native.read_rate(threads=0, bytes=4096, seconds=0.1)
    with pytest.raises(ValueError, match="256 per thread"):
        native.read_rate(threads=2, bytes=511, seconds=0.1)
    with pytest.raises(ValueError, match="seconds"):
        native.read_rate(threads=1, bytes=4096, seconds=-1.0)
    with pytest.raises(ValueError, match="q4"):
        native.matrix_rate("scalar", "q4", threads=1, seconds=0.0)
    with pytest.raises(ValueError, match="path"):
        native.matrix_rate("abacus", "bf16", threads=1, seconds=0.0)
