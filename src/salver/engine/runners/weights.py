"""A model's weights in float32, by the part they play."""

from collections.abc import Callable
from dataclasses import dataclass

from salver.engine.runners.linear import Floats
from salver.models.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer: `weight` [out, in], `bias` [out] or None."""

    weight: Floats
    bias: Floats | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. Norm weights are [hidden_size], those of q and k [head_dim]."""

    input_norm: Floats
    q: Projection
    k: Projection
    v: Projection
    o: Projection
    q_norm: Floats | None
    k_norm: Floats | None
    post_attention_norm: Floats
    gate: Projection
    up: Projection
    down: Projection


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """`embedding` is [vocab_size, hidden_size]; a tied `head` shares its memory."""

    embedding: Floats
    layers: tuple[LayerWeights, ...]
    norm: Floats
    head: Projection


def load_weights(checkpoint: Checkpoint) -> ModelWeights:
    """Read every tensor that the checkpoint's config calls for.

    Raises:
        MalformedModel: a tensor is absent or cannot be decoded.
    """
    config = checkpoint.config
    read = checkpoint.tensor
    embedding = read("model.embed_tokens.weight")
    return ModelWeights(
        embedding=embedding,
        layers=tuple(load_layer(checkpoint, index) for index in range(config.num_layers)),
        norm=read("model.norm.weight"),
        head=Projection(embedding) if config.tie_embeddings else _projection(read, "lm_head"),
    )


def load_layer(checkpoint: Checkpoint, index: int) -> LayerWeights:
    """Read one layer's tensors; raises like `load_weights`."""
    config = checkpoint.config

    def read(name: str) -> Floats:
        return checkpoint.tensor(f"model.layers.{index}.{name}")

    return LayerWeights(
        input_norm=read("input_layernorm.weight"),
        q=_projection(read, "self_attn.q_proj", biased=config.attention_bias),
        k=_projection(read, "self_attn.k_proj", biased=config.attention_bias),
        v=_projection(read, "self_attn.v_proj", biased=config.attention_bias),
        o=_projection(read, "self_attn.o_proj"),
        q_norm=read("self_attn.q_norm.weight") if config.qk_norm else None,
        k_norm=read("self_attn.k_norm.weight") if config.qk_norm else None,
        post_attention_norm=read("post_attention_layernorm.weight"),
        gate=_projection(read, "mlp.gate_proj"),
        up=_projection(read, "mlp.up_proj"),
        down=_projection(read, "mlp.down_proj"),
    )


def _projection(read: Callable[[str], Floats], name: str, *, biased: bool = False) -> Projection:
    return Projection(read(f"{name}.weight"), read(f"{name}.bias") if biased else None)
