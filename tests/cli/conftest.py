"""A home of its own for every test, and a model small enough to write on the spot."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from salver.registry import ArtifactStore, FileRef, pull
from salver.testing.tiny_vocabulary import tiny_bpe_metadata

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SALVER_HOME."""
    path = tmp_path / "home"
    monkeypatch.setenv("SALVER_HOME", str(path))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("SALVER_STATE", raising=False)
    monkeypatch.delenv("SALVER_ISA", raising=False)
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with one layer and 64 positions: about 8,000 weights."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(24)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    vocab_size = add_tokenizer(writer)
    block = {"attn_norm": (16,), "ffn_norm": (16,), "attn_q": (16, 16), "attn_k": (8, 16)}
    block |= {"attn_v": (8, 16), "attn_output": (16, 16), "ffn_gate": (24, 16)}
    block |= {"ffn_up": (24, 16), "ffn_down": (16, 24)}
    shapes = {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    shapes |= {"token_embd.weight": (vocab_size, 16), "output_norm.weight": (16,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter) -> int:
    """Write a tokenizer of bytes and one merge; returns how many tokens it has."""
    written: dict[str, Any] = tiny_bpe_metadata(merges=("t h",))
    tokens = written["tokenizer.ggml.tokens"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(written["tokenizer.ggml.token_type"])
    writer.add_token_merges(written["tokenizer.ggml.merges"])
    writer.add_bos_token_id(written["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(written["tokenizer.ggml.eos_token_id"])
    return len(tokens)


@pytest.fixture
def contract(tiny_gguf: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a contract for the tiny model; keywords replace what stands in the envelope."""

    def write(**envelope: object) -> Path:
        settings = {"memory": "512MiB", "threads": 1, "max_context_tokens": 64}
        settings |= {"max_output_tokens": 32, "max_running": 4, "max_batch_tokens": 64, **envelope}
        digest = hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
        lines = ["apiVersion: salver/v1", "kind: Deployment", "name: tiny", "owner: me", "release:"]
        lines += [f"  artifact: file:{tiny_gguf}", f"  digest: sha256:{digest}"]
        lines += ["  runtime: {engine: numpy, quantization: f32, kv_cache: f32}", "  envelope:"]
        lines += [f"    {key}: {value}" for key, value in settings.items()]
        path = tmp_path / "tiny.yaml"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def pulled(tiny_gguf: Path, home: Path) -> Path:
    """The tiny model in the store of this test's home; the path of its object."""
    return pull(FileRef(tiny_gguf), store=ArtifactStore(home / "store")).path
