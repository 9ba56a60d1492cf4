"""Past capacity: who waits too long for the objective of the first token is let go, the rest is in time.

On a simulated machine that is exactly its LatencyModel, so that every instant is known.
"""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import (
    Action,
    Decision,
    GenerateRequest,
    LatencyModel,
    Outcome,
    SamplingParams,
    TokenChunk,
)
from salver.engine import EngineCore, Limits
from salver.engine.admission import Admission
from salver.errors import Refused
from salver.flow import FirstTokenBound, QueueBound, Share
from salver.testing import LetterDecoder, ManualClock, TimedRunner

MACHINE = LatencyModel(base=0.004, per_token=0.001, per_attended=0.0, per_logit_row=0.0005)
WITHIN = 0.5
PROMPT, OUTPUT = 40, 10
CAPACITY = 1 / (PROMPT * 0.001 + OUTPUT * 0.0015 + 0.004)  # requests/s, a little less in truth


class Load:
    """Poisson arrivals at `factor` times capacity for some seconds, and what became of them."""

    def __init__(self, factor: float, seed: int, *, bound: bool, fair: bool = False) -> None:
        self.clock = ManualClock()
        self.core = EngineCore.build(
            TimedRunner(MACHINE, self.clock, num_blocks=2048),
            self.clock,
            Limits(16, 64, 200, tpot_seconds=0.08),
            Admission(QueueBound(10_000, 10**6), FirstTokenBound(WITHIN) if bound else None),
            frozenset(),
            LetterDecoder,
            MACHINE,
            shares={"a": Share(1.0)} if fair else None,
        )
        self.first: dict[str, float] = {}
        self.ended: dict[str, Outcome] = {}
        self.refused: dict[str, Decision] = {}
        self.arrivals = dict(_arrivals(factor * CAPACITY, random.Random(seed)))
        self._run()

    @property
    def good(self) -> list[str]:
        return [name for name in self.first if self.ttft(name) <= WITHIN]

    def ttft(self, name: str) -> float:
        return self.first[name] - self.arrivals[name]

    def _run(self) -> None:
        left = list(self.arrivals.items())
        while left or self.core.has_work:
            if not self.core.has_work and left[0][1] > self.clock.now():
                self.clock.advance(left[0][1] - self.clock.now())
            while left and left[0][1] <= self.clock.now():
                self._add(left.pop(0)[0])
            for chunk in self.core.step():
                self._see(chunk)
            self.refused |= dict(self.core.take_shed())

    def _add(self, name: str) -> None:
        prompt = tuple(random.Random(name).choices(range(97), k=PROMPT))
        params = SamplingParams(OUTPUT, temperature=0.0, ignore_eos=True)
        try:
            self.core.add(
                GenerateRequest(name, prompt, params, tenant="a", arrived=self.arrivals[name])
            )
        except Refused as error:
            self.refused[name] = error.decision

    def _see(self, chunk: TokenChunk) -> None:
        self.first.setdefault(chunk.request_id, self.clock.now())
        if chunk.finish:
            self.ended[chunk.request_id] = chunk.finish.outcome


def _arrivals(rate: float, chance: random.Random) -> Iterator[tuple[str, float]]:
    at, number = 0.0, 0
    while (at := at + chance.expovariate(rate)) < 10:
        yield f"r{number}", at
        number += 1


@pytest.mark.parametrize("fair", [False, True])
def test_goodput_past_capacity_stays_near_its_peak(fair: bool) -> None:
    peak = max(len(Load(factor, 1, bound=True, fair=fair).good) for factor in (0.7, 0.9, 1.0))
    for factor in (2.0, 5.0):
        assert len(Load(factor, 1, bound=True, fair=fair).good) >= 0.9 * peak
        assert len(Load(factor, 1, bound=False, fair=fair).good) <= 0.2 * peak


@given(factor=st.floats(0.3, 6.0), seed=st.integers(0, 999), fair=st.booleans())
@settings(max_examples=10)
def test_who_is_begun_is_in_time_and_who_is_not_hears_why(
    factor: float, seed: int, fair: bool
) -> None:
    load = Load(factor, seed, bound=True, fair=fair)
    assert load.good == list(load.first)
    assert sorted([*load.ended, *load.refused]) == sorted(load.arrivals)
    assert set(load.ended.values()) == {Outcome.FINISHED}
    for decision in load.refused.values():
        assert (decision.rule, decision.limit) == ("slo.ttft_p95", WITHIN)
        assert decision.retry_after is not None


def core(*, places: int = 1, blocks: int = 512, within: float = WITHIN) -> EngineCore:
    clock = ManualClock()
    return EngineCore.build(
        TimedRunner(MACHINE, clock, num_blocks=blocks),
        clock,
        Limits(places, 64, 1000),
        Admission(QueueBound(100, 10_000), FirstTokenBound(within)),
        frozenset(),
        LetterDecoder,
        MACHINE,
    )


def ask(
    name: str,
    prompt: int,
    output: int = 4,
    n: int = 1,
    *,
    first: int = 0,
    arrived: float | None = None,
    call: str = "",
) -> GenerateRequest:
    sampling = SamplingParams(output, temperature=0.0, ignore_eos=True)
    tokens = tuple(number % 97 for number in range(first, first + prompt))
    return GenerateRequest(name, tokens, sampling, n=n, arrived=arrived, call=call)


def ends(engine: EngineCore) -> dict[str, Outcome]:
    found = {}
    while engine.has_work:
        for chunk in engine.step():
            if chunk.finish:
                found[f"{chunk.request_id}#{chunk.choice}"] = chunk.finish.outcome
    return found


def test_a_prompt_that_is_itself_too_long_is_served_where_nobody_waits() -> None:
    engine = core()
    engine.add(ask("long", 900))
    assert ends(engine) == {"long#0": Outcome.FINISHED}


def test_who_would_be_late_is_refused_when_it_comes() -> None:
    engine = core()
    engine.add(ask("long", 900))
    with pytest.raises(Refused) as refused:
        engine.add(ask("short", 10))
    assert refused.value.decision.rule == "slo.ttft_p95"
    assert refused.value.decision.action is Action.REFUSE


def test_a_request_of_several_choices_goes_as_a_whole_with_one_decision() -> None:
    engine = core()
    engine.add(ask("first", 10, output=400))
    engine.step()
    engine.add(ask("several", 50, n=3))
    assert ends(engine) == {"first#0": Outcome.FINISHED}
    assert [name for name, _ in engine.take_shed()] == ["several"]
    assert engine.scheduler.outcomes == {Outcome.FINISHED: 1, Outcome.SHED: 3}


def test_what_was_begun_and_preempted_is_never_shed() -> None:
    engine = core(places=2, blocks=30, within=0.1)
    engine.add(ask("a", 30, output=60))
    engine.add(ask("b", 31, output=60))
    assert ends(engine) == {"a#0": Outcome.FINISHED, "b#0": Outcome.FINISHED}
    assert engine.scheduler.num_preemptions > 0


@pytest.mark.parametrize("waited", [0.45, 0.5, 5.0])
def test_who_waited_elsewhere_is_served_where_nobody_else_is(waited: float) -> None:
    """An upload, or a state store, that took its time: the machine is idle."""
    engine = core()
    now = engine._clock.now()
    engine.add(ask("r", 100, arrived=now - waited))
    assert ends(engine) == {"r#0": Outcome.FINISHED}


def test_who_waited_elsewhere_is_let_go_where_others_are() -> None:
    engine = core()
    engine.add(ask("first", 10))
    with pytest.raises(Refused):
        engine.add(ask("late", 10, arrived=engine._clock.now() - 0.6))
    engine.step()
    assert [*ends(engine)] == ["first#0"]


def test_the_prompts_of_one_call_are_not_in_each_other_s_way() -> None:
    """However many: without a place for them the last ones wait for the whole objective, and more."""
    engine = core(places=2)
    for index in range(60):
        engine.add(ask(f"c-{index}", 40, first=index, call="c"))
    assert engine.load().queue_seconds() > WITHIN
    assert ends(engine) == {f"c-{index}#0": Outcome.FINISHED for index in range(60)}
    assert not engine.take_shed()
    assert not engine.scheduler._calls


def test_a_call_that_was_begun_is_finished_beside_others() -> None:
    engine = core(places=2)
    for index in range(30):
        engine.add(ask(f"c-{index}", 40, first=index, call="c"))
    engine.step()
    with pytest.raises(Refused):
        engine.add(ask("other", 10))
    engine.scheduler._admission._first_token = None
    engine.add(ask("patient", 10))
    engine.scheduler._admission._first_token = FirstTokenBound(WITHIN)
    finished = ends(engine)
    assert {f"c-{index}#0" for index in range(30)} <= set(finished)
    assert [name for name, _ in engine.take_shed()] == ["patient"]


def test_a_call_that_cannot_be_begun_in_time_is_refused_at_its_first_prompt() -> None:
    engine = core()
    engine.add(ask("long", 900))
    with pytest.raises(Refused):
        engine.add(ask("c-0", 10, call="c"))
