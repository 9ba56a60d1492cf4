"""What a quiet tenant waits beside a loud one, on a machine that is exactly its LatencyModel."""

import pytest

from salver.contract import (
    GenerateRequest,
    LatencyModel,
    SamplingParams,
    StepShape,
    TokenLogprobs,
)
from salver.engine import EngineCore, Limits, ModelRunnerOutput, SchedulerOutput
from salver.engine.calibration import calibrate
from salver.engine.latency_model import shape_of
from salver.flow import QueueBound, Share
from salver.testing import LetterDecoder, ManualClock

MACHINE = LatencyModel(base=4e-3, per_token=3.5e-4, per_attended=2.4e-7, per_logit_row=1e-4)
LIMITS = Limits(max_running=16, max_batch_tokens=512, max_context_tokens=8192)
SECONDS = 30.0
QUIET_RATE = 4.0
FLOOD = (100.0, 128, 0)  # a second, prompt tokens, and those that all its prompts begin with
LONG = (2.0, 8000, 0)  # of which most of the cost is attention
ALIKE = (2.0, 8000, 160)


class IdleRunner:
    """Computes nothing, in as long as the machine would take."""

    def __init__(self, clock: ManualClock) -> None:
        self.num_blocks, self.block_size = 9600, 16
        self.steps: list[float] = []
        self._clock = clock

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        self.steps.append(MACHINE.predict(shape_of(plan)))
        self._clock.advance(self.steps[-1])
        return ModelRunnerOutput({s.key: TokenLogprobs(7, 0.0) for s in plan.sequences if s.sample})


class Scene:
    """A quiet tenant, less often than a step is long, beside a loud one. `ttft` are the quiet one's,
    sorted."""

    def __init__(self, loud: tuple[float, int, int] | None, *, fair: bool) -> None:
        self.clock = ManualClock()
        runner = IdleRunner(self.clock)
        model = calibrate(
            runner, self.clock, max_batch_tokens=512, max_context_tokens=8192, budget_seconds=0.2
        )
        self.core = EngineCore.build(
            runner,
            self.clock,
            LIMITS,
            QueueBound(10**5, 10**8),
            frozenset(),
            LetterDecoder,
            model,
            shares={"quiet": Share(), "loud": Share()} if fair else None,
        )
        runner.steps.clear()
        number = int((SECONDS - 1) * QUIET_RATE)
        coming = [((index + 0.37) / QUIET_RATE, "quiet", 128, 8) for index in range(number)]
        if loud is not None:
            rate, prompt, self.alike = loud
            times = [index / rate for index in range(int(SECONDS * rate))]
            coming += [(at, "loud", prompt, 64) for at in times]
        first = self.play(sorted(coming))
        quiet = [at for at, tenant, *_ in coming if tenant == "quiet"]
        self.ttft = sorted(first.get(f"quiet-{at}", SECONDS) - at for at in quiet)
        self.longest_step = max(runner.steps)

    def play(self, coming: list[tuple[float, str, int, int]]) -> dict[str, float]:
        """The instants of first tokens by request."""
        began, first = self.clock.now(), dict[str, float]()
        while (now := self.clock.now() - began) < SECONDS:
            while coming and coming[0][0] <= now:
                self.add(*coming.pop(0))
            if not self.core.has_work:
                self.clock.advance(max(1e-6, coming[0][0] - now) if coming else SECONDS)
                continue
            for chunk in self.core.step():
                first.setdefault(chunk.request_id, self.clock.now() - began)
        return first

    def add(self, at: float, tenant: str, prompt: int, output: int) -> None:
        name = f"{tenant}-{at}"
        alike = self.alike if tenant == "loud" else 0
        tokens = tuple(
            hash((0 if index < alike else at, index)) % 50_000 for index in range(prompt)
        )
        sampling = SamplingParams(output, temperature=0.0, ignore_eos=True)
        self.core.add(GenerateRequest(name, tokens, sampling, tenant=tenant, cache_salt=tenant))

    @property
    def p95(self) -> float:
        return self.ttft[int(0.95 * len(self.ttft))]


@pytest.mark.parametrize("loud", [FLOOD, LONG, ALIKE])
def test_a_quiet_tenant_waits_for_one_step(loud: tuple[float, int, int]) -> None:
    alone, beside = Scene(None, fair=True), Scene(loud, fair=True)
    assert beside.p95 <= 1.5 * alone.p95 + beside.longest_step
    batch = MACHINE.predict(shape_of_fresh_batch())
    assert beside.longest_step <= batch + LIMITS.max_running * decode()
    assert Scene(loud, fair=False).p95 > 5 * beside.p95


def shape_of_fresh_batch() -> StepShape:
    return StepShape(512, 512 * 513 // 2, 512 // 16)


def decode() -> float:
    """What a request adds to a step at most that decodes in it."""
    return MACHINE.marginal(StepShape.of_tokens(LIMITS.max_context_tokens - 1, 1, 1))
