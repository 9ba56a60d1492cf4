"""Builders of tiny model files, byte by byte, so that tests can also write what no tool would."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

GgufValue = bool | int | float | str | list[str] | list[float] | list[int]
StoredTensor = tuple[int, tuple[int, ...], bytes]  # ggml type, row-major shape, bytes

_F32 = 0


class GgufBuilder(Protocol):
    """Write a GGUF file; arguments that a real writer would compute can be overridden."""

    def __call__(
        self,
        metadata: Mapping[str, GgufValue],
        tensors: Mapping[str, StoredTensor],
        *,
        alignment: int = 32,
    ) -> bytes: ...


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: GgufValue) -> tuple[int, bytes]:
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case int():
            return 4, struct.pack("<I", value)
        case float():
            return 6, struct.pack("<f", value)
        case str():
            return 8, _string(value)
        case list():
            parts = [_value(item) for item in value]
            kind = parts[0][0] if parts else 4
            body = b"".join(part for _, part in parts)
            return 9, struct.pack("<IQ", kind, len(value)) + body


def _gguf_bytes(
    metadata: Mapping[str, GgufValue],
    tensors: Mapping[str, StoredTensor],
    *,
    alignment: int = 32,
) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        kind, raw = _value(value)
        header += _string(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        data += bytes(-len(data) % alignment)
        dims = b"".join(struct.pack("<Q", size) for size in reversed(shape))
        header += _string(name) + struct.pack("<I", len(shape)) + dims
        header += struct.pack("<IQ", kind, len(data))
        data += raw
    return header + bytes(-len(header) % alignment) + data


@pytest.fixture(scope="session")
def gguf_bytes() -> GgufBuilder:
    return _gguf_bytes


# A Llama with 1 layer, 2 heads of 8 over 1 KV head, and a tied head.
_METADATA: dict[str, GgufValue] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 16,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10_000.0,
    "tokenizer.ggml.tokens": ["a", "b", "c", "<s>"],
    "tokenizer.ggml.scores": [0.0, -1.0, -2.0, 0.0],
}
_SHAPES = {
    "token_embd.weight": (4, 16),
    "output_norm.weight": (16,),
    "blk.0.attn_norm.weight": (16,),
    "blk.0.attn_q.weight": (16, 16),
    "blk.0.attn_k.weight": (8, 16),
    "blk.0.attn_v.weight": (8, 16),
    "blk.0.attn_output.weight": (16, 16),
    "blk.0.ffn_norm.weight": (16,),
    "blk.0.ffn_gate.weight": (24, 16),
    "blk.0.ffn_up.weight": (24, 16),
    "blk.0.ffn_down.weight": (16, 24),
}


@pytest.fixture
def tiny_metadata() -> dict[str, GgufValue]:
    """A fresh copy, to change at will."""
    return dict(_METADATA)


@pytest.fixture(scope="session")
def tiny_arrays() -> Mapping[str, NDArray[np.float32]]:
    """The weights of the tiny Llama by GGUF name, in GGUF row order."""
    rng = np.random.default_rng(7)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in _SHAPES.items()}


@pytest.fixture
def tiny_tensors(tiny_arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, StoredTensor]:
    """A fresh copy, stored as F32, to change at will."""
    return {name: (_F32, array.shape, array.tobytes()) for name, array in tiny_arrays.items()}


@pytest.fixture
def write_gguf(
    tmp_path: Path,
) -> Callable[[Mapping[str, GgufValue], Mapping[str, StoredTensor]], Path]:
    """Write a GGUF file into this test's folder."""

    def write(metadata: Mapping[str, GgufValue], tensors: Mapping[str, StoredTensor]) -> Path:
        path = tmp_path / "tiny.gguf"
        path.write_bytes(_gguf_bytes(metadata, tensors))
        return path

    return write


_HF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj.weight",
    "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
    "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
}


@pytest.fixture(scope="session")
def hf_arrays(
    tiny_arrays: Mapping[str, NDArray[np.float32]],
) -> Mapping[str, NDArray[np.float32]]:
    """Arrays of the tiny Llama's shapes by Hugging Face name."""
    return {_HF_NAMES[name]: array for name, array in tiny_arrays.items()}


@pytest.fixture
def tiny_json() -> dict[str, object]:
    """The tiny Llama's config.json, a fresh copy to change at will."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 16,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": 4,
    }
