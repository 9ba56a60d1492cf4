"""A full queue: who is refused, who gives way, and when it is open again."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import Action, Decision, GenerateRequest, Outcome, SamplingParams, TrafficClass
from salver.engine import EngineCore, Limits
from salver.engine.admission import Admission
from salver.errors import Refused, TooLarge
from salver.flow import QueueBound, Share, retry_after
from salver.testing import FakeRunner, LetterDecoder, ManualClock

CRITICAL, STANDARD, BATCH = TrafficClass


def engine(*, sheds: bool, max_requests: int = 8, fair: bool = True) -> EngineCore:
    """One place, and one request in it: what is added waits."""
    core = EngineCore.build(
        FakeRunner(),
        ManualClock(),
        Limits(max_running=1, max_batch_tokens=64, max_context_tokens=200),
        Admission(QueueBound(max_requests, 1000), sheds=sheds),
        frozenset(),
        LetterDecoder,
        shares={"heavy": Share(4.0)} if fair else None,
    )
    core.add(ask("running", "a", CRITICAL, output=100))
    core.step()
    return core


def ask(
    name: str,
    tenant: str,
    traffic_class: TrafficClass = STANDARD,
    *,
    deadline: float | None = None,
    n: int = 1,
    output: int = 1,
    prompt: int = 4,
) -> GenerateRequest:
    return GenerateRequest(
        name,
        tuple(range(prompt)),
        SamplingParams(max_tokens=output),
        n=n,
        tenant=tenant,
        deadline=deadline,
        traffic_class=traffic_class,
    )


def fill(core: EngineCore, tenant: str, traffic_class: TrafficClass = STANDARD) -> None:
    """Until the queue is full."""
    for number in count():
        try:
            core.add(ask(f"{tenant}-{traffic_class}-{number}", tenant, traffic_class))
        except Refused:
            return


def refusal(core: EngineCore, request: GenerateRequest) -> Decision:
    with pytest.raises(Refused) as refused:
        core.add(request)
    return refused.value.decision


def shed(core: EngineCore) -> list[str]:
    return [name for name, _ in core.take_shed()]


def test_without_shedding_the_newcomer_is_refused_whatever_its_class() -> None:
    core = engine(sheds=False)
    fill(core, "a", BATCH)
    decision = refusal(core, ask("r", "b", CRITICAL))
    assert (decision.rule, decision.action) == ("admission.max_queued_requests", Action.REFUSE)
    assert shed(core) == []


def test_lower_classes_give_way_worst_first_and_last_deadline_first() -> None:
    core = engine(sheds=True)
    core.add(ask("standard", "a", STANDARD))
    for name, deadline in (("b1", 50.0), ("b2", 90.0), ("b3", 70.0)):
        core.add(ask(name, "a", BATCH, deadline=deadline))
    fill(core, "a", CRITICAL)
    assert shed(core) == ["b2", "b3", "b1", "standard"]
    assert refusal(core, ask("late", "a", BATCH)).action is Action.REFUSE


def test_what_is_shed_says_so_and_when_to_come_back() -> None:
    core = engine(sheds=True)
    fill(core, "a", BATCH)
    core.add(ask("r", "b", CRITICAL))
    ((name, decision),) = core.take_shed()
    assert decision.id == f"dec-{name}"
    assert (decision.action, decision.value, decision.limit) == (Action.SHED, 9, 8)
    assert "its class, batch, is lower" in decision.reason
    assert decision.retry_after is not None
    assert core.scheduler.outcomes[Outcome.SHED] == 1


def test_of_one_class_the_tenant_with_most_of_the_queue_gives_way() -> None:
    core = engine(sheds=True)
    fill(core, "loud")
    core.add(ask("q", "quiet"))
    assert shed(core) == ["loud-standard-7"]
    assert refusal(core, ask("l", "loud")).action is Action.REFUSE
    for number in range(3):
        core.add(ask(f"q{number}", "quiet"))
    assert refusal(core, ask("q9", "quiet")).action is Action.REFUSE
    assert len(shed(core)) == 3


def test_the_queue_is_shared_by_weight() -> None:
    core = engine(sheds=True, max_requests=10)
    fill(core, "light")
    fill(core, "heavy")
    assert len(shed(core)) == 8


@pytest.mark.parametrize(("n", "prompt"), [(17, 4), (6, 180)])
def test_what_no_queue_could_hold_is_too_large_and_shuts_nobody_out(n: int, prompt: int) -> None:
    """It would be refused for ever; and the queue is not full for its sake."""
    core = engine(sheds=False, max_requests=16)
    for number in range(15):
        core.add(ask(f"r{number}", "a"))
    with pytest.raises(TooLarge) as error:
        core.add(ask("wide", "a", n=n, prompt=prompt))
    assert error.value.rule.startswith("admission.max_queued_")
    core.add(ask("next", "a"))


def test_nobody_gives_way_in_vain() -> None:
    core = engine(sheds=True)
    core.add(ask("b", "a", BATCH))
    for number in range(7):
        core.add(ask(f"c{number}", "a", CRITICAL))
    before = core.load()
    assert refusal(core, ask("wide", "a", CRITICAL, n=3)).action is Action.REFUSE
    assert core.load() == before
    assert shed(core) == []


def test_all_choices_of_a_request_give_way_together() -> None:
    core = engine(sheds=True)
    core.add(ask("three", "a", BATCH, n=3))
    core.add(ask("five", "a", n=5))
    core.add(ask("r", "b", CRITICAL))
    assert shed(core) == ["three"]
    assert core.load().requests_waiting == 6


def test_what_was_started_once_is_not_shed() -> None:
    core = engine(sheds=True)
    core.cancel("running")
    core.add(ask("begun", "a", BATCH, output=50))
    core.step()
    fill(core, "a", CRITICAL)
    core.step()  # takes the place
    assert core.load().preemptions == 1
    fill(core, "b", CRITICAL)
    assert "begun" not in shed(core)


def test_first_come_first_served_sheds_nobody() -> None:
    core = engine(sheds=True, fair=False)
    fill(core, "a", BATCH)
    assert refusal(core, ask("r", "b", CRITICAL)).action is Action.REFUSE


def test_a_queue_that_was_full_opens_when_it_has_drained() -> None:
    core = engine(sheds=False)
    fill(core, "a")
    core.cancel("a-standard-0")
    core.step()
    assert core.load().requests_waiting == 7
    core.add(ask("r", "a"))  # 7 of 8 is the part at which it opens
    core = engine(sheds=False, max_requests=16)
    fill(core, "a")
    core.cancel("a-standard-0")
    core.step()
    decision = refusal(core, ask("r", "a"))
    assert (decision.value, decision.limit) == (15, 14)
    core.cancel("a-standard-1")
    core.step()
    core.add(ask("r", "a"))
    core.add(ask("s", "a"))


@given(st.floats(0, 1e4), st.floats(0, 1, exclude_max=True))
def test_those_who_were_refused_together_come_back_apart(drain: float, drawn: float) -> None:
    soonest, told = retry_after(drain, lambda: 0.0), retry_after(drain, lambda: drawn)
    assert soonest == max(1.0, drain / 8)
    assert soonest <= told <= soonest + max(soonest, 3.0)
