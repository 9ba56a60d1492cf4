"""Our own decoders of ggml blocks give the package's bits, whatever the blocks hold."""

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.models.weights import _OURS, decode_blocks


@pytest.mark.parametrize("kind", _OURS, ids=lambda kind: kind.name)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), blocks=st.integers(1, 200))
@settings(max_examples=20)
def test_bits_are_those_of_the_package(
    kind: GGMLQuantizationType, seed: int, rows: int, blocks: int
) -> None:
    """Random bytes: scales are infinities and NaN too."""
    elements, size = GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks * size), np.uint8)
    with np.errstate(all="ignore"):
        theirs = dequantize(raw, kind)
    ours = decode_blocks(raw.reshape(-1), kind, (rows, blocks * elements))
    np.testing.assert_array_equal(ours, theirs)
    assert np.array_equal(np.signbit(ours), np.signbit(theirs))
