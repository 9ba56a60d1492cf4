"""4-bit groups taken out of their blocks say exactly what the blocks, dequantized, say."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import MalformedModel
from salver.models import GROUP_KINDS, open_checkpoint
from salver.models.groups import GROUP, arranged, read_groups
from salver.models.weights import decode_blocks
from salver.testing.tiny_groups import draw_blocks

FORMATS = sorted(GROUP_KINDS)
Write = Callable[[Mapping[str, Any], Mapping[str, Any]], Path]


@pytest.mark.parametrize("format_name", FORMATS)
@given(rows=st.integers(1, 5), runs=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_groups_say_what_their_blocks_say(
    format_name: str, rows: int, runs: int, seed: int
) -> None:
    shape = rows, 256 * runs
    raw = draw_blocks(np.random.default_rng(seed), format_name, *shape)
    groups = read_groups(raw, format_name, rows)
    expected = decode_blocks(raw, GGMLQuantizationType[format_name], shape)
    np.testing.assert_array_equal(groups.weights(), expected)
    assert groups.codes.max() < 16
    assert all(a.flags.c_contiguous for a in groups.arrays.values() if a is not None)


@pytest.mark.parametrize("format_name", FORMATS)
def test_rows_move_with_their_groups(format_name: str) -> None:
    rng = np.random.default_rng(4)
    first, second = (
        read_groups(draw_blocks(rng, format_name, rows, 512), format_name, rows) for rows in (3, 5)
    )
    joined = arranged([first, second], lambda parts: np.concatenate(parts)[::-1].copy())
    expected = np.concatenate((first.weights(), second.weights()))[::-1]
    np.testing.assert_array_equal(joined.weights(), expected)


@pytest.fixture
def grouped_tensors() -> dict[str, Any]:
    """The tiny Llama, 32 wide, its q, k and gate in three formats."""
    rng = np.random.default_rng(1)
    plain = {
        "token_embd.weight": (32, 32),
        "output_norm.weight": (32,),
        "blk.0.attn_norm.weight": (32,),
        "blk.0.ffn_norm.weight": (32,),
        "blk.0.attn_v.weight": (16, 32),
        "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
    }
    tensors: dict[str, Any] = {
        name: (0, shape, rng.standard_normal(shape, np.float32).tobytes())
        for name, shape in plain.items()
    }
    for name, format_name, rows in (
        ("attn_q", "Q4_0", 32),
        ("attn_k", "Q4_1", 16),
        ("ffn_gate", "Q4_1", 64),
    ):
        blocks = draw_blocks(rng, format_name, rows, 32).tobytes()
        tensors[f"blk.0.{name}.weight"] = (
            GGMLQuantizationType[format_name].value,
            (rows, 32),
            blocks,
        )
    return tensors


@pytest.fixture
def wide_metadata(tiny_metadata: Any) -> dict[str, Any]:
    sizes = {"llama.embedding_length": 32, "llama.feed_forward_length": 64}
    return {**tiny_metadata, **sizes}


def test_a_file_gives_groups_in_canonical_order(
    write_gguf: Write, wide_metadata: Any, grouped_tensors: Any
) -> None:
    checkpoint = open_checkpoint(write_gguf(wide_metadata, grouped_tensors))
    found = {name for name, kind in checkpoint.formats.items() if kind in GROUP_KINDS}
    assert {name.split(".")[-2] for name in found} == {"q_proj", "k_proj", "gate_proj"}
    assert checkpoint.formats["model.norm.weight"] == "F32"
    for name in found:
        groups, weights = checkpoint.groups(name), checkpoint.tensor(name)
        assert groups.scales.shape == (len(weights), weights.shape[1] // GROUP)
        np.testing.assert_array_equal(groups.weights(), weights)


def test_what_has_no_sound_groups_is_refused(
    write_gguf: Write, wide_metadata: Any, grouped_tensors: Any
) -> None:
    kind, shape, blocks = grouped_tensors["blk.0.ffn_gate.weight"]
    broken = bytes.fromhex("007c") + blocks[2:]  # the first scale is infinite
    grouped_tensors["blk.0.ffn_gate.weight"] = kind, shape, broken
    checkpoint = open_checkpoint(write_gguf(wide_metadata, grouped_tensors))
    with pytest.raises(MalformedModel, match="not a finite number"):
        checkpoint.groups("model.layers.0.mlp.gate_proj.weight")
    for name in ("model.norm.weight", "model.nothing"):
        with pytest.raises(MalformedModel, match="no 4-bit groups"):
            checkpoint.groups(name)
