"""Stored bytes to float32, and the one check that every decoded tensor passes."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from salver.errors import MalformedModel, UnsupportedModel

GGUF_TYPES: Final = frozenset(
    {
        GGMLQuantizationType.F32,
        GGMLQuantizationType.F16,
        GGMLQuantizationType.BF16,
        GGMLQuantizationType.Q4_0,
        GGMLQuantizationType.Q4_1,
        GGMLQuantizationType.Q5_0,
        GGMLQuantizationType.Q5_1,
        GGMLQuantizationType.Q8_0,
        GGMLQuantizationType.Q4_K,
        GGMLQuantizationType.Q5_K,
        GGMLQuantizationType.Q6_K,
    }
)
SAFETENSORS_TYPES: Final[Mapping[str, np.dtype[np.generic]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16
}

_CHUNK_ELEMENTS: Final = 1 << 22  # the decoders' temporaries stay within some 50 MB
_CACHED_ELEMENTS: Final = 1 << 17  # those of our own stay in a core's cache

_Blocks = NDArray[np.void]


def _q4_0(blocks: _Blocks, out: NDArray[np.float32]) -> None:
    _nibbles(blocks, out)
    out -= np.float32(8)
    out *= blocks["d"].astype(np.float32)[:, None]


def _q4_1(blocks: _Blocks, out: NDArray[np.float32]) -> None:
    _nibbles(blocks, out)
    out *= blocks["d"].astype(np.float32)[:, None]
    out += blocks["m"].astype(np.float32)[:, None]


def _q8_0(blocks: _Blocks, out: NDArray[np.float32]) -> None:
    np.multiply(blocks["q"], blocks["d"].astype(np.float32)[:, None], out=out)


def _nibbles(blocks: _Blocks, out: NDArray[np.float32]) -> None:
    """The low halves of 16 bytes, then their high halves."""
    out[:, :16] = blocks["q"] & np.uint8(15)
    out[:, 16:] = blocks["q"] >> np.uint8(4)


# The commonest types, whose decoding a first start waits for. The package decodes 16 rows at a time,
# which keeps the interpreter's lock busy and other threads waiting; bits are the same.
_OURS: Final = {
    GGMLQuantizationType.Q4_0: (_q4_0, np.dtype([("d", "<f2"), ("q", "u1", 16)])),
    GGMLQuantizationType.Q4_1: (_q4_1, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])),
    GGMLQuantizationType.Q8_0: (_q8_0, np.dtype([("d", "<f2"), ("q", "i1", 32)])),
}


def decode_blocks(
    raw: NDArray[np.uint8], kind: GGMLQuantizationType, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Decode ggml blocks, laid out row after row, to a new array of `shape`."""
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    if kind in _OURS:
        return _decode_ours(raw, kind).reshape(shape)
    rows = raw.reshape(-1, shape[-1] // block_elements * block_bytes)
    decoded = np.empty((len(rows), shape[-1]), np.float32)
    step = max(1, _CHUNK_ELEMENTS // shape[-1])
    with np.errstate(all="ignore"):  # scales may be inf or nan here; `finite` is the judge
        for start in range(0, len(rows), step):
            decoded[start : start + step] = dequantize(rows[start : start + step], kind)
    return decoded.reshape(shape)


def _decode_ours(raw: NDArray[np.uint8], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    decode, layout = _OURS[kind]
    blocks = raw.view(layout)
    decoded = np.empty((len(blocks), 32), np.float32)
    step = _CACHED_ELEMENTS // 32
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            decode(blocks[start : start + step], decoded[start : start + step])
    return decoded


def decode_floats(
    raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Decode safetensors elements of a type in `SAFETENSORS_TYPES` to a new array of `shape`."""
    stored = raw.view(SAFETENSORS_TYPES[dtype])
    if dtype != "BF16":
        return stored.astype(np.float32).reshape(shape)
    bits = stored.astype(np.uint32)
    bits <<= np.uint32(16)  # bfloat16 is the upper half of a float32
    return bits.view(np.float32).reshape(shape)


def finite(weights: NDArray[np.float32], name: str, where: str) -> NDArray[np.float32]:
    """The same array, once it is known to hold no NaN and no infinity.

    Raises:
        MalformedModel: it does; one such weight would poison every answer.
    """
    with np.errstate(invalid="ignore"):
        extremes = float(weights.min()), float(weights.max())
    if not np.isfinite(extremes).all():
        raise MalformedModel(
            f"{where}: tensor {name!r} holds a weight that is not a finite number",
            rule="tensor.finite",
            value=extremes,
            fix="the file is damaged: fetch it again and check its digest",
        )
    return weights


def unsupported_type(
    name: str, kind: str, supported: Iterable[str], where: str
) -> UnsupportedModel:
    """The error for a tensor of a type that cannot be decoded."""
    listed = ", ".join(sorted(supported))
    return UnsupportedModel(
        f"{where}: tensor {name!r} is stored as {kind}",
        rule="tensor.type",
        value=kind,
        limit=listed,
        fix=f"choose a file stored as one of {listed}",
    )
