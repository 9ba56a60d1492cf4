"""`ModelConfig` from the metadata and tensor table of a GGUF file.

Every key under the architecture's own prefix is either honoured or refused by name, because any of
them may change what the model computes. What a missing key means is taken from llama.cpp, whose
reading of these files is the format's definition.
"""

from collections.abc import Mapping
from typing import Final

from salver.errors import MalformedModel
from salver.models.config import ModelConfig, RopeConfig, RopeScaling, checked
from salver.models.fields import Fields
from salver.models.gguf_header import GgufHeader, Metadata

_ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")  # Mistral is written as llama

_HONOURED: Final = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.sliding_window",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scale_linear",
    }
)
_DESCRIPTIVE: Final = frozenset(
    {"tensor_data_layout", "rope.scaling.original_context_length", "rope.scaling.finetuned"}
)
_NEUTRAL: Final[Mapping[str, object]] = {  # accepted with this value alone
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "pooling_type": 0,
    "rope.scaling.attn_factor": 1.0,
    "use_parallel_residual": False,
}


def config_from_gguf(
    header: GgufHeader, frequency_factors: tuple[float, ...] | None, where: str
) -> ModelConfig:
    """Read and check the sizes. `frequency_factors` are the values of `rope_freqs.weight`, if any.

    Raises:
        MalformedModel: a key is missing, out of range or at odds with another.
        UnsupportedModel: the model needs something that this build does not compute.
    """
    architecture = _architecture(Fields(header.metadata, where))
    fields = _own_fields(header.metadata, architecture, where)
    hidden, heads = fields.integer("embedding_length"), fields.integer("attention.head_count")
    head_dim = fields.integer("attention.key_length", max(1, hidden // heads))
    fields.require("attention.value_length", head_dim)
    fields.require("rope.dimension_count", head_dim)
    config = ModelConfig(
        architecture=architecture,
        num_layers=fields.integer("block_count"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=fields.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate_size=fields.integer("feed_forward_length"),
        vocab_size=_vocab_size(header, fields),
        max_positions=fields.integer("context_length"),
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope=_rope(fields, frequency_factors),
        tie_embeddings="output.weight" not in header.tensors,
        attention_bias=architecture == "qwen2" or "blk.0.attn_q.bias" in header.tensors,
        qk_norm=architecture == "qwen3",
        sliding_window=fields.integer("attention.sliding_window", 0, low=0) or None,
    )
    return checked(config, where)


def _architecture(general: Fields) -> str:
    architecture = general.text("general.architecture")
    general.require("general.architecture", *_ARCHITECTURES)
    general.require("general.type", "model")
    general.require("general.quantization_version", 2)
    general.require("split.count", 0, 1)
    return architecture


def _own_fields(metadata: Metadata, architecture: str, where: str) -> Fields:
    """The architecture's keys without their prefix, none of which may go unnoticed."""
    prefix = f"{architecture}."
    own = {
        key.removeprefix(prefix): _same_in_every_layer(value)
        for key, value in metadata.items()
        if key.startswith(prefix)
    }
    fields = Fields(own, f"{where}: {architecture}")
    fields.only(_HONOURED | _DESCRIPTIVE | _NEUTRAL.keys())
    for key, neutral in _NEUTRAL.items():
        fields.require(key, neutral)
    return fields


def _same_in_every_layer(value: object) -> object:
    """A per-layer list of one repeated value is that value; any other list stays a list."""
    if isinstance(value, list) and value and value.count(value[0]) == len(value):
        return value[0]
    return value


def _vocab_size(header: GgufHeader, fields: Fields) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise MalformedModel(
            f"{fields.where}: tensor 'token_embd.weight' is missing",
            rule="tensor.missing",
            fix="the file is damaged or holds only a part of a model",
        )
    rows = embedding.shape[0]
    if fields.integer("vocab_size", rows) != rows:
        raise fields.malformed("vocab_size", f"{rows}, the rows of token_embd.weight")
    return rows


def _rope(fields: Fields, frequency_factors: tuple[float, ...] | None) -> RopeConfig:
    fields.require("rope.scaling.type", "none", "linear")
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0))
    linear = fields.get("rope.scaling.type") != "none" and factor != 1.0
    return RopeConfig(
        theta=fields.number("rope.freq_base", 10_000.0),
        scaling=RopeScaling.LINEAR if linear else RopeScaling.NONE,
        factor=factor if linear else 1.0,
        frequency_factors=frequency_factors,
    )
