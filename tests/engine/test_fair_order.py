"""Fair turns: examples, and floods that would take the machine under another policy."""

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import GenerateRequest, LatencyModel, SamplingParams, TokenChunk, TrafficClass
from salver.engine import EngineCore, Limits
from salver.engine.fair_order import FairOrder
from salver.flow import QueueBound, Share, Tariff
from salver.flow.fairness import RANKS
from salver.testing import FakeRunner, LetterDecoder, ManualClock
from salver.testing.service_audit import ServiceAudit

BLOCK = 4
MACHINE = LatencyModel(base=0.01, per_token=0.001, per_attended=1e-6, per_logit_row=0.0005)


def engine(
    shares: dict[str, Share] | None,
    *,
    num_blocks: int = 64,
    max_running: int = 4,
    max_batch_tokens: int = 16,
    max_context_tokens: int = 60,
    tpot: float | None = None,
    machine: LatencyModel = MACHINE,
) -> EngineCore:
    return EngineCore.build(
        FakeRunner(num_blocks, BLOCK, vocab_size=97),
        ManualClock(),
        Limits(max_running, max_batch_tokens, max_context_tokens, tpot),
        QueueBound(5000, 10**6),
        frozenset(),
        LetterDecoder,
        machine,
        shares=shares,
    )


def ask(
    name: str,
    tenant: str,
    prompt: range = range(10, 20),
    *,
    output: int = 4,
    deadline: float | None = None,
    traffic_class: TrafficClass = TrafficClass.STANDARD,
) -> GenerateRequest:
    return GenerateRequest(
        name,
        tuple(prompt),
        SamplingParams(max_tokens=output, temperature=0.0),
        tenant=tenant,
        cache_salt=tenant,
        deadline=deadline,
        traffic_class=traffic_class,
    )


def steps_until(core: EngineCore, name: str) -> int:
    """Steps until this request's first token."""
    for step in range(1, 1000):
        if any(chunk.request_id == name and chunk.token_ids for chunk in core.step()):
            return step
    raise AssertionError(f"{name} has no token")


def flood(core: EngineCore, tenant: str, count: int = 100, *, output: int = 30) -> None:
    for index in range(count):
        prompt = range(1000 * index, 1000 * index + 10)
        core.add(ask(f"{tenant}{index}", tenant, prompt, output=output))


def test_a_quiet_tenant_has_its_turn_at_once_beside_a_flood() -> None:
    waited = {}
    for name, shares in (("fair", {"quiet": Share(), "loud": Share()}), ("fcfs", None)):
        core = engine(shares)
        flood(core, "loud")
        for _ in range(10):
            core.step()
        core.add(ask("q", "quiet"))
        waited[name] = steps_until(core, "q")
    assert waited["fair"] == 1
    assert waited["fcfs"] > 100


def test_a_long_prompt_does_not_hold_up_a_short_one() -> None:
    core = engine({}, max_context_tokens=250)
    core.add(ask("long", "loud", range(200)))
    core.step()
    core.add(ask("q", "quiet"))
    assert steps_until(core, "q") == 1


def test_who_has_no_place_does_not_make_others_slow() -> None:
    """Only a prompt that is in the step is more urgent than those after it."""
    core = engine(
        {}, num_blocks=400, max_running=4, max_batch_tokens=64, max_context_tokens=300, tpot=0.06
    )
    for index in range(2):
        core.add(ask(f"a{index}", "a", output=50))
    core.step()
    core.add(ask("b0", "b", output=50))
    core.add(ask("b1", "b", range(250)))
    core.add(ask("a2", "a"))
    core.step()
    core.step()
    assert [request.request_id for request in core.scheduler._order] == ["a2"]
    before = long_prompt(core)
    core.step()
    assert long_prompt(core) - before > 30


def long_prompt(core: EngineCore) -> int:
    """Tokens of b1 that are computed."""
    (request,) = [each for each in core.scheduler._running if each.request_id == "b1"]
    return request.num_computed_tokens


def test_a_tenant_alone_has_the_whole_machine() -> None:
    core = engine({"a": Share(1.0, kv_share=0.1), "b": Share(9.0)})
    flood(core, "a")
    for _ in range(10):
        core.step()
    assert core.load().requests_running == 4
    assert core.load().preemptions == 0


def test_a_class_goes_before_lower_ones_and_takes_their_room() -> None:
    core = engine({})
    for index in range(4):
        core.add(ask(f"b{index}", "t", output=30, traffic_class=TrafficClass.BATCH))
    core.step()
    for index in range(4):
        core.add(ask(f"c{index}", "t", output=30, traffic_class=TrafficClass.CRITICAL))
    core.step()
    running = {request.traffic_class for request in core.scheduler._running}
    assert running == {TrafficClass.CRITICAL}


def test_a_lower_class_never_takes_room_from_a_higher_one() -> None:
    core = engine({})
    flood(core, "t", 4)
    core.step()
    core.add(ask("b", "other", traffic_class=TrafficClass.BATCH))
    for _ in range(10):
        core.step()
    assert core.load().preemptions == 0


def test_inside_a_tenant_the_earliest_deadline_goes_first() -> None:
    core = engine({}, max_running=1)
    for name, deadline in (("none", None), ("late", 9.0), ("soon", 5.0), ("later", 9.0)):
        core.add(ask(name, "t", deadline=deadline))
    firsts: list[str] = []
    while core.has_work:
        firsts += [c.request_id for c in core.step() if c.request_id not in firsts]
    assert firsts == ["soon", "late", "later", "none"]


def test_of_tenants_that_stand_equal_the_one_with_prefix_hits_goes_first() -> None:
    core = engine({}, max_running=1)
    core.add(ask("first", "warm", range(40)))
    while core.has_work:
        core.step()
    core.add(ask("cold", "cold", range(40)))
    core.add(ask("warm", "warm", range(40)))
    assert steps_until(core, "warm") == 1


def test_over_its_declared_share_of_the_pool_a_tenant_makes_room() -> None:
    held = {}
    for share in (0.75, 0.25):
        shares = {"a": Share(kv_share=share), "b": Share(kv_share=1 - share)}
        core = engine(shares, num_blocks=32, max_running=8)
        for index in range(8):
            prompt = range(1000 * index, 1000 * index + 20)
            core.add(ask(f"a{index}", "a", prompt, output=40))
        for _ in range(14):
            core.step()
        for index in range(4):
            core.add(
                ask(f"b{index}", "b", range(9000 + 100 * index, 9020 + 100 * index), output=40)
            )
        seen = []
        for _ in range(12):
            core.step()
            tables = core.scheduler.kv.tables
            seen.append(sum(len(table) for key, table in tables.items() if key.startswith("a")))
        held[share] = median(seen)
    assert held[0.25] <= 32 // 4 + 5 < held[0.75]  # a request has five blocks or more


def test_nobody_makes_room_in_vain() -> None:
    """A critical request for which the one of a lower class cannot make enough room."""
    core = engine({}, num_blocks=64, max_batch_tokens=64, max_context_tokens=256)
    core.add(ask("x", "x", range(220), output=20, traffic_class=TrafficClass.CRITICAL))
    core.add(ask("y", "y", range(4), output=12, traffic_class=TrafficClass.BATCH))
    while core.load().requests_running < 2:
        core.step()
    core.add(ask("z", "z", range(40), traffic_class=TrafficClass.CRITICAL))
    core.step()
    assert core.load().preemptions == 0
    assert steps_until(core, "z") < 25


def test_blocks_that_requests_share_are_held_once() -> None:
    """A holds little, although it has many tables; B holds more than its share."""
    core = engine({}, num_blocks=300, max_running=30, max_batch_tokens=600, max_context_tokens=600)
    for index in range(8):
        core.add(ask(f"a{index}", "a", range(200), output=60))
        core.step()
        core.step()
    for index in range(2):
        core.add(ask(f"b{index}", "b", range(1000 * index, 1000 * index + 400), output=40))
    for _ in range(4):
        core.step()
    core.add(ask("c", "c", range(5000, 5100)))
    assert steps_until(core, "c") < 4
    assert [request.request_id for request in core.scheduler._order] == ["b1"]
    assert core.load().preemptions == 1


@pytest.mark.parametrize("num_blocks", [48, 200])
def test_what_is_charged_is_what_the_audit_counts(num_blocks: int) -> None:
    """With prefixes that are shared, and memory that costs more than tokens."""
    kinds = [(1.0, 50, 9, True), (2.0, 7, 3, False)]
    shares = {"t0": Share(1.0), "t1": Share(2.0)}
    core = engine(shares, num_blocks=num_blocks, max_running=8)
    audit = run_floods(core, shares, kinds, steps=20)
    order = core.scheduler._order
    assert isinstance(order, FairOrder)
    for tenant in shares:
        had = order._services[RANKS[TrafficClass.STANDARD]].had(tenant)
        assert had == pytest.approx(audit.had[TrafficClass.STANDARD, tenant])


tenants = st.tuples(
    st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 30), st.integers(1, 25), st.booleans()
)


@given(
    kinds=st.lists(tenants, min_size=2, max_size=3),
    num_blocks=st.sampled_from([16, 40, 200]),
    max_running=st.integers(1, 9),
    max_batch_tokens=st.integers(4, 20),
    tpot=st.sampled_from([None, 0.001]),
    per_attended=st.sampled_from([0.0, 1e-6, 1e-4]),
)
@settings(max_examples=15)
def test_law_5_floods_share_as_their_weights_say(
    kinds: list[tuple[float, int, int, bool]],
    num_blocks: int,
    max_running: int,
    max_batch_tokens: int,
    tpot: float | None,
    per_attended: float,
) -> None:
    """However long the prompts and answers of each, however small the pool, and even where running
    requests are late whatever is done."""
    shares = {f"t{index}": Share(kind[0]) for index, kind in enumerate(kinds)}
    core = engine(
        shares,
        num_blocks=num_blocks,
        max_running=max_running,
        max_batch_tokens=max_batch_tokens,
        tpot=tpot,
        machine=replace(MACHINE, per_attended=per_attended),
    )
    assert run_floods(core, shares, kinds).worst <= 1 + 1e-9


def test_law_5_decodes_that_are_late_do_not_shut_out_long_prompts() -> None:
    kinds = [(1.0, 2, 50, False), (1.0, 50, 2, False)]
    shares = {"t0": Share(), "t1": Share()}
    core = engine(shares, num_blocks=300, max_running=9, max_batch_tokens=20, tpot=0.001)
    assert 0.1 < run_floods(core, shares, kinds).worst <= 1


def test_law_5_decodes_that_fill_every_step_give_way() -> None:
    kinds = [(1.0, 1, 50, False), (1.0, 1, 50, False)]
    shares = {"t0": Share(), "t1": Share()}
    core = engine(shares, num_blocks=300, max_running=9, max_batch_tokens=4)
    assert run_floods(core, shares, kinds, head_start=5).worst <= 1


def test_the_gap_of_first_come_first_served_has_no_such_bound() -> None:
    kinds = [(1.0, 10, 20, True), (1.0, 10, 20, True)]
    shares = {"t0": Share(), "t1": Share()}
    assert run_floods(engine(shares), shares, kinds).worst < 0.5
    assert run_floods(engine(None), shares, kinds).worst > 2


def run_floods(
    core: EngineCore,
    shares: dict[str, Share],
    kinds: list[tuple[float, int, int, bool]],
    *,
    head_start: int = 0,
    steps: int = 300,
) -> ServiceAudit:
    """All tenants' requests at once, or the first's some steps before, for some hundred steps."""
    scheduler = core.scheduler
    tariff = Tariff.of_machine(scheduler.telemetry.model)
    audit = ServiceAudit(scheduler.kv, shares, scheduler.limits, tariff)
    requests: dict[str, GenerateRequest] = {}
    for tenant, (_, prompt, output, same) in enumerate(kinds):
        for number in range(60):
            first = 0 if same else 100 * (number + 60 * tenant)
            name = f"r{tenant}-{number}"
            asked = ask(name, f"t{tenant}", range(first, first + prompt), output=output)
            core.add(asked)
            requests[f"{name}#0"] = asked
        for _ in range(head_start if tenant == 0 else 0):
            core.step()
    for _ in range(steps):
        one_behind = {r.key for r in scheduler._running if r.num_missing_tokens == 1}
        plan = scheduler.schedule(0.0)
        waiting = {(r.traffic_class, r.tenant) for r in scheduler._order}
        audit.step(plan, requests, one_behind, waiting)
        scheduler.update(plan, core.runner.execute(plan), 0.0)
    return audit


def test_everything_ends_where_nothing_fits_twice() -> None:
    """Long requests of several tenants over a pool that holds little more than one of them."""
    core = engine({"a": Share(5.0)}, num_blocks=17, max_context_tokens=60)
    chunks: list[TokenChunk] = []
    for index in range(9):
        name = "abc"[index % 3]
        core.add(ask(f"{name}{index}", name, range(100 * index, 100 * index + 40), output=20))
    for _ in range(5000):
        chunks += core.step()
    assert not core.has_work
    assert sum(chunk.finish is not None for chunk in chunks) == 9


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_service_follows_the_weights(weight: float) -> None:
    core = engine({"a": Share(weight), "b": Share()}, num_blocks=400, max_running=10)
    flood(core, "a", 300)
    flood(core, "b", 300)
    tokens = {"a": 0, "b": 0}
    for _ in range(400):
        for chunk in core.step():
            tokens[chunk.request_id[0]] += len(chunk.token_ids)
    assert tokens["a"] / tokens["b"] == pytest.approx(weight, rel=0.25)
