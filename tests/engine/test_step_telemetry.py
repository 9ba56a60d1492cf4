"""A latency model refined by the steps it predicts."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import LatencyModel, StepShape
from salver.contract.latency import UNMEASURED
from salver.engine.step_telemetry import (
    LATEST,
    MAX_KINDS,
    REFIT_SECONDS,
    REFIT_STEPS,
    StepTelemetry,
)

costs = st.floats(1e-6, 1e-2)
models = st.builds(LatencyModel, costs, costs, costs, costs)
shapes = st.builds(StepShape, st.integers(1, 512), st.integers(1, 100_000), st.integers(0, 64))
TRUTH = LatencyModel(base=2e-3, per_token=1.5e-4, per_attended=2e-8, per_logit_row=3e-5)
GRID = [StepShape(t, t * c, min(t, 32)) for t in (1, 8, 32, 128, 512) for c in (8, 100, 900)]


def slower(model: LatencyModel, by: float) -> LatencyModel:
    parts = model.base, model.per_token, model.per_attended, model.per_logit_row
    return LatencyModel(*(part * by for part in parts))


def run(telemetry: StepTelemetry, truth: LatencyModel, rounds: int) -> None:
    for _ in range(rounds):
        for shape in GRID:
            telemetry.observe(shape, truth.predict(shape))


@given(models, st.lists(st.tuples(shapes, st.floats(-1, 1e3)), min_size=1, max_size=30))
@settings(max_examples=50)
def test_no_cost_is_negative_whatever_is_observed(
    calibrated: LatencyModel, seen: list[tuple[StepShape, float]]
) -> None:
    telemetry = StepTelemetry(calibrated)
    for shape, seconds in seen * (REFIT_STEPS // len(seen) + 1):
        telemetry.observe(shape, seconds)
    model = telemetry.model
    assert min(model.base, model.per_token, model.per_attended, model.per_logit_row) >= 0
    assert np.isfinite([model.base, model.per_token, model.per_attended, model.error]).all()


@given(st.floats(0.3, 4.0))
@settings(max_examples=20)
def test_a_machine_that_changed_is_followed(factor: float) -> None:
    telemetry = StepTelemetry(TRUTH)
    run(telemetry, TRUTH, rounds=10)
    now = slower(TRUTH, factor)
    run(telemetry, now, rounds=2 * LATEST)
    for shape in GRID:
        assert telemetry.model.predict(shape) == pytest.approx(now.predict(shape), rel=0.3)


@given(st.integers(0, 2**32), st.floats(2.0, 100.0))
@settings(max_examples=20)
def test_a_stolen_core_moves_nothing(seed: int, factor: float) -> None:
    """Of the latest measurements of every kind, three in eight are far too slow."""
    rng = np.random.default_rng(seed)
    telemetry = StepTelemetry(TRUTH)
    stolen = {shape: rng.permutation(LATEST) < 3 for shape in GRID}
    for turn in range(3 * LATEST):
        for shape in GRID:
            late = factor if stolen[shape][turn % LATEST] else 1.0
            telemetry.observe(shape, TRUTH.predict(shape) * late * rng.uniform(0.97, 1.03))
    for shape in GRID:
        assert telemetry.model.predict(shape) == pytest.approx(TRUTH.predict(shape), rel=0.15)


def test_a_thousand_decodes_do_not_forget_what_a_prompt_costs() -> None:
    telemetry = StepTelemetry(TRUTH)
    for context in range(100, 1100):
        shape = StepShape(8, 8 * context, 8)
        telemetry.observe(shape, TRUTH.predict(shape) * 1.2)
    prompt = StepShape.of_tokens(0, 512, 1)
    assert telemetry.model.predict(prompt) == pytest.approx(TRUTH.predict(prompt), rel=0.3)


def test_what_a_long_step_tells_is_known_soon() -> None:
    """A machine that was calibrated as if attention were free."""
    telemetry = StepTelemetry(LatencyModel(TRUTH.base, TRUTH.per_token, 0.0, TRUTH.per_logit_row))
    run(telemetry, TRUTH, rounds=1)
    late = StepShape.of_tokens(8000, 512, 1)
    for _ in range(ceil(REFIT_SECONDS / TRUTH.predict(late))):
        telemetry.observe(late, TRUTH.predict(late))
    assert telemetry.model.per_attended > 0


def test_what_is_kept_is_bounded() -> None:
    telemetry = StepTelemetry(TRUTH)
    for tokens in range(13):
        for attended in range(28):
            for _ in range(LATEST + 2):
                telemetry.observe(StepShape(1 << tokens, 1 << attended, 1), 0.01)
    assert len(telemetry._kinds) == MAX_KINDS
    assert {len(latest) for latest in telemetry._kinds.values()} == {LATEST}


def test_the_error_is_that_of_predictions_made() -> None:
    telemetry = StepTelemetry(TRUTH)
    for _ in range(REFIT_STEPS - 1):
        telemetry.observe(GRID[0], TRUTH.predict(GRID[0]) * 2)
    assert telemetry.error_seconds == pytest.approx(telemetry.seconds / 2)
    assert telemetry.predicted_seconds == pytest.approx(telemetry.seconds / 2)
    telemetry.observe(GRID[0], TRUTH.predict(GRID[0]) * 2)
    assert telemetry.model.error == pytest.approx(0.5)


def test_what_was_never_measured_promises_nothing() -> None:
    telemetry = StepTelemetry()
    run(telemetry, TRUTH, rounds=20)
    assert telemetry.model == UNMEASURED
