"""A checkpoint's tensors, arranged as the native core wants them.

q, k and v become one matrix, so that one pass over a token's row gives all three. Gates and ups take
turns in runs of 16 rows, so that a gate and its up leave the core's registers together.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver import _native
from salver.engine.runners.kept_weights import Section
from salver.engine.runners.linear import Floats
from salver.engine.runners.matrices import MATRICES, LayerKinds
from salver.engine.runners.rope import RotaryTable
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig
from salver.models.groups import FourBitGroups, GroupKind, arranged

BLOCK_TOKENS = _native.BLOCK_TOKENS


def give_rotary(core: _native.Model, config: ModelConfig, max_positions: int) -> None:
    """Hand over the rotary tables, as far as the pool reaches."""
    positions = min(config.max_positions, max_positions)
    rotary = RotaryTable(config.rope, head_dim=config.head_dim, max_positions=positions)
    core.set_rotary(rotary.cosines, rotary.sines)


def give_weights(
    core: _native.Model, checkpoint: Checkpoint, kinds: LayerKinds, *, threads: int
) -> None:
    """Hand every weight over, a layer at a time: the core packs its own copy.

    Matrices with a kind in `kinds` go as the file's own groups, the others in float32. As many layers
    as there are threads are decoded at once.

    Raises:
        MalformedModel: a tensor is absent or cannot be decoded.
    """
    config = checkpoint.config
    vocabulary = checkpoint.tensor("model.embed_tokens.weight")
    core.set_embedding(vocabulary)
    if not config.tie_embeddings:
        del vocabulary  # two of them in float32 at once would be the most that a start ever holds
        vocabulary = checkpoint.tensor("lm_head.weight")
    core.set_head(vocabulary, checkpoint.tensor("model.norm.weight"))
    del vocabulary
    for hand_over in _decoded(core, checkpoint, kinds, threads):
        hand_over()


def _decoded(
    core: _native.Model, checkpoint: Checkpoint, kinds: LayerKinds, threads: int
) -> Iterator[Callable[[], None]]:
    """What hands the layers over, in order; a few of them are decoded ahead."""
    with ThreadPoolExecutor(threads, "decode") as decoders:
        ahead: deque[Future[Callable[[], None]]] = deque()
        for index, layer in enumerate(kinds):
            ahead.append(decoders.submit(_decode_layer, core, checkpoint, index, layer))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def sections_of(core: _native.Model) -> list[Section]:
    """The core's own memory, as far as weights lie in it; empty sections are left out."""
    listed = core.sections()
    return [Section(name, kind, data.data) for name, kind, data in listed if data.size]


def _decode_layer(
    core: _native.Model, checkpoint: Checkpoint, index: int, kinds: Mapping[str, GroupKind]
) -> Callable[[], None]:
    """Read a layer's tensors; what comes back gives them to the core."""
    config = checkpoint.config

    def read(name: str) -> Floats:
        return checkpoint.tensor(f"model.layers.{index}.{name}")

    def matrix(name: str) -> Floats | _native.GroupedArray:
        names = [f"model.layers.{index}.{part}" for part in MATRICES[name]]
        arrange = in_turns if name == "gate_up" else np.concatenate
        if name not in kinds:
            return arrange([checkpoint.tensor(part) for part in names])
        return grouped(arranged([checkpoint.groups(part) for part in names], arrange))

    biases = [read(f"self_attn.{part}_proj.bias") for part in "qkv" * config.attention_bias]
    return partial(
        core.add_layer,
        input_norm=read("input_layernorm.weight"),
        qkv=matrix("qkv"),
        qkv_bias=np.concatenate(biases) if biases else None,
        q_norm=read("self_attn.q_norm.weight") if config.qk_norm else None,
        k_norm=read("self_attn.k_norm.weight") if config.qk_norm else None,
        output=matrix("output"),
        post_norm=read("post_attention_layernorm.weight"),
        gate_up=matrix("gate_up"),
        down=matrix("down"),
    )


def grouped(groups: FourBitGroups) -> _native.GroupedArray:
    """The groups as the core takes them."""
    minimums = groups.minimums
    return _native.GroupedArray(
        groups.kind,
        codes=groups.codes,
        scales=groups.scales.view(np.uint16),
        minimums=None if minimums is None else minimums.view(np.uint16),
        inner_scales=groups.inner_scales,
        inner_minimums=groups.inner_minimums,
    )


def in_turns(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """16 rows of the first part, 16 of the second, and so on; padded with zero rows to whole runs."""
    runs = [_padded(part).reshape(-1, _native.GATE_LANES, part.shape[1]) for part in parts]
    return np.stack(runs, axis=1).reshape(-1, parts[0].shape[1])


def _padded(part: NDArray[Any]) -> NDArray[Any]:
    missing = -len(part) % _native.GATE_LANES
    return np.pad(part, ((0, missing), (0, 0))) if missing else part


def weight_bytes(config: ModelConfig, kinds: LayerKinds, *, int8: bool) -> int:
    """What the core keeps of the weights: packed matrices, and the embedding in bf16."""
    size = 1 if int8 else 2
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    gated = -(-config.intermediate_size // _native.GATE_LANES) * _native.GATE_LANES
    shapes = {
        "qkv": (heads, config.hidden_size),
        "output": (config.hidden_size, config.num_heads * config.head_dim),
        "gate_up": (2 * gated, config.hidden_size),
        "down": (config.hidden_size, config.intermediate_size),
    }
    layers = sum(
        _grouped_matrix(*shape, layer[name]) if name in layer else _matrix(*shape, size)
        for layer in kinds
        for name, shape in shapes.items()
    )
    head = _matrix(config.vocab_size, config.hidden_size, size)
    return layers + head + 2 * config.vocab_size * config.hidden_size


def block_bytes(config: ModelConfig, kv_cache: str) -> int:
    """A KV block of all layers, heads padded to whole tiles."""
    head = _native.kv_head_bytes(kv_cache, config.head_dim)
    return config.num_layers * config.num_kv_heads * head


def _matrix(rows: int, columns: int, size: int) -> int:
    """Bytes of a packed matrix: 32 channels and 64 bytes of k at a time, and 12 per channel."""
    channels = -(-rows // 32) * 32
    return channels * (-(-columns * size // 64) * 64 + 12)


def _grouped_matrix(rows: int, columns: int, kind: GroupKind) -> int:
    """Bytes of a packed matrix in 4-bit groups, and its biases."""
    return -(-rows // 32) * (_native.group_panel_bytes(kind, columns) + 32 * 4)
