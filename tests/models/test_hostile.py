"""Files that lie: every one is refused by name, at once, and in bounded memory."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from salver.errors import MalformedModel, UnsupportedModel
from salver.models import expected_tensors, open_checkpoint

Build = Callable[..., bytes]

one_file_per_test = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def tiny_gguf(gguf_bytes: Build, tiny_metadata: Any, tiny_tensors: Any) -> bytes:
    return gguf_bytes(tiny_metadata, tiny_tensors)


@pytest.fixture
def tiny_safetensors(hf_arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    return bytes(save(dict(hf_arrays)))


def header_size(gguf: bytes, tensors: Mapping[str, tuple[int, tuple[int, ...], bytes]]) -> int:
    """Where the data starts, as every tensor here fills whole multiples of the alignment."""
    return len(gguf) - sum(len(raw) for _, _, raw in tensors.values())


def refusal(path: Path) -> MalformedModel | UnsupportedModel | None:
    """Open the file and read all of it; any exception outside the two named ones is a failure."""
    try:
        checkpoint = open_checkpoint(path)
        for name in expected_tensors(checkpoint.config):
            checkpoint.tensor(name)
    except (MalformedModel, UnsupportedModel) as error:
        return error
    return None


def opens_or_says_why_not(path: Path) -> bool:
    error = refusal(path)
    return error is None or bool(error.problem and error.rule and error.fix)


def test_the_undamaged_files_open(
    tmp_path: Path, tiny_gguf: bytes, tiny_safetensors: bytes, tiny_json: Any
) -> None:
    (tmp_path / "m.gguf").write_bytes(tiny_gguf)
    assert refusal(tmp_path / "m.gguf") is None
    write_directory(tmp_path, tiny_safetensors, tiny_json)
    assert refusal(tmp_path) is None


def write_directory(path: Path, weights: bytes, config: Any) -> None:
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(weights)


@one_file_per_test
@given(data=st.data())
def test_a_gguf_cut_short_anywhere(data: st.DataObject, tmp_path: Path, tiny_gguf: bytes) -> None:
    cut = data.draw(st.integers(0, len(tiny_gguf) - 1))
    (tmp_path / "m.gguf").write_bytes(tiny_gguf[:cut])
    with pytest.raises(MalformedModel):
        open_checkpoint(tmp_path / "m.gguf")


@settings(one_file_per_test, max_examples=400)
@given(data=st.data())
def test_a_gguf_with_flipped_header_bits(
    data: st.DataObject, tmp_path: Path, tiny_gguf: bytes, tiny_tensors: Any
) -> None:
    size = header_size(tiny_gguf, tiny_tensors)
    flips = data.draw(st.lists(st.integers(0, 8 * size - 1), min_size=1, max_size=4))
    damaged = bytearray(tiny_gguf)
    for bit in flips:
        damaged[bit // 8] ^= 1 << bit % 8
    (tmp_path / "m.gguf").write_bytes(damaged)
    assert opens_or_says_why_not(tmp_path / "m.gguf")


@settings(one_file_per_test, max_examples=300)
@given(data=st.data())
def test_a_gguf_with_an_absurd_number_anywhere(
    data: st.DataObject, tmp_path: Path, tiny_gguf: bytes, tiny_tensors: Any
) -> None:
    at = data.draw(st.integers(0, header_size(tiny_gguf, tiny_tensors) - 8))
    number = data.draw(st.sampled_from([0, 1, 255, 2**31, 2**32 - 1, 2**40, 2**60, 2**64 - 1]))
    damaged = tiny_gguf[:at] + struct.pack("<Q", number) + tiny_gguf[at + 8 :]
    (tmp_path / "m.gguf").write_bytes(damaged)
    assert opens_or_says_why_not(tmp_path / "m.gguf")


@one_file_per_test
@given(data=st.data())
def test_safetensors_cut_short_anywhere(
    data: st.DataObject, tmp_path: Path, tiny_safetensors: bytes, tiny_json: Any
) -> None:
    cut = data.draw(st.integers(0, len(tiny_safetensors) - 1))
    write_directory(tmp_path, tiny_safetensors[:cut], tiny_json)
    with pytest.raises(MalformedModel):
        open_checkpoint(tmp_path)


@settings(one_file_per_test, max_examples=300)
@given(data=st.data())
def test_safetensors_with_flipped_header_bits(
    data: st.DataObject, tmp_path: Path, tiny_safetensors: bytes, tiny_json: Any
) -> None:
    size = 8 + int.from_bytes(tiny_safetensors[:8], "little")
    bit = data.draw(st.integers(0, 8 * size - 1))
    damaged = bytearray(tiny_safetensors)
    damaged[bit // 8] ^= 1 << bit % 8
    write_directory(tmp_path, bytes(damaged), tiny_json)
    assert opens_or_says_why_not(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(one_file_per_test, max_examples=300)
@given(data=st.data())
def test_a_config_with_anything_in_it(
    data: st.DataObject, tmp_path: Path, tiny_safetensors: bytes, tiny_json: Any
) -> None:
    extra = ["head_dim", "sliding_window", "rope_scaling", "rope_parameters", "layer_types"]
    key = data.draw(st.sampled_from([*tiny_json, *extra]))
    write_directory(tmp_path, tiny_safetensors, {**tiny_json, key: data.draw(json_values)})
    assert opens_or_says_why_not(tmp_path)


def text(raw: str | bytes) -> bytes:
    raw = raw.encode() if isinstance(raw, str) else raw
    return struct.pack("<Q", len(raw)) + raw


def front(tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int) -> bytes:
    return struct.pack("<IQ", kind, count)


def row(name: str, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


U32, BOOL, STRING, ARRAY = 4, 7, 8, 9
PAD = bytes(4096)

CRAFTED = [
    (b"GGML" + PAD, "starts with b'GGML'"),
    (front(version=1) + PAD, "of version 1"),
    (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    (front(tensors=2**60) + PAD, "number of tensors is 1152921504606846976"),
    (front(keys=2**60) + PAD, "number of keys is 1152921504606846976"),
    (front(tensors=60_000) + PAD, "number of tensors needs 1440000 bytes"),
    (front(keys=1) + struct.pack("<Q", 2**63) + PAD, "length of a key"),
    (front(keys=1) + key("k", STRING, struct.pack("<Q", 2**60)) + PAD, "length of value of 'k'"),
    (front(keys=1) + key("k", 13, PAD), "'k' has unknown type 13"),
    (front(keys=1) + key("k", BOOL, b"\x02") + PAD, "neither 0 nor 1"),
    (front(keys=1) + key("k", ARRAY, array(0, 2**60)) + PAD, "length of array 'k'"),
    (front(keys=1) + key("k", ARRAY, array(U32, 2**20)) + PAD, "length of array 'k' needs"),
    (front(keys=1) + key("k", ARRAY, array(STRING, 9) + text("x") * 8) + b"x", "runs past"),
    (front(keys=1) + key("k", ARRAY, array(STRING, 2) + struct.pack("<QQ", 2**60, 0)), "runs past"),
    (front(keys=1) + key("k", ARRAY, array(STRING, 1) + text(b"\xff")), "array 'k' is not UTF-8"),
    (front(keys=1) + key("k", ARRAY, array(ARRAY, 1) + array(ARRAY, 1) * 99), "array of arrays"),
    (front(keys=1) + key(b"\xff", U32, PAD), "a key is not UTF-8"),
    (front(keys=2) + key("k", U32, bytes(4)) * 2 + PAD, "key 'k' appears twice"),
    *(
        (front(keys=1) + key("general.alignment", U32, struct.pack("<I", n)) + PAD, "alignment")
        for n in (0, 3, 2**31)
    ),
    (front(keys=1) + key("general.alignment", STRING, text("32")) + PAD, "alignment is '32'"),
    (front(tensors=1) + text("n" * 65) + PAD, "length of a tensor's name is 65, over 64"),
    (front(tensors=1) + row("t", []) + PAD, "'t' has 0 dimensions"),
    (front(tensors=1) + text("t") + struct.pack("<I", 255) + PAD, "'t' has 255 dimensions"),
    (front(tensors=1) + row("t", [0]) + PAD, "'t' has shape"),
    (front(tensors=1) + row("t", [33], kind=8) + PAD, "multiple of 32"),
    (front(tensors=1) + row("t", [8], kind=99) + PAD, "'t' has unknown type 99"),
    (front(tensors=1) + row("t", [2**63] * 4) + PAD, "ends past the file"),
    (front(tensors=1) + row("t", [8], offset=2**64 - 32) + PAD, "ends past the file"),
    (front(tensors=1) + row("t", [8], offset=8) + PAD, "is not aligned to 32"),
    (front(tensors=2) + row("a", [16]) + row("b", [16], offset=32) + PAD, "overlaps"),
    (front(tensors=2) + row("a", [8]) + row("a", [8], offset=32) + PAD, "'a' .* appears twice"),
]


@pytest.mark.parametrize(("content", "message"), CRAFTED)
def test_crafted_headers(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(MalformedModel, match=message):
        open_checkpoint(tmp_path / "m.gguf")


OPEN_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from salver.errors import MalformedModel
from salver.models import open_checkpoint
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_checkpoint(path)
except MalformedModel as error:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) // 1024, error.rule)
"""


def megabytes_and_rule(path: Path) -> tuple[int, str]:
    """Open a hostile file in a process of its own: how far memory grew, and what refused it."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITH_LITTLE_MEMORY, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    grown, rule = done.stdout.split()
    return int(grown), rule


MILLIONS_OF_INTEGERS = front(keys=1) + key("k", ARRAY, array(0, 40_000_000)) + bytes(40_000_000)
MILLIONS_OF_STRINGS = front(keys=1) + key("k", ARRAY, array(STRING, 7_500_000)) + bytes(60_000_000)
ALLOWED_ARRAYS = (
    front(keys=5) + key("k", ARRAY, array(0, 2**22)) + bytes(2**22) + key("l", ARRAY, array(0, 1))
)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (MILLIONS_OF_INTEGERS, "gguf.count"),
        (MILLIONS_OF_STRINGS, "gguf.count"),
        (ALLOWED_ARRAYS + PAD, "gguf.count"),
        (front(keys=1) + key("k", STRING, struct.pack("<Q", 2**36)) + PAD, "gguf.count"),
    ],
    ids=["integers", "strings", "arrays", "string"],
)
def test_gguf_bombs_are_refused_in_bounded_memory(
    content: bytes, rule: str, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    grown, refused_by = megabytes_and_rule(tmp_path / "m.gguf")
    assert refused_by == rule
    assert grown < 200


def test_a_safetensors_bomb_is_refused_in_bounded_memory(tmp_path: Path, tiny_json: Any) -> None:
    nested = b'{"a":[' + b"[]," * (2 << 20) + b"[]]}"
    write_directory(tmp_path, struct.pack("<Q", len(nested)) + nested, tiny_json)
    grown, rule = megabytes_and_rule(tmp_path)
    assert rule == "model.a"
    assert grown < 400
