"""A trial reaches the rate that its engine's clock says, whatever the runner computes."""

import pytest

from salver.contract import TokenLogprobs
from salver.engine import EngineCore, Limits, ModelRunnerOutput, SchedulerOutput
from salver.engine.trial import Trial
from salver.flow import QueueBound
from salver.testing import LetterDecoder, ManualClock

PER_STEP, PER_TOKEN = 0.5, 0.125


class SlowRunner:
    """Computes nothing, in PER_STEP and PER_TOKEN seconds."""

    num_blocks = 4096
    block_size = 16

    def __init__(self, clock: ManualClock) -> None:
        self.steps: list[int] = []
        self._clock = clock

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        self.steps.append(plan.num_tokens)
        self._clock.advance(PER_STEP + PER_TOKEN * plan.num_tokens)
        wanted = [each.key for each in plan.sequences if each.sample is not None]
        return ModelRunnerOutput({key: TokenLogprobs(0, 0.0) for key in wanted})


def trial(seconds: float, max_batch_tokens: int = 16) -> tuple[Trial, SlowRunner, EngineCore]:
    clock = ManualClock()
    runner = SlowRunner(clock)
    engine = EngineCore.build(
        runner,
        clock,
        Limits(8, max_batch_tokens, 1024),
        QueueBound(8, 8192),
        frozenset({0}),
        lambda _: LetterDecoder(),
    )
    names = iter(range(1000))

    def new_prompts(sequences: int, tokens: int) -> list[tuple[int, ...]]:
        return [(next(names),) * tokens for _ in range(sequences)]

    return Trial(engine, clock, new_prompts, seconds=seconds), runner, engine


@pytest.mark.parametrize("sequences", [1, 3, 8])
def test_decoding_is_measured_without_the_prompts(sequences: int) -> None:
    run, _, engine = trial(seconds=1e9)
    step = PER_STEP + PER_TOKEN * sequences
    assert run.decode_rate(sequences, 24, 60) == pytest.approx(sequences / step)
    assert not engine.has_work


def test_sequences_that_never_decode_together_have_no_rate() -> None:
    run, _, engine = trial(seconds=1e9)
    assert run.decode_rate(8, 24, 6) is None
    assert not engine.has_work


def test_decoding_ends_with_its_time() -> None:
    run, runner, engine = trial(seconds=2.0)
    run.decode_rate(1, 4, 500)
    assert len(runner.steps) < 8
    assert not engine.has_work


def test_prompts_are_measured_as_a_whole() -> None:
    run, runner, engine = trial(seconds=0.0)
    seconds = 3 * PER_STEP + 48 * PER_TOKEN
    assert run.prefill_rate(2, 24) == pytest.approx(48 / seconds)
    assert runner.steps == [16] * 3
    assert not engine.has_work
