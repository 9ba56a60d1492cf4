"""Law 6 as it is counted: at most the step in which a deadline passes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import GenerateRequest, LatencyModel, SamplingParams
from salver.engine import EngineCore, Limits
from salver.engine.overtime import Overtime
from salver.engine.plan import ScheduledSequence, SchedulerOutput
from salver.flow import QueueBound
from salver.testing import LetterDecoder, ManualClock, TimedRunner

MACHINE = LatencyModel(base=0.01, per_token=0.001, per_attended=0.0, per_logit_row=0.0)
BATCH = 16


def engine() -> EngineCore:
    clock = ManualClock()
    runner = TimedRunner(MACHINE, clock)
    limits = Limits(4, BATCH, max_context_tokens=200)
    return EngineCore.build(
        runner, clock, limits, QueueBound(50, 10_000), frozenset(), LetterDecoder
    )


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40), st.floats(0.001, 1.0)), max_size=8)
)
def test_a_request_is_late_for_one_step_and_never_overdue(
    asked: list[tuple[int, int, float]],
) -> None:
    """(prompt, output, timeout) of requests that come at once; the engine foretells nothing."""
    core = engine()
    for index, (prompt, output, timeout) in enumerate(asked):
        params = SamplingParams(output, temperature=0.0)
        core.add(GenerateRequest(f"r{index}", tuple(range(prompt)), params, deadline=timeout))
    while core.has_work:
        core.step()
    load = core.load()
    assert load.overdue_tokens == 0
    assert load.late_tokens <= BATCH * len(asked)
    assert load.kv_blocks_owned == 0


def test_the_step_in_which_the_deadline_passes_is_late() -> None:
    core = engine()
    params = SamplingParams(40, temperature=0.0)
    core.add(GenerateRequest("r", tuple(range(12)), params, deadline=0.030))
    while core.has_work:
        core.step()
    # 12 tokens until 0.022, then one that ends at 0.033
    assert (core.overtime.late_tokens, core.overtime.overdue_tokens) == (1, 0)


@pytest.mark.parametrize(
    ("deadline", "counted"),
    [(None, (0, 0)), (2.5, (0, 0)), (2.0, (3, 0)), (1.5, (3, 0)), (1.0, (0, 3)), (0.5, (0, 3))],
)
def test_what_counts_as_what(deadline: float | None, counted: tuple[int, int]) -> None:
    """A step of three tokens from 1 to 2; an instant belongs to what follows it."""
    overtime = Overtime()
    sequence = ScheduledSequence("r#0", 4, 7, 0, [0], deadline=deadline)
    overtime.count(SchedulerOutput([0] * 7, [sequence]), started=1.0, ended=2.0)
    assert (overtime.late_tokens, overtime.overdue_tokens) == counted
