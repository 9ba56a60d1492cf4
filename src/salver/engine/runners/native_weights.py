"""A checkpoint's tensors, arranged as the native core wants them.

q, k and v become one matrix, so that one pass over a token's row gives all three. Gates and ups take
turns in runs of 16 rows, so that a gate and its up leave the core's registers together.
"""

import numpy as np

from salver import _native
from salver.engine.runners.kept_weights import Section
from salver.engine.runners.linear import Floats
from salver.engine.runners.rope import RotaryTable
from salver.engine.runners.weights import LayerWeights, load_layer
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig

BLOCK_TOKENS = _native.BLOCK_TOKENS


def give_rotary(core: _native.Model, config: ModelConfig, max_positions: int) -> None:
    """Hand over the rotary tables, as far as the pool reaches."""
    positions = min(config.max_positions, max_positions)
    rotary = RotaryTable(config.rope, head_dim=config.head_dim, max_positions=positions)
    core.set_rotary(rotary.cosines, rotary.sines)


def give_weights(core: _native.Model, checkpoint: Checkpoint) -> None:
    """Hand every weight over, a layer at a time: the core packs its own copy.

    Raises:
        MalformedModel: a tensor is absent or cannot be decoded.
    """
    config = checkpoint.config
    embedding = checkpoint.tensor("model.embed_tokens.weight")
    core.set_embedding(embedding)
    head = embedding if config.tie_embeddings else checkpoint.tensor("lm_head.weight")
    core.set_head(head, checkpoint.tensor("model.norm.weight"))
    del embedding, head
    for index in range(config.num_layers):
        _give_layer(core, load_layer(checkpoint, index))


def sections_of(core: _native.Model) -> list[Section]:
    """The core's own memory, as far as weights lie in it; empty sections are left out."""
    listed = core.sections()
    return [Section(name, kind, data.data) for name, kind, data in listed if data.size]


def _give_layer(core: _native.Model, layer: LayerWeights) -> None:
    projections = (layer.q, layer.k, layer.v)
    biases = [part.bias for part in projections if part.bias is not None]
    core.add_layer(
        input_norm=layer.input_norm,
        qkv=np.concatenate([part.weight for part in projections]),
        qkv_bias=np.concatenate(biases) if biases else None,
        q_norm=layer.q_norm,
        k_norm=layer.k_norm,
        output=layer.o.weight,
        post_norm=layer.post_attention_norm,
        gate_up=in_turns(layer.gate.weight, layer.up.weight),
        down=layer.down.weight,
    )


def in_turns(gate: Floats, up: Floats) -> Floats:
    """16 rows of `gate`, 16 of `up`, and so on; both padded with zero rows to whole runs."""
    runs = [_padded(part).reshape(-1, _native.GATE_LANES, part.shape[1]) for part in (gate, up)]
    return np.stack(runs, axis=1).reshape(-1, gate.shape[1])


def _padded(part: Floats) -> Floats:
    missing = -len(part) % _native.GATE_LANES
    return np.pad(part, ((0, missing), (0, 0))) if missing else part


def weight_bytes(config: ModelConfig, *, int8: bool) -> int:
    """What the core keeps of the weights: packed matrices, and the embedding in bf16."""
    size = 1 if int8 else 2
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    gated = -(-config.intermediate_size // _native.GATE_LANES) * _native.GATE_LANES
    layer = _matrix(heads, config.hidden_size, size)
    layer += _matrix(config.hidden_size, config.num_heads * config.head_dim, size)
    layer += _matrix(2 * gated, config.hidden_size, size)
    layer += _matrix(config.hidden_size, config.intermediate_size, size)
    head = _matrix(config.vocab_size, config.hidden_size, size)
    return config.num_layers * layer + head + 2 * config.vocab_size * config.hidden_size


def block_bytes(config: ModelConfig, kv_cache: str) -> int:
    """A KV block of all layers, heads padded to whole tiles."""
    head = _native.kv_head_bytes(kv_cache, config.head_dim)
    return config.num_layers * config.num_kv_heads * head


def _matrix(rows: int, columns: int, size: int) -> int:
    """Bytes of a packed matrix: 32 channels and 64 bytes of k at a time, and 12 per channel."""
    channels = -(-rows // 32) * 32
    return channels * (-(-columns * size // 64) * 64 + 12)
