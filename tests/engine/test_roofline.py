"""The arithmetic of the roofline: what is streamed, what is multiplied, and which of the two holds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.engine.memory import MemoryPlan
from salver.engine.roofline import Bound, Load, ModelWork, Roof, Work
from salver.engine.runners.choice import RunnerKind
from salver.testing.tiny_model import tiny_config

MODEL = ModelWork(
    weights_bytes=130, layers=100, head=30, passes=2, kv_bytes=8.0, attended=16, window=None
)
sizes = st.integers(1, 10**12)
rates = st.floats(1.0, 1e15)
loads = st.builds(Load, st.integers(1, 64), st.integers(1, 4096), st.booleans())
batches = st.integers(1, 4096)
works = st.builds(Work, sizes, sizes)


@given(works, rates, rates)
def test_a_step_takes_as_long_as_the_slower_of_the_two(
    work: Work, bandwidth: float, rate: float
) -> None:
    roof = Roof(bandwidth, rate)
    streaming, computing = work.streamed_bytes / bandwidth, work.operations / rate
    assert roof.seconds(work) == max(streaming, computing)
    assert roof.bound([work]) == (Bound.BANDWIDTH if streaming >= computing else Bound.MATRIX_RATE)


@given(loads, batches, rates, rates)
def test_a_faster_machine_is_never_slower(
    load: Load, batch: int, bandwidth: float, rate: float
) -> None:
    roof, steps = Roof(bandwidth, rate), list(MODEL.steps(load, batch))
    for better in (Roof(2 * bandwidth, rate), Roof(bandwidth, 2 * rate)):
        assert sum(map(better.seconds, steps)) <= sum(map(roof.seconds, steps))


@given(loads, batches)
def test_every_token_is_multiplied_once_however_a_prompt_is_cut(load: Load, batch: int) -> None:
    steps = list(MODEL.steps(load, batch))
    alone = replace(MODEL, attended=0)
    products = sum(step.operations for step in alone.steps(load, batch))
    assert products == 2 * 2 * (100 * load.tokens + 30 * load.sequences)
    assert len(steps) == (1 if load.decoding else -(-load.tokens // batch))


@given(loads, batches)
def test_every_step_streams_all_weights(load: Load, batch: int) -> None:
    steps = list(replace(MODEL, kv_bytes=0.0).steps(load, batch))
    assert [step.streamed_bytes for step in steps] == [130] * len(steps)


@given(st.integers(1, 64), st.integers(1, 4096))
def test_sequences_that_decode_stream_keys_of_their_own(sequences: int, context: int) -> None:
    (step,) = MODEL.steps(Load(sequences, context, decoding=True), 512)
    assert step.streamed_bytes == 130 + 8 * sequences * context
    (step,) = replace(MODEL, window=7).steps(Load(sequences, context, decoding=True), 512)
    assert step.streamed_bytes == 130 + 8 * sequences * min(context, 7)


def test_a_prompt_that_fits_is_one_step() -> None:
    (step,) = MODEL.steps(Load(2, 5, decoding=False), 512)
    assert step.operations == 2 * 2 * (100 * 10 + 30 * 2) + 16 * 10 * 3
    assert step.streamed_bytes == 130 + 8 * 2 * 3


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        (RunnerKind.NATIVE_W8A16, 2),
        (RunnerKind.NATIVE_W8A8, 1),
        (RunnerKind.NATIVE_BF16, 1),
        (RunnerKind.NATIVE_BF16_F32, 2),
        (RunnerKind.NATIVE_Q4, 1),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_what_a_model_asks(kind: RunnerKind, passes: int, tied: bool) -> None:
    config = tiny_config(tie_embeddings=tied)
    plan = MemoryPlan(0, 10_000, 0, block_bytes=640, block_size=32, num_blocks=4)
    model = ModelWork.of(config, kind, plan)
    table = config.vocab_size * config.hidden_size
    assert model.head == table
    assert model.layers + (1 if tied else 2) * table == config.num_parameters
    assert model.weights_bytes == 10_000 - 2 * table
    assert (model.passes, model.kv_bytes) == (passes, 20.0)
