"""A random model, small enough to run thousands of steps in a test."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from salver.errors import MalformedModel
from salver.models import FourBitGroups, ModelConfig, RopeConfig, expected_tensors


def tiny_config(
    *,
    architecture: str = "llama",
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 8,
    vocab_size: int = 61,
    rope: RopeConfig | None = None,
    tie_embeddings: bool = True,
    attention_bias: bool = False,
    qk_norm: bool = False,
    sliding_window: int | None = None,
) -> ModelConfig:
    """A ModelConfig with hidden size 24 and a feed-forward width of 40."""
    return ModelConfig(
        architecture=architecture,
        num_layers=num_layers,
        hidden_size=24,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=40,
        vocab_size=vocab_size,
        max_positions=1024,
        rms_norm_eps=1e-5,
        rope=rope or RopeConfig(),
        tie_embeddings=tie_embeddings,
        attention_bias=attention_bias,
        qk_norm=qk_norm,
        sliding_window=sliding_window,
    )


class TinyCheckpoint:
    """A `Checkpoint` whose tensors are drawn from a seed when they are made.

    Projections are scaled so that logits spread over several units: greedy choices are then
    sensitive to every part of the model.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        self._config = config
        rng = np.random.default_rng(seed)
        self._tensors = {
            name: _draw(rng, name, shape) for name, shape in expected_tensors(config).items()
        }

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def formats(self) -> Mapping[str, str]:
        return dict.fromkeys(self._tensors, "F32")

    def groups(self, name: str) -> FourBitGroups:
        raise MalformedModel(f"{name} has no 4-bit groups")

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._tensors[name]


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values = rng.standard_normal(shape, np.float32)
    if "norm" in name:
        return np.float32(1) + values * np.float32(0.25)
    if "embed" in name or "bias" in name:
        return values
    return values * np.float32(2 * shape[-1] ** -0.5)
