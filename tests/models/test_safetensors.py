"""Safetensors directories, written by the format's own package where it can write them."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from salver.errors import MalformedModel, UnsupportedModel
from salver.models import expected_tensors, open_checkpoint

Arrays = Mapping[str, NDArray[np.float32]]
SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path, tiny_json: dict[str, object]) -> SaveModel:
    """Write a model directory; `shards` maps file names to their tensors."""

    def save(shards: Mapping[str, Mapping[str, NDArray[Any]]], **changes: object) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({**tiny_json, **changes}))
        for name, arrays in shards.items():
            save_file(dict(arrays), tmp_path / name, metadata={"format": "pt"})
        return tmp_path

    return save


def raw_file(entries: Mapping[str, object], data: bytes) -> bytes:
    table = json.dumps(entries).encode()
    return struct.pack("<Q", len(table)) + table + data


def test_one_file(save_model: SaveModel, hf_arrays: Arrays) -> None:
    checkpoint = open_checkpoint(save_model({"model.safetensors": hf_arrays}))
    assert expected_tensors(checkpoint.config).keys() == hf_arrays.keys()
    for name, array in hf_arrays.items():
        np.testing.assert_array_equal(checkpoint.tensor(name), array)


def test_a_file_named_directly(save_model: SaveModel, hf_arrays: Arrays) -> None:
    path = save_model({"weights.safetensors": hf_arrays}) / "weights.safetensors"
    assert open_checkpoint(path).config.num_layers == 1


def shards(arrays: Arrays) -> dict[str, Arrays]:
    names = sorted(arrays)
    halves = names[::2], names[1::2]
    return {
        f"model-{i}-of-2.safetensors": {name: arrays[name] for name in half}
        for i, half in enumerate(halves, 1)
    }


def write_index(directory: Path, files: Mapping[str, Arrays]) -> None:
    weight_map = {name: file for file, arrays in files.items() for name in arrays}
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(text)


def test_shards(save_model: SaveModel, hf_arrays: Arrays) -> None:
    files = shards(hf_arrays)
    directory = save_model(files)
    write_index(directory, files)
    checkpoint = open_checkpoint(directory)
    for name, array in hf_arrays.items():
        np.testing.assert_array_equal(checkpoint.tensor(name), array)


def test_a_missing_shard(save_model: SaveModel, hf_arrays: Arrays) -> None:
    files = shards(hf_arrays)
    directory = save_model(files)
    write_index(directory, files)
    (directory / "model-2-of-2.safetensors").unlink()
    with pytest.raises(MalformedModel, match=r"model-2-of-2.safetensors cannot be read"):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "m.bin", 3, ""]
)
def test_an_index_names_only_files_beside_it(
    name: object, save_model: SaveModel, hf_arrays: Arrays
) -> None:
    directory = save_model({})
    text = json.dumps({"weight_map": {"lm_head.weight": name}})
    (directory / "model.safetensors.index.json").write_text(text)
    with pytest.raises(MalformedModel, match="which is not a file beside it"):
        open_checkpoint(directory)


def test_a_tensor_in_two_shards(save_model: SaveModel, hf_arrays: Arrays) -> None:
    files = {
        "a.safetensors": hf_arrays,
        "b.safetensors": shards(hf_arrays)["model-1-of-2.safetensors"],
    }
    directory = save_model(files)
    write_index(directory, files)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    with pytest.raises(MalformedModel, match="of another file"):
        open_checkpoint(directory)


def test_half_precision_files(save_model: SaveModel, hf_arrays: Arrays) -> None:
    halves = {name: array.astype(np.float16) for name, array in hf_arrays.items()}
    checkpoint = open_checkpoint(save_model({"model.safetensors": halves}))
    for name, array in halves.items():
        np.testing.assert_array_equal(checkpoint.tensor(name), array.astype(np.float32))


def test_bfloat16_files(save_model: SaveModel, hf_arrays: Arrays) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in hf_arrays.items():
        upper = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(upper)]
        entries[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": offsets}
        data += upper
    directory = save_model({})
    (directory / "model.safetensors").write_bytes(raw_file(entries, data))
    checkpoint = open_checkpoint(directory)
    for name, array in hf_arrays.items():
        truncated = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
        np.testing.assert_array_equal(checkpoint.tensor(name), truncated)


def test_derived_and_tied_copies_are_never_read(save_model: SaveModel, hf_arrays: Arrays) -> None:
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
        "lm_head.weight": np.full((4, 16), np.nan, np.float32),
    }
    directory = save_model({"model.safetensors": {**hf_arrays, **extra}})
    checkpoint = open_checkpoint(directory)
    for name in extra:
        with pytest.raises(MalformedModel, match="there is no tensor"):
            checkpoint.tensor(name)


def test_an_untied_head_must_be_there(save_model: SaveModel, hf_arrays: Arrays) -> None:
    directory = save_model({"model.safetensors": hf_arrays}, tie_word_embeddings=False)
    with pytest.raises(MalformedModel, match=r"'lm_head.weight' is missing"):
        open_checkpoint(directory)


def test_other_types_are_refused_by_name(save_model: SaveModel, hf_arrays: Arrays) -> None:
    arrays = {**hf_arrays, "model.norm.weight": np.ones(16, np.float64)}
    with pytest.raises(UnsupportedModel, match=r"'model.norm.weight' is stored as F64"):
        open_checkpoint(save_model({"model.safetensors": arrays}))


def test_a_weight_that_is_no_number(save_model: SaveModel, hf_arrays: Arrays) -> None:
    arrays = {**hf_arrays, "model.norm.weight": np.full(16, np.nan, np.float32)}
    checkpoint = open_checkpoint(save_model({"model.safetensors": arrays}))
    with pytest.raises(MalformedModel, match="not a finite number"):
        checkpoint.tensor("model.norm.weight")


def test_pickles_are_never_opened(save_model: SaveModel) -> None:
    directory = save_model({})
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(MalformedModel, match="pickled weights, which can run code"):
        open_checkpoint(directory)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\x05\0\0", "does not fit"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header of 1152921504606846976 bytes"),
        (raw_file({}, b"") + b"x", "its tensors end at 10"),
        (struct.pack("<Q", 3) + b"[1]", "is not an object"),
        (struct.pack("<Q", 9) + b'{"a":NaN}', "NaN is not JSON"),
        (struct.pack("<Q", 13) + b'{"a":1,"a":2}', "appears twice"),
        (struct.pack("<Q", 2) + b"\xff\xff", "cannot be read"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "cannot be read"),
        (raw_file({"a": 3}, b""), "a is 3; it must be a mapping"),
        (raw_file({"a": entry(dtype=3)}, bytes(8)), "dtype is 3"),
        (raw_file({"a": entry(shape=3)}, bytes(8)), "shape is 3"),
        (raw_file({"a": entry(shape=[-2])}, bytes(8)), "shape is"),
        (raw_file({"a": entry(shape=[True])}, bytes(8)), "shape is"),
        (raw_file({"a": entry(shape=[1] * 99)}, bytes(8)), "shape is"),
        (raw_file({"a": entry(shape=[1 << 59, 1 << 59])}, bytes(8)), "as far apart"),
        (raw_file({"a": entry(offsets=[8, 0])}, bytes(8)), "ascending"),
        (raw_file({"a": entry(offsets=[0, 8, 16])}, bytes(8)), "ascending"),
        (raw_file({"a": entry(offsets=[0, 1 << 59])}, bytes(8)), "as far apart"),
        (raw_file({"a": entry(offsets=[0, 12])}, bytes(12)), "as far apart"),
        (raw_file({"a": entry(), "b": entry()}, bytes(8)), "overlaps or leaves a hole"),
        (raw_file({"a": entry(offsets=[4, 12])}, bytes(12)), "overlaps or leaves a hole"),
        (raw_file({"a": entry()}, bytes(7)), "its tensors end at"),
    ],
)
def test_damaged_tables(content: bytes, message: str, save_model: SaveModel) -> None:
    directory = save_model({})
    (directory / "model.safetensors").write_bytes(content)
    with pytest.raises(MalformedModel, match=message):
        open_checkpoint(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b" " * (1 << 20) + b"{}"])
def test_damaged_config(content: bytes, save_model: SaveModel, hf_arrays: Arrays) -> None:
    directory = save_model({"model.safetensors": hf_arrays})
    (directory / "config.json").write_bytes(content)
    with pytest.raises(MalformedModel, match=r"config.json cannot be read"):
        open_checkpoint(directory)
