"""What is refused for its deadline would have missed it, on a machine that is the model."""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import (
    Finish,
    GenerateRequest,
    LatencyModel,
    Outcome,
    SamplingParams,
    TokenChunk,
)
from salver.contract.latency import UNMEASURED
from salver.engine import EngineCore, Limits, ModelRunnerOutput, SchedulerOutput
from salver.engine.latency_model import shape_of
from salver.engine.step import Step
from salver.engine.step_budget import StepBudget
from salver.errors import Refused
from salver.flow import QueueBound, least_own_seconds
from salver.testing import FakeRunner, LetterDecoder, ManualClock

MACHINE = LatencyModel(base=0.010, per_token=0.001, per_attended=1e-6, per_logit_row=0.0005)
EOS = 0


class MachineRunner(FakeRunner):
    """A FakeRunner that takes as long as MACHINE says."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(num_blocks=400, block_size=4, vocab_size=13)
        self._clock = clock

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        if plan.sequences:
            self._clock.advance(MACHINE.predict(shape_of(plan)))
        return super().execute(plan)


def engine(latency: LatencyModel, tpot: float | None = None) -> EngineCore:
    clock = ManualClock()
    return EngineCore.build(
        MachineRunner(clock),
        clock,
        Limits(4, 32, max_context_tokens=1000, tpot_seconds=tpot),
        QueueBound(100, 10_000),
        frozenset({EOS}),
        LetterDecoder,
        latency,
    )


def ask(
    name: str, prompt: Iterable[int], deadline: float | None, sampling: SamplingParams, n: int = 1
) -> GenerateRequest:
    return GenerateRequest(name, tuple(prompt), sampling, n=n, deadline=deadline)


asked = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 20),
    min_tokens=st.integers(0, 20),
    temperature=st.just(0.0),
    ignore_eos=st.booleans(),
)


@given(
    ahead=st.lists(
        st.tuples(
            st.integers(1, 90), st.integers(0, 90), asked, st.sampled_from([None, 0.05, 0.4])
        ),
        max_size=6,
    ),
    steps=st.integers(0, 8),
    prompt=st.integers(1, 120),
    repeated=st.booleans(),
    sampling=asked,
    n=st.integers(1, 3),
    patience=st.floats(0.001, 1.5),
    tpot=st.sampled_from([None, 0.02]),
)
@settings(max_examples=150)
def test_what_is_refused_had_no_chance(
    ahead: list[tuple[int, int, SamplingParams, float | None]],
    steps: int,
    prompt: int,
    repeated: bool,
    sampling: SamplingParams,
    n: int,
    patience: float,
    tpot: float | None,
) -> None:
    """The same traffic goes to an engine that refuses, and to one that never does. Prompts begin alike,
    each for a while."""
    queue = [
        ask(f"q{i}", (*range(alike), *range(100 * i + 100, 100 * i + 100 + own)), deadline, params)
        for i, (own, alike, params, deadline) in enumerate(ahead)
    ]
    first = 0 if repeated else 5000
    refusing, patient = engine(MACHINE, tpot), engine(UNMEASURED, tpot)
    for core in (refusing, patient):
        core.scheduler.telemetry.model = UNMEASURED  # the queue is let in by both
        for request in queue:
            core.add(request)
        for _ in range(steps):
            if core.has_work:
                core.step()
    refusing.scheduler.telemetry.model = MACHINE
    now = patient._clock.now()
    last = ask("last", range(first, first + prompt), now + patience, sampling, n)
    try:
        refusing.add(last)
    except Refused:
        assert any(
            end.outcome is Outcome.EXPIRED or end.timings.ended > now + patience
            for end in finish(patient, last)
        )


def finish(core: EngineCore, last: GenerateRequest) -> list[Finish]:
    core.add(last)
    chunks: list[TokenChunk] = []
    while core.has_work:
        chunks += core.step()
    return [chunk.finish for chunk in chunks if chunk.finish and chunk.request_id == last.id]


GREEDY = SamplingParams(max_tokens=1, temperature=0.0)


def test_a_prompt_too_long_for_its_deadline_is_refused_and_leaves_nothing() -> None:
    core = engine(MACHINE)
    with pytest.raises(Refused) as refused:
        core.add(ask("r", range(400), 0.2, GREEDY))
    decision = refused.value.decision
    assert decision.rule == "admission.reachable_deadline_s"
    assert decision.value > decision.limit == pytest.approx(0.2)
    assert decision.retry_after is None
    assert not core.has_work
    assert not core.scheduler.kv._entries


def test_a_prompt_that_is_cached_is_soon_answered() -> None:
    core = engine(MACHINE)
    core.add(ask("first", range(400), None, GREEDY))
    while core.has_work:
        core.step()
    core.add(ask("again", range(400), core._clock.now() + 0.2, GREEDY))
    with pytest.raises(Refused):
        core.add(ask("other", range(500, 900), core._clock.now() + 0.2, GREEDY))


def test_a_long_queue_refuses_with_a_time_to_come_back() -> None:
    core = engine(MACHINE)
    for index in range(6):
        core.add(ask(f"q{index}", range(1000 * index, 1000 * index + 300), None, GREEDY))
    assert core.load().queue_seconds() > 1.0
    with pytest.raises(Refused) as refused:
        core.add(ask("r", range(9000, 9010), 0.5, GREEDY))
    assert refused.value.decision.retry_after is not None
    for index in range(6):
        core.cancel(f"q{index}")
    core.add(ask("r", range(9000, 9010), 0.5, GREEDY))


@given(
    kinds=st.lists(
        st.tuples(st.sampled_from("aasc"), st.integers(1, 90), st.sampled_from([None, 0.3, 2.0])),
        max_size=12,
    )
)
def test_the_queue_that_is_told_is_the_queue_there_is(
    kinds: list[tuple[str, int, float | None]],
) -> None:
    """However it came about, the kept instant is the one that a fresh look finds."""
    core = engine(MACHINE)
    for index, (kind, length, deadline) in enumerate(kinds):
        if kind == "s":
            core.step()
        elif kind == "c":
            core.cancel(f"r{index - 1}")
        else:
            with suppress(Refused):
                core.add(
                    ask(f"r{index}", range(100 * index, 100 * index + length), deadline, GREEDY)
                )
        told = core.load()
        core.scheduler._order.forget_times()
        assert core.load() == told


def test_an_answer_that_has_to_be_long_needs_the_time_for_it() -> None:
    core = engine(MACHINE)
    forced = SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True)
    with pytest.raises(Refused):
        core.add(ask("forced", range(10), 0.5, forced))
    core.add(ask("free", range(10), 0.5, SamplingParams(max_tokens=100, temperature=0.0)))


def test_what_was_not_measured_refuses_nobody() -> None:
    engine(UNMEASURED).add(ask("r", range(400), 1e-6, GREEDY))


def test_what_prompts_have_in_common_is_waited_for_once() -> None:
    """Fourteen with one long beginning take little more than one of them."""
    core = engine(MACHINE)
    for index in range(14):
        core.add(ask(f"q{index}", (*range(600), *range(1000 + index, 1010 + index)), None, GREEDY))
    alone = engine(MACHINE)
    alone.add(ask("q", range(600), None, GREEDY))
    assert core.load().queue_seconds() < 1.5 * alone.load().queue_seconds()
    for _ in range(2):
        own = least_own_seconds(core.load(), prompt=601, output=1, choices=1)
        assert own < 0.1, "the gateway would refuse it"
        core.step()
    core.add(ask("one more", (*range(600), 5), core._clock.now() + 1.5, GREEDY))
    with pytest.raises(Refused):
        core.add(ask("other", range(5000, 5600), core._clock.now() + 1.0, GREEDY))
    while core.has_work:
        core.step()
    assert not core.scheduler.kv._coming
    assert not core.scheduler.kv._entries


def test_what_was_preempted_is_mostly_found_again() -> None:
    core = engine(MACHINE)
    core.add(ask("r", range(600), None, SamplingParams(max_tokens=5, temperature=0.0)))
    while not core.scheduler._running or core.scheduler._running[0].num_missing_tokens > 1:
        core.step()
    (request,) = core.scheduler._running
    core.scheduler._preempt(request, Step(StepBudget(MACHINE, 32, 0, 1.0, 4)), heir=request)
    core.scheduler._order.forget_times()
    assert 0 < core.load().queue_seconds() < 0.02


def test_choices_whose_leader_has_ended_find_its_prompt() -> None:
    core = engine(MACHINE)
    sampling = SamplingParams(max_tokens=1, temperature=0.0)
    core.add(ask("r", range(600), None, sampling, n=9))
    while not any(chunk.finish for chunk in core.step()):
        pass
    assert len(core.scheduler._order) > 3
    assert core.load().queue_seconds() < 0.1
