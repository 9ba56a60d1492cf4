import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import LatencyModel, SamplingParams, StepShape
from salver.engine import SampleSpec, ScheduledSequence, SchedulerOutput
from salver.engine.latency_model import fit, shape_of

costs = st.floats(1e-6, 1e-2)
models = st.builds(LatencyModel, costs, costs, costs, costs)
shapes = st.builds(StepShape, st.integers(1, 512), st.integers(1, 100_000), st.integers(0, 64))


@given(models, st.lists(shapes, min_size=12, max_size=40, unique=True))
def test_a_machine_that_is_the_model_is_predicted(
    truth: LatencyModel, seen: list[StepShape]
) -> None:
    fitted = fit([(shape, truth.predict(shape)) for shape in seen])
    for shape in seen:
        assert fitted.predict(shape) == pytest.approx(truth.predict(shape), rel=1e-6)
    assert fitted.error < 1e-6


@given(st.lists(st.tuples(shapes, st.floats(1e-4, 10)), min_size=1, max_size=30))
def test_no_cost_is_negative_whatever_was_measured(
    samples: list[tuple[StepShape, float]],
) -> None:
    model = fit(samples)
    assert min(model.base, model.per_token, model.per_attended, model.per_logit_row) >= 0


@given(models, st.integers(0, 2**32))
def test_noise_of_a_tenth_moves_predictions_by_about_as_much(
    truth: LatencyModel, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    grid = [StepShape(t, t * c, min(t, 64)) for t in (1, 8, 32, 128, 512) for c in (1, 64, 900)]
    noisy = [(s, truth.predict(s) * rng.uniform(0.9, 1.1)) for s in grid for _ in range(3)]
    fitted = fit(noisy)
    assert fitted.error < 0.1
    for shape in grid:
        assert fitted.predict(shape) == pytest.approx(truth.predict(shape), rel=0.2)


def test_more_work_never_takes_less_time() -> None:
    model = LatencyModel(1e-3, 1e-5, 1e-8, 1e-5)
    assert model.predict(StepShape(2, 10, 1)) > model.predict(StepShape(1, 10, 1))


def test_the_shape_of_a_plan() -> None:
    sample = SampleSpec(SamplingParams(max_tokens=1), 0, (), ())
    plan = SchedulerOutput(
        [1, 2, 3, 4],
        [
            ScheduledSequence("prompt", 0, 3, first_position=10, block_table=[]),
            ScheduledSequence("decode", 3, 4, first_position=99, block_table=[], sample=sample),
        ],
    )
    assert shape_of(plan) == StepShape(tokens=4, attended=11 + 12 + 13 + 100, logit_rows=1)
