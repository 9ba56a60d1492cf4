"""Which tensors a model has, under which names and in which shapes.

The set is exact. A missing tensor would crash the runner; a tensor too many, such as a bias that
nobody adds, would be a silent change of the model. Both are refused when the file is opened.
"""

from collections.abc import Mapping
from typing import Final

from salver.errors import MalformedModel
from salver.models.config import ModelConfig

Shape = tuple[int, ...]

EMBEDDING: Final = "model.embed_tokens.weight"
FINAL_NORM: Final = "model.norm.weight"
OUTPUT_HEAD: Final = "lm_head.weight"

_GGUF_OUTER: Final = {
    EMBEDDING: "token_embd.weight",
    FINAL_NORM: "output_norm.weight",
    OUTPUT_HEAD: "output.weight",
}
_GGUF_INNER: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def expected_tensors(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor the runner reads, by Hugging Face name; a tied output head is not among them."""
    hidden = config.hidden_size
    tensors: dict[str, Shape] = {EMBEDDING: (config.vocab_size, hidden), FINAL_NORM: (hidden,)}
    if not config.tie_embeddings:
        tensors[OUTPUT_HEAD] = (config.vocab_size, hidden)
    layer = _layer_tensors(config)
    for index in range(config.num_layers):
        tensors |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return tensors


def gguf_name(name: str) -> str:
    """The name that a GGUF file gives to the tensor with this Hugging Face name."""
    if name in _GGUF_OUTER:
        return _GGUF_OUTER[name]
    _model, _layers, index, rest = name.split(".", 3)
    inner, _, kind = rest.rpartition(".")
    return f"blk.{index}.{_GGUF_INNER[inner]}.{kind}"


def check_tensors(expected: Mapping[str, Shape], found: Mapping[str, Shape], where: str) -> None:
    """Hold a file's tensors against the expected ones, all under the file's own names.

    Raises:
        MalformedModel: a tensor is missing, unexpected or of another shape.
    """
    for name, shape in expected.items():
        if name not in found:
            raise _fault(where, f"tensor {name!r} is missing", "tensor.missing", name)
        if found[name] != shape:
            problem = f"tensor {name!r} has shape {found[name]}; the model's sizes ask for {shape}"
            raise _fault(where, problem, "tensor.shape", found[name])
    for name in found:
        if name not in expected:
            problem = f"tensor {name!r} has no place in this architecture"
            raise _fault(where, problem, "tensor.unexpected", name)


def absent_tensor(name: str, where: str) -> MalformedModel:
    """The error for a name outside `expected_tensors`."""
    return _fault(where, f"there is no tensor {name!r}", "tensor.missing", name)


def absent_groups(name: str, where: str) -> MalformedModel:
    """The error for a name that is not one of a tensor in 4-bit groups."""
    return _fault(where, f"tensor {name!r} has no 4-bit groups", "tensor.groups", name)


def _layer_tensors(config: ModelConfig) -> dict[str, Shape]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    tensors: dict[str, Shape] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.attention_bias:
        tensors |= {f"self_attn.{row}_proj.bias": (q if row == "q" else kv,) for row in "qkv"}
    if config.qk_norm:
        tensors |= {f"self_attn.{row}_norm.weight": (config.head_dim,) for row in "qk"}
    return tensors


def _fault(where: str, problem: str, rule: str, value: object) -> MalformedModel:
    return MalformedModel(
        f"{where}: {problem}",
        rule=rule,
        value=value,
        fix="the file is damaged, incomplete or of a variant that this build does not compute",
    )
