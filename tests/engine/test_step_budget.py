"""The tokens of a step under a promised pace."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import GenerateRequest, LatencyModel, SamplingParams, StepShape
from salver.contract.latency import UNMEASURED
from salver.engine import EngineCore, Limits, ModelRunnerOutput, SchedulerOutput
from salver.engine.latency_model import shape_of
from salver.engine.step_budget import StepBudget
from salver.flow import QueueBound
from salver.testing import FakeRunner, LetterDecoder, ManualClock

BLOCK = 4
MACHINE = LatencyModel(base=0.010, per_token=0.001, per_attended=1e-6, per_logit_row=0.0005)
LONG = range(10, 410)

costs = st.floats(0, 1e-2)
models = st.builds(LatencyModel, costs, costs, costs, costs)


@given(
    model=models,
    tokens=st.integers(1, 64),
    decodes=st.integers(0, 70),
    seconds=st.floats(-1, 1),
    progress=st.integers(1, 16),
    first=st.integers(0, 500),
    missing=st.integers(1, 80),
)
def test_a_prompt_gets_the_most_that_the_time_covers(
    model: LatencyModel,
    tokens: int,
    decodes: int,
    seconds: float,
    progress: int,
    first: int,
    missing: int,
) -> None:
    count = StepBudget(model, tokens, decodes, seconds, progress).take(first, missing)
    most = max(0, min(missing, tokens - decodes))

    def fits(some: int) -> bool:
        shape = StepShape.of_tokens(first, some, int(some == missing))
        return some <= progress or model.marginal(shape) <= seconds

    assert count == max(some for some in range(most + 1) if fits(some))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=9), st.integers(0, 12))
def test_places_of_decodes_are_kept_and_the_batch_is_never_over_full(
    prompts: list[tuple[int, int]], decodes: int
) -> None:
    budget = StepBudget(UNMEASURED, tokens=10, decodes=decodes, seconds=0.0, progress=BLOCK)
    taken = sum(budget.take(first, missing) for first, missing in prompts)
    assert taken <= max(0, 10 - decodes)
    assert sum(budget.take_one() for _ in range(decodes)) == min(decodes, 10)


@given(
    decodes=st.integers(1, 20),
    slack=st.floats(0.05, 0.3),
    missing=st.integers(1, 400),
    others=st.integers(0, 100),
)
def test_a_prompt_after_others_is_told_the_pace_that_it_has_there(
    decodes: int, slack: float, missing: int, others: int
) -> None:
    """However much of another account's prompt is in each step, as long as it leaves the time."""
    model = LatencyModel(base=0.010, per_token=0.001, per_attended=0.0, per_logit_row=0.0005)
    alone = model.predict(StepShape(decodes, 0, decodes))
    others = min(others, int((2 * slack - alone) / 3 / model.per_token))

    def budget() -> StepBudget:
        return StepBudget(model, 500, decodes, slack, 1, alone)

    told = budget().until_first_token(0, missing, 0, after_others=True)
    seconds, done = 0.0, 0
    while done < missing:
        step = budget()
        step.take(0, others)
        count = step.take(done, missing - done, after_others=True)
        done += count
        seconds += model.predict(StepShape(decodes + others + count, 0, decodes + 1))
    assert seconds <= told + alone + slack


class PacedRunner(FakeRunner):
    """A FakeRunner whose steps take the time that MACHINE says."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(num_blocks=512, block_size=BLOCK)
        self._clock = clock
        self.steps: list[tuple[int, float]] = []

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        seconds = MACHINE.predict(shape_of(plan))
        self.steps.append((plan.num_tokens, seconds))
        self._clock.advance(seconds)
        return super().execute(plan)


def engine(
    tpot: float | None, ttft: float | None = None
) -> tuple[EngineCore, PacedRunner, ManualClock]:
    clock = ManualClock()
    runner = PacedRunner(clock)
    limits = Limits(8, 128, max_context_tokens=1000, tpot_seconds=tpot, ttft_seconds=ttft)
    core = EngineCore.build(
        runner, clock, limits, QueueBound(50, 10_000), frozenset(), LetterDecoder, MACHINE
    )
    return core, runner, clock


def request(name: str, prompt: range, max_tokens: int) -> GenerateRequest:
    return GenerateRequest(name, tuple(prompt), SamplingParams(max_tokens, temperature=0.0))


def tpot_beside_a_long_prompt(promised: float | None) -> float:
    """The TPOT of a short request that decodes while a long prompt comes in."""
    core, _, _ = engine(promised)
    core.add(request("short", range(5), 12))
    core.step()
    core.add(request("long", LONG, 1))
    while core.has_work:
        for chunk in core.step():
            if chunk.request_id == "short" and chunk.finish:
                times = chunk.finish.timings
                assert times.first_token is not None
                return (times.ended - times.first_token) / 11
    raise AssertionError("the short request never ended")


def test_a_long_prompt_keeps_the_promise_to_those_who_decode() -> None:
    assert tpot_beside_a_long_prompt(None) > 0.040
    assert tpot_beside_a_long_prompt(0.040) <= 0.040
    assert tpot_beside_a_long_prompt(0.025) <= 0.025


def test_a_promise_that_is_just_kept_does_not_starve_a_prompt() -> None:
    """Each step has less time than a block needs, and nothing was saved."""
    core, runner, _ = engine(0.0135)
    core.add(request("short", range(5), 500))
    core.step()
    core.add(request("long", LONG, 1))
    before = len(runner.steps)
    while not any(chunk.request_id == "long" and chunk.finish for chunk in core.step()):
        pass
    assert {tokens for tokens, _ in runner.steps[before:]} == {1 + BLOCK}
    assert len(runner.steps) - before == len(LONG) // BLOCK


def test_a_promise_that_cannot_be_kept_holds_up_no_prompt() -> None:
    core, runner, _ = engine(1e-6)
    core.add(request("short", range(5), 500))
    core.step()
    core.add(request("long", LONG, 1))
    core.step()
    assert runner.steps[-1][0] == 128


def test_what_may_end_in_time_is_kept_in_time() -> None:
    """With so many beside it no step is short enough for all of its 60 tokens; but it may end soon,
    and has saved some time."""
    core, runner, _ = engine(0.0125)
    core.add(request("short", range(5), 60))
    for _ in range(20):
        core.step()
    for index in range(5):
        core.add(request(f"beside{index}", range(index, index + 1), 60))
    core.step()
    core.add(request("long", LONG, 1))
    core.step()
    assert 6 < runner.steps[-1][0] < 20


@pytest.mark.parametrize(("lost", "tokens"), [(0.5, 1 + BLOCK), (2.5, 128)])
def test_a_pause_is_made_up_for_where_it_can_be(lost: float, tokens: int) -> None:
    """Of 60 tokens that may take 50 ms each, 20 are there at their pace when the host stops."""
    core, runner, clock = engine(0.050)
    core.add(request("short", range(5), 60))
    for _ in range(20):
        core.step()
        clock.advance(0.050 - runner.steps[-1][1])
    clock.advance(lost)
    core.add(request("long", LONG, 1))
    core.step()
    assert runner.steps[-1][0] == tokens


def test_nobody_decoding_means_nothing_to_keep() -> None:
    core, runner, _ = engine(1e-6)
    core.add(request("long", LONG, 1))
    core.step()
    assert runner.steps[0][0] == 128


@given(length=st.integers(1, 990), ttft=st.sampled_from([None, 0.05, 0.1, 0.4, 2.0]))
@settings(max_examples=50)
def test_nobody_waits_long_for_the_end_of_a_step(length: int, ttft: float | None) -> None:
    """Not even late in a context, or where a full batch takes most of what was promised; and no
    step is shorter than that for nothing."""
    core, runner, _ = engine(None, ttft)
    core.add(request("long", range(length), 1))
    most = MACHINE.predict(StepShape(128, 128 * 129 // 2, 128 // BLOCK))
    if ttft is not None:
        most = min(most, max(2 * MACHINE.base, ttft / 4))
    computed = 0
    while core.has_work:
        core.step()
        tokens, seconds = runner.steps[-1]
        last = computed + tokens == length
        assert seconds <= most + 1e-9 or tokens == BLOCK
        one_more = StepShape.of_tokens(computed, tokens + 1, int(computed + tokens + 1 == length))
        assert last or tokens == 128 or MACHINE.predict(one_more) > most - 1e-9
        computed += tokens


def test_time_saved_may_be_spent_later() -> None:
    """TPOT is a mean: fast tokens make room for a larger chunk."""
    core, runner, clock = engine(0.050)
    core.add(request("short", range(5), 40))
    for _ in range(11):
        core.step()
    core.add(request("long", LONG, 1))
    core.step()
    assert runner.steps[-1][1] > 0.050
    clock.advance(1.0)  # and time lost is not there to be spent
    core.step()
    assert runner.steps[-1][0] == 1 + BLOCK
