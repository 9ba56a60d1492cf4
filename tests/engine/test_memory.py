from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.engine import MemoryPlan, plan_memory
from salver.engine.runners.choice import RunnerKind
from salver.errors import DoesNotFit
from salver.models.config import ModelConfig, RopeConfig

SMOLLM2 = ModelConfig(
    architecture="llama",
    num_layers=30,
    hidden_size=576,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=49152,
    max_positions=8192,
    rms_norm_eps=1e-5,
    rope=RopeConfig(theta=100_000.0),
    tie_embeddings=True,
    attention_bias=False,
    qk_norm=False,
)
GIB = 2**30


def plan(
    memory: int, config: ModelConfig = SMOLLM2, running: int = 64, context: int = 4096
) -> MemoryPlan:
    return plan_memory(
        config,
        RunnerKind.NUMPY_F32,
        formats={},
        memory_bytes=memory,
        threads=2,
        max_batch_tokens=512,
        max_running=running,
        max_context_tokens=context,
    )


def test_the_published_parameter_count_is_met() -> None:
    assert SMOLLM2.num_parameters == 134_515_008


@given(st.integers(GIB, 16 * GIB), st.integers(1, 128), st.integers(16, 8192))
def test_the_whole_never_exceeds_the_envelope(memory: int, running: int, context: int) -> None:
    if memory < least(running, context):
        with pytest.raises(DoesNotFit, match="in all"):
            plan(memory, running=running, context=context)
        return
    made = plan(memory, running=running, context=context)
    assert made.total_bytes <= memory
    assert context <= made.kv_tokens <= running * (context + 15)


def least(running: int, context: int) -> int:
    """The smallest envelope, as the refusal of a too small one names it."""
    with pytest.raises(DoesNotFit) as refused:
        plan(0, running=running, context=context)
    assert isinstance(refused.value.limit, int)
    return refused.value.limit


def test_a_context_beyond_the_model_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="9000 context tokens, the model was made for 8192"):
        plan(4 * GIB, context=9000)


def test_an_untied_head_is_counted() -> None:
    untied = replace(SMOLLM2, tie_embeddings=False)
    more = plan(4 * GIB, untied).weights_bytes - plan(4 * GIB).weights_bytes
    assert more == 49152 * 576 * 4
