"""The shape of a Llama-family model, whatever file it came from."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from salver.errors import MalformedModel

MAX_LAYERS: Final = 1024


class RopeScaling(StrEnum):
    """How rotary frequencies are stretched beyond the trained context."""

    NONE = "none"
    LINEAR = "linear"
    LLAMA3 = "llama3"


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding (arXiv 2104.09864), in the rotate-half layout.

    The last four matter to `LLAMA3` alone (`factor` also to `LINEAR`). A GGUF may carry Llama-3
    scaling as ready-made `frequency_factors`, by which each of head_dim / 2 frequencies is divided.
    """

    theta: float = 10_000.0
    scaling: RopeScaling = RopeScaling.NONE
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192
    frequency_factors: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes are in elements. `sliding_window` counts the current token: w keys are visible."""

    architecture: str  # llama, mistral, qwen2 or qwen3
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    rms_norm_eps: float
    rope: RopeConfig
    tie_embeddings: bool
    attention_bias: bool  # on q, k and v
    qk_norm: bool  # RMS norm of each head's q and k before RoPE
    sliding_window: int | None = None

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers that one token leaves in the KV cache, over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """Weights the runner holds; a tied output head counts once."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * q + 2 * kv)
        attention += (q + 2 * kv) * self.attention_bias + 2 * self.head_dim * self.qk_norm
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        heads = 1 if self.tie_embeddings else 2
        return self.num_layers * layer + (heads * self.vocab_size + 1) * self.hidden_size


def checked(config: ModelConfig, where: str) -> ModelConfig:
    """The same config, once its sizes agree with each other.

    Raises:
        MalformedModel: naming the file as `where`.
    """
    rope, heads, dim = config.rope, config.num_heads, config.head_dim
    factors = dim // 2 if rope.frequency_factors is None else len(rope.frequency_factors)
    rules: tuple[tuple[bool, str, object, object], ...] = (
        (config.num_layers <= MAX_LAYERS, "num_layers", config.num_layers, MAX_LAYERS),
        (heads % config.num_kv_heads == 0, "num_kv_heads", config.num_kv_heads, f"divides {heads}"),
        (dim % 2 == 0, "head_dim", dim, "even"),
        (config.rms_norm_eps < 1, "rms_norm_eps", config.rms_norm_eps, 1),
        (2 * factors == dim, "rope_freqs", factors, dim // 2),
        (
            rope.low_freq_factor < rope.high_freq_factor,
            "low_freq_factor",
            rope.low_freq_factor,
            rope.high_freq_factor,
        ),
    )
    for holds, name, value, limit in rules:
        if not holds:
            raise MalformedModel(
                f"{where}: {name} is {value}, which breaks its bound ({limit})",
                rule=f"model.{name}",
                value=value,
                limit=limit,
                fix="the file is damaged or not of this architecture",
            )
    return config
