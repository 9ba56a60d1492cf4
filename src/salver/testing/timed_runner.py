"""A FakeRunner on a machine that is exactly its LatencyModel."""

from salver.contract import LatencyModel
from salver.engine.latency_model import shape_of
from salver.engine.plan import ModelRunnerOutput, SchedulerOutput
from salver.testing.fake_runner import FakeRunner
from salver.testing.manual_clock import ManualClock


class TimedRunner(FakeRunner):
    """Takes as long for a step as `machine` predicts, on `clock`.

    `steps` has every step's tokens and seconds.
    """

    def __init__(
        self,
        machine: LatencyModel,
        clock: ManualClock,
        *,
        num_blocks: int = 512,
        block_size: int = 4,
        vocab_size: int = 97,
    ) -> None:
        super().__init__(num_blocks, block_size, vocab_size)
        self.steps: list[tuple[int, float]] = []
        self._machine = machine
        self._clock = clock

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        if plan.sequences:
            seconds = self._machine.predict(shape_of(plan))
            self.steps.append((plan.num_tokens, seconds))
            self._clock.advance(seconds)
        return super().execute(plan)
