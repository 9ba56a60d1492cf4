"""`ModelConfig` from a Hugging Face config.json.

The model's type names the code in `transformers` that defines it, and that code reads a known set
of keys. Those are honoured or refused here; keys that it does not read mean nothing there either.
What a missing key means is the default of that code's configuration class.
"""

from collections.abc import Mapping
from typing import Final

from salver.models.config import MAX_LAYERS, ModelConfig, RopeConfig, RopeScaling, checked
from salver.models.fields import Fields

_CLASSES: Final = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_QWEN3_HEAD_DIM: Final = 128
_SLIDING_WINDOW: Final = 4096
_ROPE_KEYS: Final = frozenset(
    {
        "rope_type",
        "type",
        "rope_theta",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "partial_rotary_factor",
    }
)
_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {  # accepted with these values alone
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),  # in these classes it would also mean a bias on o_proj
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "quantization_config": (),
}


def config_from_json(values: Mapping[str, object], where: str) -> ModelConfig:
    """Read and check the parsed config.json. `where` names the file in errors.

    Raises:
        MalformedModel: a key is missing, out of range or at odds with another.
        UnsupportedModel: the model needs something that this build does not compute.
    """
    fields = Fields(values, where)
    architecture = _architecture(fields)
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    default_dim = _QWEN3_HEAD_DIM if architecture == "qwen3" else max(1, hidden // heads)
    config = ModelConfig(
        architecture=architecture,
        num_layers=fields.integer("num_hidden_layers"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=fields.integer("head_dim", default_dim),
        intermediate_size=fields.integer("intermediate_size"),
        vocab_size=fields.integer("vocab_size"),
        max_positions=fields.integer("max_position_embeddings"),
        rms_norm_eps=fields.number("rms_norm_eps"),
        rope=_rope(fields),
        tie_embeddings=fields.flag("tie_word_embeddings", default=False),
        attention_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        sliding_window=_sliding_window(fields, architecture, values),
    )
    return checked(config, where)


def _architecture(fields: Fields) -> str:
    architecture = fields.text("model_type")
    fields.require("model_type", *_CLASSES)
    fields.require("architectures", [_CLASSES[architecture]])
    for key, allowed in _NEUTRAL.items():
        fields.require(key, *allowed)
    return architecture


def _rope(fields: Fields) -> RopeConfig:
    """`rope_parameters` is the newer place of `rope_scaling` and `rope_theta`."""
    key = "rope_parameters" if "rope_parameters" in fields else "rope_scaling"
    rope = fields.section(key)
    rope.only(_ROPE_KEYS)
    rope.require("partial_rotary_factor", 1.0)
    theta = rope.number("rope_theta", fields.number("rope_theta", 10_000.0))
    kind = rope.text("rope_type", rope.text("type", "default"))
    match kind:
        case "default":
            return RopeConfig(theta)
        case "linear":
            return RopeConfig(theta, RopeScaling.LINEAR, rope.number("factor"))
        case "llama3":
            return RopeConfig(
                theta,
                RopeScaling.LLAMA3,
                factor=rope.number("factor"),
                low_freq_factor=rope.number("low_freq_factor"),
                high_freq_factor=rope.number("high_freq_factor"),
                original_max_positions=rope.integer("original_max_position_embeddings"),
            )
        case _:
            raise fields.unsupported(key)


def _sliding_window(fields: Fields, architecture: str, values: Mapping[str, object]) -> int | None:
    """The window that every layer uses; a model that mixes windows is refused."""
    layers = fields.integer("num_hidden_layers")
    if architecture == "llama":
        windowed = 0
    elif architecture == "mistral":
        absent = "sliding_window" not in values  # an explicit null means none
        windowed = layers if absent or "sliding_window" in fields else 0
    else:
        start = fields.integer("max_window_layers", 28, low=0)
        used = fields.flag("use_sliding_window", default=False) and "sliding_window" in fields
        windowed = max(0, layers - start) if used else 0
    _check_layer_types(fields, windowed, layers)
    if not windowed:
        return None
    if windowed < layers:
        raise fields.unsupported("max_window_layers", "so that only some layers have a window")
    return fields.integer("sliding_window", _SLIDING_WINDOW)


def _check_layer_types(fields: Fields, windowed: int, layers: int) -> None:
    uniform = "sliding_attention" if windowed else "full_attention"
    fields.require("layer_types", [uniform] * min(layers, MAX_LAYERS))
