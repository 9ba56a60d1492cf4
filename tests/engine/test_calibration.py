import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import LatencyModel, StepShape, TokenLogprobs
from salver.engine import ModelRunnerOutput, SchedulerOutput
from salver.engine.calibration import calibrate
from salver.engine.latency_model import shape_of
from salver.testing import ManualClock

TRUTH = LatencyModel(base=4e-3, per_token=1e-4, per_attended=2e-8, per_logit_row=5e-5)


class TimedRunner:
    """Computes nothing, in exactly the time that TRUTH says; checks that plans are sound."""

    def __init__(self, clock: ManualClock, num_blocks: int = 4096, block_size: int = 16) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.largest_step = self.longest_context = 0
        self._clock = clock

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        held = [block for sequence in plan.sequences for block in sequence.block_table]
        assert len(set(held)) == len(held)
        assert not held or max(held) < self.num_blocks
        for sequence in plan.sequences:
            assert len(sequence.block_table) * self.block_size >= sequence.context_length
            self.longest_context = max(self.longest_context, sequence.context_length)
        self.largest_step = max(self.largest_step, plan.num_tokens)
        self._clock.advance(TRUTH.predict(shape_of(plan)))
        return ModelRunnerOutput({s.key: TokenLogprobs(0, 0.0) for s in plan.sequences})


def calibrated(runner: TimedRunner, clock: ManualClock, budget: float = 60.0) -> LatencyModel:
    return calibrate(
        runner, clock, max_batch_tokens=512, max_context_tokens=4096, budget_seconds=budget
    )


def test_a_machine_that_is_the_model_is_found_out() -> None:
    clock = ManualClock()
    found = calibrated(TimedRunner(clock), clock)
    for shape in (StepShape(1, 100, 1), StepShape(64, 64_000, 64), StepShape(400, 200_000, 3)):
        assert found.predict(shape) == pytest.approx(TRUTH.predict(shape), rel=1e-6)


def test_the_budget_is_kept_but_for_the_shape_that_ends_it() -> None:
    clock = ManualClock()
    calibrated(TimedRunner(clock), clock, budget=0.1)
    assert clock.now() < 0.1 + 2 * TRUTH.predict(StepShape(512, 512 * 513 // 2, 1))


def test_a_slow_machine_is_not_judged_by_one_step() -> None:
    clock = ManualClock()
    runner = TimedRunner(clock)
    found = calibrated(runner, clock, budget=0.0)
    assert runner.longest_context == 4096  # where noise does not hide what attention costs
    for shape in (StepShape(256, 256 * 257 // 2, 1), StepShape.of_tokens(4000, 64, 1)):
        assert found.predict(shape) == pytest.approx(TRUTH.predict(shape), rel=1e-6)


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 64))
def test_no_step_is_larger_than_what_is_allowed(batch: int, context: int, blocks: int) -> None:
    clock = ManualClock()
    runner = TimedRunner(clock, num_blocks=blocks)
    calibrate(
        runner, clock, max_batch_tokens=batch, max_context_tokens=context, budget_seconds=60.0
    )
    assert 1 <= runner.largest_step <= batch
    assert 1 <= runner.longest_context <= context
