"""Block decoders against scalar ones written from the format's own description.

The scalar decoders follow the struct layouts of ggml (ggml-common.h), one element at a time. They
round to float32 where ggml does, so equality is exact.
"""

import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import MalformedModel
from salver.models.weights import GGUF_TYPES, decode_blocks, decode_floats, finite

Kind = GGMLQuantizationType
Decoder = Callable[[bytes], list[np.float32]]


def half(raw: bytes, at: int) -> np.float32:
    return np.float32(struct.unpack_from("<e", raw, at)[0])


def nibbles(packed: bytes) -> list[int]:
    """32 values: the low halves of 16 bytes, then their high halves."""
    return [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]


def q4_0(raw: bytes) -> list[np.float32]:
    return [half(raw, 0) * (q - 8) for q in nibbles(raw[2:18])]


def q4_1(raw: bytes) -> list[np.float32]:
    return [half(raw, 0) * q + half(raw, 2) for q in nibbles(raw[4:20])]


def fifth_bits(raw: bytes, at: int) -> list[int]:
    word = int.from_bytes(raw[at : at + 4], "little")
    return [(word >> i & 1) << 4 for i in range(32)]


def q5_0(raw: bytes) -> list[np.float32]:
    pairs = zip(nibbles(raw[6:22]), fifth_bits(raw, 2), strict=True)
    return [half(raw, 0) * ((low | high) - 16) for low, high in pairs]


def q5_1(raw: bytes) -> list[np.float32]:
    pairs = zip(nibbles(raw[8:24]), fifth_bits(raw, 4), strict=True)
    return [half(raw, 0) * (low | high) + half(raw, 2) for low, high in pairs]


def q8_0(raw: bytes) -> list[np.float32]:
    return [half(raw, 0) * q for q in struct.unpack("<32b", raw[2:34])]


def six_bit_pairs(packed: bytes) -> Iterator[tuple[int, int]]:
    """The 8 (scale, minimum) pairs of a K-quant, 6 bits each in 12 bytes."""
    for j in range(8):
        if j < 4:
            yield packed[j] & 63, packed[j + 4] & 63
        else:
            scale = packed[j + 4] & 15 | packed[j - 4] >> 6 << 4
            yield scale, packed[j + 4] >> 4 | packed[j] >> 6 << 4


def q4_k(raw: bytes) -> list[np.float32]:
    d, dmin, qs = half(raw, 0), half(raw, 2), raw[16:144]
    values: list[np.float32] = []
    for group, (scale, minimum) in enumerate(six_bit_pairs(raw[4:16])):
        for i in range(32):
            q = qs[group // 2 * 32 + i] >> 4 * (group % 2) & 15
            values.append(d * scale * q - dmin * minimum)
    return values


def q5_k(raw: bytes) -> list[np.float32]:
    d, dmin, qh, qs = half(raw, 0), half(raw, 2), raw[16:48], raw[48:176]
    values: list[np.float32] = []
    for group, (scale, minimum) in enumerate(six_bit_pairs(raw[4:16])):
        for i in range(32):
            low = qs[group // 2 * 32 + i] >> 4 * (group % 2) & 15
            q = low | (qh[i] >> group & 1) << 4
            values.append(d * scale * q - dmin * minimum)
    return values


def q6_k(raw: bytes) -> list[np.float32]:
    ql, qh, scales = raw[:128], raw[128:192], struct.unpack("<16b", raw[192:208])
    d = half(raw, 208)
    values: list[np.float32] = []
    for n in range(256):
        side, quarter, i = n // 128, n % 128 // 32, n % 32
        low = ql[side * 64 + quarter % 2 * 32 + i] >> 4 * (quarter // 2) & 15
        high = qh[side * 32 + i] >> 2 * quarter & 3
        values.append(d * scales[n // 16] * ((low | high << 4) - 32))
    return values


def bf16(raw: bytes) -> list[np.float32]:
    return [np.float32(struct.unpack("<f", b"\0\0" + raw)[0])]


SCALAR: dict[Kind, Decoder] = {
    Kind.F32: lambda raw: [np.float32(struct.unpack("<f", raw)[0])],
    Kind.F16: lambda raw: [half(raw, 0)],
    Kind.BF16: bf16,
    Kind.Q4_0: q4_0,
    Kind.Q4_1: q4_1,
    Kind.Q5_0: q5_0,
    Kind.Q5_1: q5_1,
    Kind.Q8_0: q8_0,
    Kind.Q4_K: q4_k,
    Kind.Q5_K: q5_k,
    Kind.Q6_K: q6_k,
}


def test_every_supported_type_has_a_scalar_decoder() -> None:
    assert SCALAR.keys() == GGUF_TYPES


@pytest.mark.parametrize("kind", sorted(SCALAR), ids=lambda kind: kind.name)
@given(data=st.data())
def test_blocks_decode_as_the_format_says(kind: Kind, data: st.DataObject) -> None:
    elements, size = GGML_QUANT_SIZES[kind]
    rows, blocks = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    count = rows * blocks
    raw = data.draw(st.binary(min_size=count * size, max_size=count * size))
    decoded = decode_blocks(np.frombuffer(raw, np.uint8), kind, (rows, blocks * elements))
    with np.errstate(all="ignore"):  # any scale can be inf or nan
        scalar = [v for i in range(count) for v in SCALAR[kind](raw[i * size : (i + 1) * size])]
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, np.array(scalar, np.float32).reshape(rows, -1))


def test_long_tensors_decode_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = np.random.default_rng(1).integers(0, 120, 50 * 2 * 34, dtype=np.uint8)
    whole = decode_blocks(raw, Kind.Q8_0, (50, 64))
    monkeypatch.setattr("salver.models.weights._CHUNK_ELEMENTS", 7 * 64)
    np.testing.assert_array_equal(decode_blocks(raw, Kind.Q8_0, (50, 64)), whole)


@given(st.lists(st.binary(min_size=2, max_size=2), min_size=1, max_size=8))
def test_bfloat16_is_the_upper_half_of_float32(words: list[bytes]) -> None:
    raw = np.frombuffer(b"".join(words), np.uint8)
    decoded = decode_floats(raw, "BF16", (len(words),))
    np.testing.assert_array_equal(decoded, [bf16(word)[0] for word in words])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_weight_that_is_no_number_is_refused(bad: float, at: int) -> None:
    weights = np.ones(10, np.float32)
    weights[at] = bad
    with pytest.raises(MalformedModel, match=r"'w' holds a weight that is not a finite number"):
        finite(weights, "w", "file")
