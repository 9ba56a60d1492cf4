"""GGUF checkpoints: canonical names and layout, exact validation, lazily decoded weights."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.errors import MalformedModel, UnsupportedModel
from salver.models import expected_tensors
from salver.models.gguf_checkpoint import GgufCheckpoint, open_gguf, undo_permutation
from salver.models.names import gguf_name

Arrays = Mapping[str, NDArray[np.float32]]
Write = Callable[[Mapping[str, Any], Mapping[str, Any]], Path]

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def rotate_half(x: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """RoPE on the last axis as `transformers` does it: dimension i pairs with i + d / 2."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def rotate_pairs(x: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """RoPE on the last axis as llama.cpp does it for `llama`: dimension 2i pairs with 2i + 1."""
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(x.shape)


@given(heads=st.integers(1, 4), half=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_undoing_the_permutation_keeps_attention_scores(heads: int, half: int, seed: int) -> None:
    """Scores from file order with paired RoPE equal those from our order with rotate-half."""
    rng = np.random.default_rng(seed)
    shape, dim = (heads * 2 * half, 5), 2 * half
    stored_q, stored_k = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    x, y, at_x, at_y = rng.normal(size=5), rng.normal(size=5), 3.0, 11.0
    frequencies = rng.uniform(0.01, 1.0, half)

    def scores(q: NDArray[Any], k: NDArray[Any], rotate: Any) -> NDArray[np.float64]:
        rotated_q = rotate((q @ x).reshape(heads, dim), at_x * frequencies)
        rotated_k = rotate((k @ y).reshape(heads, dim), at_y * frequencies)
        result: NDArray[np.float64] = (rotated_q * rotated_k).sum(-1)
        return result

    ours_q, ours_k = (undo_permutation(stored, dim) for stored in (stored_q, stored_k))
    assert ours_q.shape == shape
    np.testing.assert_allclose(
        scores(ours_q, ours_k, rotate_half), scores(stored_q, stored_k, rotate_pairs), atol=1e-9
    )


def test_llama_tensors_come_out_under_canonical_names(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any, tiny_arrays: Arrays
) -> None:
    checkpoint = open_gguf(write_gguf(tiny_metadata, tiny_tensors))
    for name, shape in expected_tensors(checkpoint.config).items():
        weights = checkpoint.tensor(name)
        assert weights.shape == shape
        assert weights.dtype == np.float32
        assert weights.flags.c_contiguous
        assert weights.flags.writeable
        stored = tiny_arrays[gguf_name(name)]
        if "q_proj" in name or "k_proj" in name:
            stored = undo_permutation(stored, 8)
        np.testing.assert_array_equal(weights, stored)


def test_llama_biases_are_permuted_with_their_rows(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any
) -> None:
    q, k, v = np.arange(16, dtype=np.float32), np.arange(8, dtype=np.float32), np.ones(8, "f4")
    for letter, bias in (("q", q), ("k", k), ("v", v)):
        tiny_tensors[f"blk.0.attn_{letter}.bias"] = (0, bias.shape, bias.tobytes())
    checkpoint = open_gguf(write_gguf(tiny_metadata, tiny_tensors))
    halves = [0, 2, 4, 6, 1, 3, 5, 7]
    assert checkpoint.tensor("model.layers.0.self_attn.k_proj.bias").tolist() == halves
    both = halves + [8 + row for row in halves]
    assert checkpoint.tensor("model.layers.0.self_attn.q_proj.bias").tolist() == both


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_qwen_rows_are_left_as_they_are(
    architecture: str, write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any, tiny_arrays: Arrays
) -> None:
    metadata = {
        key.replace("llama.", f"{architecture}."): value for key, value in tiny_metadata.items()
    }
    metadata["general.architecture"] = architecture
    extra = {
        "qwen2": {"q.bias": 16, "k.bias": 8, "v.bias": 8},
        "qwen3": {"q_norm.weight": 8, "k_norm.weight": 8},
    }
    for suffix, size in extra[architecture].items():
        tiny_tensors[f"blk.0.attn_{suffix}"] = (0, (size,), np.ones(size, np.float32).tobytes())
    checkpoint = open_gguf(write_gguf(metadata, tiny_tensors))
    np.testing.assert_array_equal(checkpoint.tensor(Q_PROJ), tiny_arrays["blk.0.attn_q.weight"])


def test_metadata_is_plain_python(write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any) -> None:
    checkpoint = open_gguf(write_gguf(tiny_metadata, tiny_tensors))
    assert checkpoint.metadata["tokenizer.ggml.tokens"] == ["a", "b", "c", "<s>"]
    assert checkpoint.metadata["tokenizer.ggml.scores"] == [0.0, -1.0, -2.0, 0.0]
    assert list(checkpoint.metadata) == list(tiny_metadata)


def test_rope_frequencies_become_part_of_the_config(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any
) -> None:
    factors = np.array([1, 1, 4, 8], np.float32)
    tiny_tensors["rope_freqs.weight"] = (0, (4,), factors.tobytes())
    checkpoint = open_gguf(write_gguf(tiny_metadata, tiny_tensors))
    assert checkpoint.config.rope.frequency_factors == (1.0, 1.0, 4.0, 8.0)


@pytest.mark.parametrize(
    "stored",
    [
        (0, (4,), np.array([1, 1, 0, 1], "f4").tobytes()),
        (0, (4,), np.array([1, 1, np.nan, 1], "f4").tobytes()),
        (0, (2, 2), np.ones(4, "f4").tobytes()),
        (1, (4,), np.ones(4, "f2").tobytes()),
        (0, (3,), np.ones(3, "f4").tobytes()),
    ],
)
def test_impossible_rope_frequencies(
    stored: Any, write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any
) -> None:
    tiny_tensors["rope_freqs.weight"] = stored
    with pytest.raises(MalformedModel, match="rope_freqs"):
        open_gguf(write_gguf(tiny_metadata, tiny_tensors))


def test_the_set_of_tensors_is_exact(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any
) -> None:
    bias = (0, (16,), np.zeros(16, np.float32).tobytes())
    with pytest.raises(MalformedModel, match=r"'blk.0.attn_output.bias' has no place"):
        open_gguf(write_gguf(tiny_metadata, {**tiny_tensors, "blk.0.attn_output.bias": bias}))
    without = {name: raw for name, raw in tiny_tensors.items() if name != "output_norm.weight"}
    with pytest.raises(MalformedModel, match=r"'output_norm.weight' is missing"):
        open_gguf(write_gguf(tiny_metadata, without))
    wrong = (0, (8, 8), np.zeros(64, np.float32).tobytes())
    with pytest.raises(MalformedModel, match=r"has shape \(8, 8\); .* ask for \(8, 16\)"):
        open_gguf(write_gguf(tiny_metadata, {**tiny_tensors, "blk.0.attn_v.weight": wrong}))


def test_a_type_without_a_decoder_is_refused_by_name(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any
) -> None:
    tiny_tensors["output_norm.weight"] = (28, (16,), bytes(128))  # F64
    with pytest.raises(UnsupportedModel, match=r"'output_norm.weight' is stored as F64"):
        open_gguf(write_gguf(tiny_metadata, tiny_tensors))


def test_weights_are_decoded_on_demand_and_checked_then(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any
) -> None:
    tiny_tensors["output_norm.weight"] = (0, (16,), np.full(16, np.inf, np.float32).tobytes())
    checkpoint = open_gguf(write_gguf(tiny_metadata, tiny_tensors))
    with pytest.raises(MalformedModel, match="not a finite number"):
        checkpoint.tensor("model.norm.weight")
    with pytest.raises(MalformedModel, match=r"there is no tensor 'lm_head.weight'"):
        checkpoint.tensor("lm_head.weight")


def test_a_tensor_outlives_its_checkpoint(
    write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any, tiny_arrays: Arrays
) -> None:
    weights = open_gguf(write_gguf(tiny_metadata, tiny_tensors)).tensor("model.norm.weight")
    np.testing.assert_array_equal(weights, tiny_arrays["output_norm.weight"])


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    pipe, empty = tmp_path / "pipe.gguf", tmp_path / "empty.gguf"
    os.mkfifo(pipe)
    empty.touch()
    for path in (pipe, empty, tmp_path / "absent.gguf"):
        with pytest.raises(MalformedModel, match=f"{path.name} cannot be read"):
            open_gguf(path)


def same_as_the_gguf_package(path: Path) -> GgufCheckpoint:
    """Every tensor holds the numbers that the `gguf` package reads, row order aside."""
    checkpoint, reader = open_gguf(path), GGUFReader(path)
    expected = expected_tensors(checkpoint.config)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert {gguf_name(name) for name in expected} == stored.keys()
    assert checkpoint.config.num_parameters == sum(t.n_elements for t in reader.tensors)
    for name, shape in expected.items():
        weights = checkpoint.tensor(name)
        tensor = stored[gguf_name(name)]
        theirs = dequantize(tensor.data, tensor.tensor_type)
        assert weights.shape == shape == theirs.shape
        if checkpoint.config.architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            weights, theirs = np.sort(weights, axis=0), np.sort(theirs, axis=0)
        np.testing.assert_array_equal(weights, theirs)
    return checkpoint


@pytest.mark.model
def test_smollm2(smollm2_path: Path) -> None:
    config = same_as_the_gguf_package(smollm2_path).config
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (30, 9, 3)
    assert (config.tie_embeddings, config.num_parameters) == (True, 134_515_008)


@pytest.mark.model
def test_smollm2_metadata_equals_that_of_the_gguf_package(smollm2_path: Path) -> None:
    ours, theirs = open_gguf(smollm2_path).metadata, GGUFReader(smollm2_path).fields
    named = {key: field for key, field in theirs.items() if not key.startswith("GGUF.")}
    assert ours == {key: field.contents() for key, field in named.items()}


@pytest.mark.large
def test_qwen2_5_coder() -> None:
    path = os.environ.get("SALVER_TEST_QWEN_GGUF")
    if not path:
        pytest.skip("SALVER_TEST_QWEN_GGUF names no file")
    config = same_as_the_gguf_package(Path(path)).config
    assert (config.architecture, config.attention_bias) == ("qwen2", True)
    assert not config.tie_embeddings  # the file brings its own head, though the original ties it
