"""Model descriptions: real ones are read as their makers meant them, others are refused by name."""

from math import prod
from typing import Any

import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import MalformedModel, UnsupportedModel
from salver.models import ModelConfig, RopeConfig, RopeScaling, expected_tensors
from salver.models.gguf_config import config_from_gguf
from salver.models.gguf_header import GgufHeader, Metadata
from salver.models.gguf_tensors import GgufTensor
from salver.models.hf_config import config_from_json

Json = dict[str, Any]

LLAMA_2_7B: Json = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA_3_2_1B: Json = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
SMOLLM2_135M: Json = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
MISTRAL_7B: Json = {
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN_2_5_0_5B: Json = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN_3_0_6B: Json = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def read(values: Json, **changes: object) -> ModelConfig:
    return config_from_json({**values, **changes}, "config.json")


def test_llama_2() -> None:
    assert read(LLAMA_2_7B) == ModelConfig(
        architecture="llama",
        num_layers=32,
        hidden_size=4096,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        intermediate_size=11008,
        vocab_size=32000,
        max_positions=4096,
        rms_norm_eps=1e-5,
        rope=RopeConfig(theta=10_000.0),
        tie_embeddings=False,
        attention_bias=False,
        qk_norm=False,
        sliding_window=None,
    )


def test_llama_3_scales_rope() -> None:
    config = read(LLAMA_3_2_1B)
    assert config.rope == RopeConfig(500_000.0, RopeScaling.LLAMA3, 32.0, 1.0, 4.0, 8192)
    assert config.tie_embeddings
    assert config.head_dim == 64


def test_mistral_slides_unless_told_not_to() -> None:
    assert read(MISTRAL_7B).sliding_window == 4096
    assert read(MISTRAL_7B, sliding_window=None).sliding_window is None
    absent = {key: value for key, value in MISTRAL_7B.items() if key != "sliding_window"}
    assert read(absent).sliding_window == 4096  # the default of MistralConfig


def test_qwen2_has_biases_and_no_window_it_does_not_use() -> None:
    config = read(QWEN_2_5_0_5B)
    assert config.attention_bias
    assert config.sliding_window is None


def test_qwen2_window_over_all_layers_or_none() -> None:
    used: Json = {"use_sliding_window": True, "sliding_window": 512}
    assert read(QWEN_2_5_0_5B, **used, max_window_layers=24).sliding_window is None
    assert read(QWEN_2_5_0_5B, **used, max_window_layers=0).sliding_window == 512
    assert read(QWEN_2_5_0_5B, max_window_layers=0).sliding_window is None  # declared, not used
    with pytest.raises(UnsupportedModel, match="max_window_layers is 21"):
        read(QWEN_2_5_0_5B, **used, max_window_layers=21)


def test_qwen3_normalizes_q_and_k_and_states_its_head_size() -> None:
    config = read(QWEN_3_0_6B)
    assert (config.qk_norm, config.attention_bias) == (True, False)
    assert (config.head_dim, config.num_heads, config.hidden_size) == (128, 16, 1024)


def test_linear_rope_scaling_in_old_and_new_words() -> None:
    expected = RopeConfig(10_000.0, RopeScaling.LINEAR, 4.0)
    assert read(LLAMA_2_7B, rope_scaling={"type": "linear", "factor": 4}).rope == expected
    new = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    assert read(LLAMA_2_7B, rope_parameters=new).rope == expected


PUBLISHED = [  # parameter counts from the model cards
    (LLAMA_2_7B, 6_738_415_616),
    (LLAMA_3_2_1B, 1_235_814_400),
    (SMOLLM2_135M, 134_515_008),
    (MISTRAL_7B, 7_241_732_096),
    (QWEN_2_5_0_5B, 494_032_768),
    (QWEN_3_0_6B, 596_049_920),
]


@pytest.mark.parametrize(("values", "count"), PUBLISHED)
def test_parameters_are_counted_as_published(values: Json, count: int) -> None:
    assert read(values).num_parameters == count


@given(
    st.builds(
        ModelConfig,
        architecture=st.just("llama"),
        num_layers=st.integers(1, 5),
        hidden_size=st.integers(1, 64),
        num_heads=st.integers(1, 8),
        num_kv_heads=st.integers(1, 8),
        head_dim=st.integers(1, 16),
        intermediate_size=st.integers(1, 64),
        vocab_size=st.integers(1, 64),
        max_positions=st.just(8),
        rms_norm_eps=st.just(1e-5),
        rope=st.just(RopeConfig()),
        tie_embeddings=st.booleans(),
        attention_bias=st.booleans(),
        qk_norm=st.booleans(),
    )
)
def test_parameters_are_the_sum_of_the_tensors(config: ModelConfig) -> None:
    assert config.num_parameters == sum(prod(shape) for shape in expected_tensors(config).values())


REFUSED: list[tuple[Json, Json, str]] = [
    (LLAMA_2_7B, {"model_type": "gemma2"}, "model_type is 'gemma2'"),
    (LLAMA_2_7B, {"model_type": "mixtral"}, "model_type is 'mixtral'"),
    (LLAMA_2_7B, {"architectures": ["LlamaForSequenceClassification"]}, "architectures is"),
    (LLAMA_2_7B, {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    (LLAMA_2_7B, {"attention_bias": True}, "attention_bias is True"),
    (LLAMA_2_7B, {"mlp_bias": True}, "mlp_bias is True"),
    (LLAMA_2_7B, {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    (LLAMA_2_7B, {"quantization_config": {"quant_method": "awq"}}, "quantization_config is"),
    (LLAMA_2_7B, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling is"),
    (QWEN_2_5_0_5B, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling is"),
    (QWEN_2_5_0_5B, {"rope_scaling": {"mrope_section": [1]}}, "mrope_section is"),
    (QWEN_3_0_6B, {"attention_bias": True}, "attention_bias is True"),
    (QWEN_3_0_6B, {"layer_types": ["sliding_attention"] * 28}, "layer_types is"),
    (MISTRAL_7B, {"layer_types": ["full_attention"] * 32}, "layer_types is"),
]


@pytest.mark.parametrize(("values", "changes", "message"), REFUSED)
def test_what_the_runner_cannot_honour_is_refused_by_name(
    values: Json, changes: Json, message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        read(values, **changes)


MALFORMED: list[tuple[Json, str]] = [
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"hidden_size": "big"}, "hidden_size is 'big'; it must be an integer"),
    ({"hidden_size": True}, "hidden_size is True"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"num_hidden_layers": 5000}, "num_layers is .* breaks its bound"),
    ({"vocab_size": 1 << 60}, "vocab_size is 1152921504606846976"),
    ({"num_key_value_heads": 5}, "num_kv_heads is .* breaks its bound"),
    ({"head_dim": 63}, "head_dim is .* breaks its bound"),
    ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0"),
    ({"rms_norm_eps": 2.0}, "rms_norm_eps is .* breaks its bound"),
    ({"rope_theta": 0}, "rope_theta is 0"),
    ({"rope_theta": 10**400}, "rope_theta is 1000"),
    ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
    ({"rope_scaling": [1]}, "rope_scaling is"),
    ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
    ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
    (
        {"rope_scaling": {**LLAMA_3_2_1B["rope_scaling"], "high_freq_factor": 1.0}},
        "low_freq_factor is .* breaks its bound",
    ),
    ({"model_type": None}, "model_type is missing"),
    ({"model_type": ["llama"]}, "model_type is"),
]


@pytest.mark.parametrize(("changes", "message"), MALFORMED)
def test_absurd_values_are_malformed(changes: Json, message: str) -> None:
    with pytest.raises(MalformedModel, match=message):
        read(LLAMA_2_7B, **changes)


SMOLLM2_GGUF: Metadata = {
    "general.architecture": "llama",
    "general.type": "model",
    "general.quantization_version": 2,
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.rope.freq_base": 100000.0,
    "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "llama.vocab_size": 49152,
    "llama.rope.dimension_count": 64,
}


def header(metadata: Metadata, *names: str, rows: int = 49152) -> GgufHeader:
    names = ("token_embd.weight", *names)
    kind = GGMLQuantizationType.F32
    return GgufHeader(metadata, {name: GgufTensor(name, kind, (rows, 576), 0, 0) for name in names})


def read_gguf(*names: str, factors: tuple[float, ...] | None = None, **changes: Any) -> ModelConfig:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return config_from_gguf(header({**SMOLLM2_GGUF, **dotted}, *names), factors, "m.gguf")


def test_both_formats_describe_the_same_model() -> None:
    from_json = read(SMOLLM2_135M, rms_norm_eps=9.999999747378752e-06)
    assert read_gguf() == from_json


def test_an_output_tensor_unties_the_head() -> None:
    assert not read_gguf("output.weight").tie_embeddings


def test_llama_biases_are_seen_in_the_tensors() -> None:
    assert read_gguf("blk.0.attn_q.bias").attention_bias


def test_gguf_rope_scaling() -> None:
    assert read_gguf(llama__rope__scaling__factor=4.0).rope.scaling is RopeScaling.LINEAR
    assert read_gguf(llama__rope__scale_linear=4.0).rope.factor == 4.0
    none = read_gguf(llama__rope__scaling__factor=4.0, llama__rope__scaling__type="none")
    assert none.rope == RopeConfig(100_000.0)
    factors = (1.0,) * 32
    assert read_gguf(factors=factors).rope.frequency_factors == factors


def test_gguf_window_and_per_layer_lists_of_one_value() -> None:
    assert read_gguf(llama__attention__sliding_window=4096).sliding_window == 4096
    assert read_gguf(llama__attention__sliding_window=0).sliding_window is None
    assert read_gguf(llama__attention__head_count_kv=[3] * 30).num_kv_heads == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "gemma3"}, "general.architecture is 'gemma3'"),
        ({"general__type": "adapter"}, "general.type is 'adapter'"),
        ({"split__count": 3}, "split.count is 3"),
        ({"llama__expert_count": 8}, "expert_count is 8"),
        ({"llama__rope__scaling__type": "yarn"}, "rope.scaling.type is 'yarn'"),
        ({"llama__rope__dimension_count": 32}, "rope.dimension_count is 32"),
        ({"llama__attention__value_length": 32}, "attention.value_length is 32"),
        ({"llama__attention__causal": False}, "attention.causal is False"),
        ({"llama__logit_scale": 0.5}, "logit_scale is 0.5"),
    ],
)
def test_gguf_keys_the_runner_cannot_honour(changes: Json, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        read_gguf(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama__attention__head_count_kv": [3, 1]}, "head_count_kv is"),
        ({"llama__vocab_size": 5}, "vocab_size is 5; it must be 49152"),
        ({"llama__block_count": "30"}, "block_count is '30'"),
        ({"llama__rope__freq_base": float("nan")}, "rope.freq_base is nan"),
        ({"factors": (1.0,) * 31}, "rope_freqs is .* breaks its bound"),
        ({"general__architecture": 3}, "general.architecture is 3"),
    ],
)
def test_gguf_values_that_cannot_be(changes: Json, message: str) -> None:
    with pytest.raises(MalformedModel, match=message):
        read_gguf(**changes)
