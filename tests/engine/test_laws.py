"""The laws of docs/invariants.md, run as a state machine over the real scheduler and KV cache.

Hypothesis interleaves arrivals, cancellations, deadlines and steps; after every step the laws
that speak of every instant are checked, and at the end everything is run dry. The runner is the
`FakeRunner`, whose output depends on every KV entry that a block table leads to.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from math import ceil, inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from salver.contract import (
    Cause,
    Finish,
    FinishReason,
    GenerateRequest,
    LatencyModel,
    Outcome,
    SamplingParams,
    StepShape,
    Timings,
    TokenChunk,
    TrafficClass,
)
from salver.contract.latency import EMPTY_STEP, UNMEASURED
from salver.engine import BlockPool, KVCacheManager, Limits, Request, Scheduler, SchedulerOutput
from salver.engine.admission import Admission
from salver.engine.fair_order import FairOrder
from salver.engine.latency_model import shape_of
from salver.engine.order import FirstComeFirstServed, Order
from salver.engine.step import Step
from salver.errors import Refused, TooLarge
from salver.flow import FirstTokenBound, QueueBound, Share, Tariff
from salver.flow.queue_bound import REOPEN
from salver.testing import FakeRunner, LetterDecoder, ManualClock
from salver.testing.service_audit import ServiceAudit

BLOCK = 4
EOS = 0
LIMITS = Limits(max_running=5, max_batch_tokens=13, max_context_tokens=48)
BOUND = QueueBound(max_requests=6, max_tokens=60)
SHED = Finish(
    Outcome.SHED, FinishReason.ABORT, Timings(0.0, None, None, 0.0)
)  # as a caller sees it
WITHIN = 0.3  # seconds to a first token, where they are promised
MACHINE = LatencyModel(base=0.01, per_token=0.005, per_attended=1e-4, per_logit_row=0.001)
TARIFF = Tariff(per_attended=0.05)
SHARES = {"red": Share(1.0), "blue": Share(3.0, kv_share=0.4)}

# Prompts grow from few stems, so that prefixes are shared often and partially.
STEMS = [tuple(range(10, 10 + length)) for length in (3, 11, 26)]
prompts = st.builds(
    lambda stem, tail: STEMS[stem] + tuple(tail),
    st.integers(0, 2),
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
)
params = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 16),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 3),
    ignore_eos=st.booleans(),
    prompt_logprobs=st.sampled_from([None, None, 1]),
)


@dataclass
class Client:
    """What one caller has seen of one choice."""

    request: GenerateRequest
    seed: int
    tokens: list[int]
    text: str = ""
    finish: Finish | None = None
    gone: bool = False


class Laws(RuleBasedStateMachine):
    limits = LIMITS
    latency = UNMEASURED

    def order(self) -> Order:
        return FirstComeFirstServed()

    def queue(self) -> Admission:
        return Admission(BOUND)

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.runner = FakeRunner(num_blocks=26, block_size=BLOCK, vocab_size=61)
        self.pool = BlockPool(self.runner.num_blocks)
        self.kv = KVCacheManager(self.pool, BLOCK)
        self.scheduler = Scheduler(
            self.kv,
            self.limits,
            self.queue(),
            frozenset({EOS}),
            LetterDecoder,
            self.latency,
            self.order(),
        )
        self.clients: dict[tuple[str, int], Client] = {}
        self.num_arrivals = 0
        self.one_behind: set[str] = set()  # running requests, as the latest step found them
        self.arrived: dict[str, float] = {}
        self.begun: set[str] = set()  # requests of which some token was in a step
        self.begun_calls: set[str] = set()  # calls in flight of which that is so
        self.preempted: set[str] = set()  # sequences
        self.made_room: list[tuple[Request, Request, bool]] = []  # in the step under way
        self._watch_preemptions()

    def _watch_preemptions(self) -> None:
        """Note who made room for whom, and whether that one was running."""
        preempt = self.scheduler._preempt

        def noted(request: Request, step: Step, *, heir: Request) -> None:
            self.made_room.append((request, heir, heir.running))
            preempt(request, step, heir=heir)

        self.scheduler._preempt = noted  # type: ignore[method-assign]

    # -- what can happen -------------------------------------------------------------------------

    @rule(
        prompt=prompts,
        sampling=params,
        n=st.sampled_from([1, 1, 1, 3]),
        salt=st.sampled_from(["red", "blue"]),
        patience=st.sampled_from([None, None, -1.0, 0.5, 3.0]),
        traffic_class=st.sampled_from([*TrafficClass, TrafficClass.STANDARD]),
        waited=st.sampled_from([None, None, 0.1, 0.2, WITHIN, 2 * WITHIN]),
        call=st.sampled_from(["", "", "", "several"]),
    )
    def arrive(
        self,
        prompt: tuple[int, ...],
        sampling: SamplingParams,
        n: int,
        salt: str,
        patience: float | None,
        traffic_class: TrafficClass,
        waited: float | None = None,
        call: str = "",
    ) -> None:
        """`waited` seconds before it came here; it may be one of a call of several."""
        now = self.clock.now()
        deadline = None if patience is None else now + patience
        name = f"r{self.num_arrivals}"
        self.num_arrivals += 1
        request = GenerateRequest(
            name,
            prompt,
            sampling,
            n=n,
            tenant=salt,
            cache_salt=salt,
            deadline=deadline,
            traffic_class=traffic_class,
            arrived=None if waited is None else now - waited,
            call=call and f"{call}-{salt}",
        )
        if not any(call_of(c.request) == call_of(request) for c in self.live()):
            self.begun_calls.discard(call_of(request))
        before = self.scheduler.load(self.clock.now())
        try:
            self.scheduler.add(request, now)
        except TooLarge:
            too_long = len(prompt) + sampling.max_tokens > LIMITS.max_context_tokens
            assert too_long or n > BOUND.max_requests or n * len(prompt) > BOUND.max_tokens
            assert self.scheduler.load(self.clock.now()) == before
        except Refused as refused:
            assert self.scheduler.load(self.clock.now()) == before
            self.check_refusal(refused, request, before.requests_waiting, before.tokens_waiting)
        else:
            self.note_shed()
            after = self.scheduler.load(self.clock.now())
            self.check_admission(
                request,
                after.requests_waiting - n,
                after.tokens_waiting - n * len(prompt),
            )
            for choice in range(n):
                seed = (sampling.seed + choice * 0x9E3779B97F4A7C15) % 2**64
                self.clients[name, choice] = Client(request, seed, [])
            self.arrived[name] = now

    def check_refusal(self, refused: Refused, request: GenerateRequest, n: int, k: int) -> None:
        """Law 10: a refusal names its rule, and the value really is over the limit."""
        decision = refused.decision
        assert decision.value > decision.limit
        if decision.cause is Cause.DEADLINE:
            assert request.deadline is not None
            late = request.deadline <= self.clock.now()
            assert late == (decision.rule == "request.deadline_s")
        elif decision.rule == "slo.ttft_p95":
            self.check_others_wait(request)
        elif decision.rule == "admission.max_queued_requests":
            assert n + request.n > REOPEN * BOUND.max_requests
        else:
            assert k + request.n * len(request.prompt_token_ids) > REOPEN * BOUND.max_tokens

    def live(self) -> list[Client]:
        return [client for client in self.clients.values() if client.finish is None]

    def check_admission(self, request: GenerateRequest, n: int, k: int) -> None:
        """Law 10: nothing is let in over the bound."""
        assert n + request.n <= BOUND.max_requests
        assert k + request.n * len(request.prompt_token_ids) <= BOUND.max_tokens

    def check_others_wait(self, request: GenerateRequest) -> None:
        """Nobody is let go of a machine that has nothing else to do."""
        assert {call_of(client.request) for client in self.live()} - {call_of(request)}

    def note_shed(self) -> None:
        """What gave way, or was late, was never begun, and its caller is told the rule."""
        for name, decision in self.scheduler.take_shed():
            assert decision.value > decision.limit
            assert name not in self.begun
            if decision.rule == "slo.ttft_p95":
                self.check_others_wait(self.clients[name, 0].request)
            for client in self.clients.values():
                if client.request.id == name:
                    assert not client.tokens
                    assert client.finish is None
                    client.finish = SHED

    @rule(seconds=st.sampled_from([0.25, 1.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: any(c.finish is None for c in self.clients.values()))
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        live = sorted({c.request.id for c in self.clients.values() if c.finish is None})
        name = data.draw(st.sampled_from(live))
        self.scheduler.cancel(name)
        for client in self.clients.values():
            client.gone |= client.request.id == name

    @rule(prompt=prompts, salt=st.sampled_from(["red", "blue"]))
    def lose_patience(self, prompt: tuple[int, ...], salt: str) -> None:
        """A caller hangs up half-way and sends the same again: its own remains are in the cache."""
        self.arrive(prompt, SamplingParams(max_tokens=2), 1, salt, None, TrafficClass.STANDARD)
        self.step()
        self.scheduler.cancel(name := f"r{self.num_arrivals - 1}")
        for client in self.clients.values():
            client.gone |= client.request.id == name
        self.arrive(prompt, SamplingParams(max_tokens=2), 1, salt, None, TrafficClass.STANDARD)
        self.step()

    @rule(classes=st.lists(st.sampled_from(TrafficClass), min_size=4, max_size=5))
    def crowd(self, classes: list[TrafficClass]) -> None:
        """One after the other, requests come of which no three fit the pool, and little ones."""
        for number, traffic_class in enumerate(classes):
            first = 9 * number
            prompt = tuple(range(first, first + (4 if number == 0 else 36)))
            sampling = SamplingParams(max_tokens=11, ignore_eos=True)
            self.arrive(prompt, sampling, 1, "red", None, traffic_class)
            self.several_steps()

    @rule()
    def step(self) -> None:
        now = self.clock.now()
        self.made_room.clear()
        self.one_behind = {r.key for r in self.scheduler._running if r.num_missing_tokens == 1}
        plan = self.scheduler.schedule(now)
        self.preempted |= {r.key for r in self.scheduler._order if r.scheduled_at is not None}
        self.note_shed()
        self.check_no_dead_work(plan, now)
        self.check_begun_in_time(plan, now)
        self.after_schedule(plan)
        self.check_nobody_leaves_in_vain(plan)
        self.check_work_conservation(plan, now)
        self.check_pace(plan, now)
        output = self.runner.execute(plan)
        self.take_time(plan)
        for chunk in self.scheduler.update(plan, output, self.clock.now()):
            self.receive(chunk)
        self.check_dead_hold_nothing(now)

    def after_schedule(self, plan: SchedulerOutput) -> None:
        """What a policy promises of every step."""

    def take_time(self, plan: SchedulerOutput) -> None:
        """A step is as long as it is predicted to be."""
        if plan.sequences:
            self.clock.advance(self.scheduler.telemetry.model.predict(shape_of(plan)))

    @rule()
    def several_steps(self) -> None:
        for _ in range(4):
            self.step()

    def receive(self, chunk: TokenChunk) -> None:
        client = self.clients[chunk.request_id, chunk.choice]
        assert client.finish is None, "a second end, or tokens after the end (law 1)"
        client.tokens += chunk.token_ids
        client.text += chunk.text
        client.finish = chunk.finish
        if client.finish:
            self.check_output(client)
            told, key = client.finish.preempted, f"{chunk.request_id}#{chunk.choice}"
            assert bool(told) == (key in self.preempted), "a preemption without its Decision"
            assert told is None or told.value > told.limit

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def law_1_requests_are_conserved(self) -> None:
        ended = sum(self.scheduler.outcomes.values())
        assert self.scheduler.num_accepted == ended + self.scheduler.num_in_flight
        seen = Counter(c.finish.outcome for c in self.clients.values() if c.finish)
        assert seen == self.scheduler.outcomes

    @invariant()
    def law_2_blocks_are_conserved(self) -> None:
        tables = self.kv.tables
        held = Counter(block for table in tables.values() for block in table)
        assert [held[block] for block in range(self.pool.num_blocks)] == [
            self.pool.references(block) for block in range(self.pool.num_blocks)
        ]
        cached = {block for block in self.pool._by_key.values() if not held[block]}
        assert self.pool.num_cached == len(cached)
        assert self.pool.num_available == self.pool.num_blocks - len(held)
        assert set(self.pool._unowned) == set(range(self.pool.num_blocks)) - set(held)
        assert all(len(set(table)) == len(table) for table in tables.values())
        owned: defaultdict[tuple[TrafficClass, str], set[int]] = defaultdict(set)
        for key, table in tables.items():
            owned[account(self.client(key).request)].update(table)
        for owner in (*owned, *self.kv._held):
            assert self.kv.num_held(owner) == len(owned[owner])

    @invariant()
    def law_7_blocks_are_shared_inside_one_salt(self) -> None:
        salts: dict[int, str] = {}
        for key, table in self.kv.tables.items():
            name, choice = key.split("#")
            salt = self.clients[name, int(choice)].request.cache_salt
            assert all(salts.setdefault(block, salt) == salt for block in table)

    @invariant()
    def law_10_the_queue_is_bounded(self) -> None:
        # Preempted requests wait too, but were admitted before: they come on top of the bound.
        waiting = self.scheduler.load(self.clock.now()).requests_waiting
        assert waiting <= BOUND.max_requests + LIMITS.max_running

    def check_no_dead_work(self, plan: SchedulerOutput, now: float) -> None:
        """Law 6: nothing is computed for a request that is cancelled or past its deadline."""
        assert plan.num_tokens <= LIMITS.max_batch_tokens
        for sequence in plan.sequences:
            client = self.client(sequence.key)
            assert not client.gone
            assert client.request.deadline is None or client.request.deadline > now

    def check_begun_in_time(self, plan: SchedulerOutput, now: float) -> None:
        """No request is begun that has waited for longer than a promised first token leaves beside
        its own prompt, and none goes on waiting for longer than the whole promise; unless nobody else
        is there, or another of its call was begun."""
        self.begun |= {self.client(sequence.key).request.id for sequence in plan.sequences}
        if (within := self.limits.ttft_seconds) is None:
            return
        in_flight = (*self.scheduler._running, *self.scheduler._order)
        calls = {call_of(self.client(request.key).request) for request in in_flight}
        leaders = {r.key: r for r in self.scheduler._running if r.choice == 0}
        for sequence in plan.sequences:
            request, call = leaders.get(sequence.key), call_of(self.client(sequence.key).request)
            waited = len(calls) > 1 and call not in self.begun_calls
            self.begun_calls.add(call)
            if request is not None and request.scheduled_at == now and waited:
                first = sequence.first_position
                prompt = StepShape.of_tokens(first, len(request.prompt) - first, 1)
                own = self.scheduler.telemetry.model.marginal(prompt)
                assert now - request.arrived <= max(within - own, 0.1 * within) + 1e-9
        for request in self.scheduler._order:
            if len(calls) > 1 and call_of(self.client(request.key).request) not in self.begun_calls:
                assert now - request.arrived <= within

    def check_dead_hold_nothing(self, now: float) -> None:
        """Law 2: a dead request holds no block by the end of the step."""
        for key in self.kv.tables:
            client = self.client(key)
            assert client.finish is None
            assert not client.gone

    def check_nobody_leaves_in_vain(self, plan: SchedulerOutput) -> None:
        """Who made room did so for one that is in the step, or had to make room itself."""
        planned = {sequence.key for sequence in plan.sequences}
        gone = {request.key for request, _, _ in self.made_room}
        for _, heir, _ in self.made_room:
            assert heir.key in planned | gone

    def check_work_conservation(self, plan: SchedulerOutput, now: float) -> None:
        """Law 4: no empty step, and nothing left out that had budget, a place and blocks.

        Budget is room in the batch, and for a prompt beyond its first block also time: the step
        with one token more would make a decoding request late, or too long for those who come.
        """
        if self.scheduler.num_in_flight:
            assert plan.num_tokens > 0
        left = LIMITS.max_batch_tokens - plan.num_tokens
        if self.made_room:
            self.check_who_found_no_room(left)
            return
        if not left:
            return
        planned = {sequence.key: sequence for sequence in plan.sequences}
        for request in self.scheduler._running:
            if request.key in planned and planned[request.key].sample is not None:
                continue
            left_out = self.held_back(request) or self.would_be_late(plan, request, now)
            assert left_out, "left behind with budget to spare"
        if len(self.scheduler._running) < LIMITS.max_running:
            following = self.next_to_start()
            if following and not self.would_be_late(plan, following, now):
                assert not self.kv.attach(following, left)

    def check_who_found_no_room(self, left: int) -> None:
        """After a preemption tokens may be left that a running request could have had. But where only
        those that came made room, and time is no matter, who is next found no blocks."""
        gone = {request.key for request, _, _ in self.made_room}
        following = self.next_to_start()
        if self.latency is not UNMEASURED or following is None or following.key in gone:
            return
        crowded = any(running for _, _, running in self.made_room)
        left -= len(gone & self.one_behind)  # which had their places kept
        if not crowded and left > 0 and len(self.scheduler._running) < LIMITS.max_running:
            assert not self.kv.attach(following, left)

    def held_back(self, request: Request) -> bool:
        """Whether the policy leaves a running request out."""
        return False

    def next_to_start(self) -> Request | None:
        """The waiting request that would have been started next."""
        ready = [r for r in self.scheduler._order if not r.waits_for_leader(self.kv.block_size)]
        return ready[0] if ready else None

    def would_be_late(self, plan: SchedulerOutput, request: Request, now: float) -> bool:
        """Whether one more token of a prompt is more than the step has time for."""
        if request.key in self.one_behind:
            return False
        if self.prompt_tokens(plan) < BLOCK:
            return False
        more = self.one_more(plan, request)
        model = self.scheduler.telemetry.model
        predicted = model.predict(shape_of(plan) + more)
        alone = model.predict(self.decoded(plan))
        least = self.prompt_seconds(model, shortest=model.base, longest=alone)
        return predicted > self.slack(plan, now) - 1e-9 or predicted - alone > least - 1e-9

    def one_more(self, plan: SchedulerOutput, request: Request) -> StepShape:
        """What one token more of a request would add to the step."""
        planned = [each.context_length for each in plan.sequences if each.key == request.key]
        running = request in self.scheduler._running
        had = request.num_computed_tokens if running else self.kv.num_cached_tokens(request)
        first = planned[0] if planned else had
        return StepShape.of_tokens(first, 1, int(first + 1 == request.num_tokens))

    def check_pace(self, plan: SchedulerOutput, now: float) -> None:
        """A step with more than a block of prompt makes no decoding request late, and is not too
        long for those who come while it runs."""
        if self.prompt_tokens(plan) > BLOCK:
            model = self.scheduler.telemetry.model
            predicted, alone = model.predict(shape_of(plan)), model.predict(self.decoded(plan))
            assert predicted <= self.slack(plan, now) + 1e-9
            most = self.prompt_seconds(model, shortest=alone, longest=model.base)
            assert predicted - alone <= most + 1e-9

    def prompt_seconds(self, model: LatencyModel, *, shortest: float, longest: float) -> float:
        """What prompts may take beside decodes that make a step so long at least, and at most."""
        tokens, within = LIMITS.max_batch_tokens, self.limits.ttft_seconds
        rows = ceil(tokens / BLOCK)
        fresh = model.marginal(StepShape(tokens, tokens * (tokens + 1) // 2, rows))
        return fresh if within is None else min(fresh, max(shortest, within / 4 - longest))

    def prompt_tokens(self, plan: SchedulerOutput) -> int:
        return plan.num_tokens - len(self.decodes(plan))

    def decodes(self, plan: SchedulerOutput) -> list[Request]:
        planned = self.one_behind & {sequence.key for sequence in plan.sequences}
        return [request for request in self.scheduler._running if request.key in planned]

    def decoded(self, plan: SchedulerOutput) -> StepShape:
        shapes = (StepShape.of_tokens(r.num_computed_tokens, 1, 1) for r in self.decodes(plan))
        return sum(shapes, EMPTY_STEP)

    def slack(self, plan: SchedulerOutput, now: float) -> float:
        """Seconds until the first decoding request breaks a promise that could still be kept."""
        tpot = self.limits.tpot_seconds
        if tpot is None:
            return inf
        alone = self.scheduler.telemetry.model.predict(self.decoded(plan))
        dues = [inf]
        for request in self.decodes(plan):
            if request.first_token_at is not None:
                left = range(len(request.output), request.params.max_tokens)
                ends = ((n, now + (n + 1 - left.start) * alone) for n in left)
                if any(end <= request.first_token_at + n * tpot for n, end in ends):
                    dues.append(request.first_token_at + left.start * tpot)
        return min(dues) - now

    def check_output(self, client: Client) -> None:
        """Law 3: batching, chunking, sharing and preemption never change a token."""
        alone = self.runner.alone(
            client.request.prompt_token_ids, client.request.sampling, client.seed
        )
        if EOS in alone and not client.request.sampling.ignore_eos:
            alone = alone[: alone.index(EOS) + 1]
        assert client.finish is not None
        if client.finish.outcome is Outcome.FINISHED:
            assert client.tokens == alone
        else:
            assert client.tokens == alone[: len(client.tokens)]
            assert len(client.tokens) < len(alone)

    def client(self, key: str) -> Client:
        name, choice = key.split("#")
        return self.clients[name, int(choice)]

    def teardown(self) -> None:
        """Everything ends, and soon: each step moves at least one token."""
        work = 40 * sum(len(c.request.prompt_token_ids) + 16 for c in self.clients.values())
        for _ in range(work):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work
        assert self.pool.num_owned == 0
        assert all(client.finish is not None for client in self.clients.values())


class PacedLaws(Laws):
    """The same, where a step's length is known and running requests were promised a pace."""

    limits = replace(LIMITS, tpot_seconds=0.06)
    latency = MACHINE


class PunctualLaws(PacedLaws):
    """The same, where who waits too long for its first token is let go."""

    limits = replace(PacedLaws.limits, ttft_seconds=WITHIN)

    def queue(self) -> Admission:
        return Admission(BOUND, FirstTokenBound(WITHIN))


class FairLaws(Laws):
    """The same with fair turns, and law 5: for two tenants of one class the gap in weighted service
    stays under its bound while both wait."""

    def order(self) -> Order:
        self.fair = FairOrder(
            self.kv,
            SHARES,
            max_running=LIMITS.max_running,
            max_batch_tokens=LIMITS.max_batch_tokens,
            max_context_tokens=LIMITS.max_context_tokens,
            tariff=TARIFF,
        )
        self.audit = ServiceAudit(self.kv, SHARES, LIMITS, TARIFF)
        return self.fair

    def queue(self) -> Admission:
        return Admission(BOUND, sheds=True)

    def after_schedule(self, plan: SchedulerOutput) -> None:
        requests = {key: self.client(key).request for key in self.kv.tables}
        waiting = {(r.traffic_class, r.tenant) for r in self.fair}
        self.audit.step(plan, requests, self.one_behind, waiting)
        assert self.audit.worst <= 1 + 1e-9, "law 5"

    def held_back(self, request: Request) -> bool:
        mine = self.fair._account(request)
        rivals = (each for each in self.fair._of_class(mine.rank) if each.waiting)
        # The step was charged since, which can only have put it further ahead.
        return any(mine.had > rival.had for rival in rivals)

    def next_to_start(self) -> Request | None:
        return self.fair._stuck


class PunctualFairLaws(FairLaws):
    """Fair turns, a full queue in which others give way, and first tokens that are promised."""

    limits = PunctualLaws.limits
    latency = MACHINE

    def queue(self) -> Admission:
        return Admission(BOUND, FirstTokenBound(WITHIN), sheds=True)

    def after_schedule(self, plan: SchedulerOutput) -> None:
        self.plan = plan
        super().after_schedule(plan)

    def held_back(self, request: Request) -> bool:
        return self.comes_after_others(request) or super().held_back(request)

    def next_to_start(self) -> Request | None:
        stuck = super().next_to_start()
        return None if stuck is None or self.comes_after_others(stuck) else stuck

    def comes_after_others(self, request: Request) -> bool:
        """Whether it has no part in what the prompts of others than the first may add to the step:
        half of what it takes with the first one's."""
        prompts = [each for each in self.plan.sequences if each.key not in self.one_behind]
        if not prompts or account(self.client(prompts[0].key).request) == account(request):
            return False
        first, others = EMPTY_STEP, EMPTY_STEP
        for each in prompts:
            count, rows = each.end - each.start, int(each.sample is not None)
            shape = StepShape.of_tokens(each.first_position, count, rows)
            if account(self.client(each.key).request) == account(
                self.client(prompts[0].key).request
            ):
                first += shape
            else:
                others += shape
        more = self.one_more(self.plan, request)
        model = self.scheduler.telemetry.model
        return model.marginal(others + more) > 0.5 * model.predict(first) - 1e-9


def call_of(request: GenerateRequest) -> str:
    return request.call or request.id


def account(request: GenerateRequest | Request) -> tuple[TrafficClass, str]:
    return request.traffic_class, request.tenant


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=200, stateful_step_count=40)
TestFairLaws = FairLaws.TestCase
TestFairLaws.settings = settings(max_examples=200, stateful_step_count=40)
TestPacedLaws = PacedLaws.TestCase
TestPacedLaws.settings = settings(max_examples=200, stateful_step_count=40)
TestPunctualLaws = PunctualLaws.TestCase
TestPunctualLaws.settings = settings(max_examples=100, stateful_step_count=40)
TestPunctualFairLaws = PunctualFairLaws.TestCase
TestPunctualFairLaws.settings = settings(max_examples=100, stateful_step_count=40)
