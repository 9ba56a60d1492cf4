"""Who computes which tokens in the next step.

    plan = scheduler.schedule(now)            decide, on plain data
    output = runner.execute(plan)             compute
    chunks = scheduler.update(plan, output, now)    account

One idea (see `engine.request`): every request's `num_computed_tokens` catches up with its
`num_tokens` under one token budget per step. Chunked prefill, prefix hits and preemption follow
from it; none of them has a branch of its own. The rejected alternative, a prefill queue beside a
decode queue, needs a rule for every way in which the two can starve each other.

Whose turn it is, and who makes room where there is none, is the policy's: `engine.order` (first
come, first served) and `engine.fair_order`. A request that makes room is preempted: it gives its
blocks back and is recomputed later.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

from salver.contract import (
    Decision,
    Finish,
    FinishReason,
    GenerateRequest,
    LatencyModel,
    LoadSnapshot,
    Outcome,
    Timings,
    TokenChunk,
    TokenLogprobs,
)
from salver.contract.latency import UNMEASURED
from salver.engine.admission import Admission, Verdict
from salver.engine.kv_cache import KVCacheManager
from salver.engine.layout import lay_out
from salver.engine.order import FirstComeFirstServed, Order
from salver.engine.output_text import DecoderFactory
from salver.engine.plan import ModelRunnerOutput, SchedulerOutput
from salver.engine.preemptions import note_preemption, preempted
from salver.engine.punctuality import Estimate
from salver.engine.request import CallState, Request
from salver.engine.room import room_for
from salver.engine.step import Limits, Step
from salver.engine.step_budget import StepBudget
from salver.engine.step_telemetry import StepTelemetry
from salver.engine.stopping import judge
from salver.errors import BackendError, Refused, TooLarge
from salver.flow import QueueBound, optimistic


class Scheduler:
    """Owns every Request from `add` to its Finish.

    Args:
        kv: the KV pool and its tables.
        limits: the bounds of a step.
        queue: the bound of what may wait, or who decides on it.
        eos_token_ids: tokens that end a sequence unless it ignores them.
        new_decoder: makes the detokenizer of one sequence.
        latency: what steps are predicted with, until `telemetry` knows better.
        order: the policy; first come, first served by default.
    """

    def __init__(
        self,
        kv: KVCacheManager,
        limits: Limits,
        queue: QueueBound | Admission,
        eos_token_ids: frozenset[int],
        new_decoder: DecoderFactory,
        latency: LatencyModel = UNMEASURED,
        order: Order | None = None,
    ) -> None:
        self.kv = kv
        self.limits = limits
        self._admission = queue if isinstance(queue, Admission) else Admission(queue)
        self.telemetry = StepTelemetry(latency)
        self.outcomes: Counter[Outcome] = Counter()
        self.num_accepted = 0
        self.num_steps = 0
        self.num_preemptions = 0
        self._eos_token_ids = eos_token_ids
        self._new_decoder = new_decoder
        self._order: Order = FirstComeFirstServed() if order is None else order
        self._running: list[Request] = []  # in the order in which they were started
        self._ended: list[TokenChunk] = []  # finishes that the next update reports
        self._calls: WeakValueDictionary[str, CallState] = WeakValueDictionary()  # in flight
        self._shed_since: list[tuple[str, Decision]] = []

    # -- requests in -----------------------------------------------------------------------------

    def add(self, source: GenerateRequest, now: float) -> None:
        """Accept a request's `n` sequences, or refuse it whole. Others may be shed for it.

        Raises:
            Refused: the queue is full, or the deadline has passed or cannot be met.
            TooLarge: it could never fit the pool or the queue, even alone.
        """
        longest = len(source.prompt_token_ids) + source.sampling.max_tokens
        if longest > (capacity := min(self.limits.max_context_tokens, self.kv.capacity_tokens)):
            raise TooLarge(
                f"prompt and max_tokens come to {longest} tokens, {capacity} fit",
                rule="envelope.max_context_tokens",
                value=longest,
                limit=capacity,
                fix="shorten the prompt or lower max_tokens",
            )
        name = source.call or source.id
        verdict = self._admission.judge(
            source,
            self._order,
            self._running,
            self._estimate(now),
            cached=lambda: self._expected_tokens(source, now),
            joins=name in self._calls,
        )
        if verdict.refusal:
            raise Refused(verdict.refusal)
        self._shed(verdict)
        call = self._calls.setdefault(name, CallState(name))
        sequences = list(Request.choices(source, now, self._new_decoder, call))
        for request in sequences:
            self.kv.expect(request)
        self._order.append(sequences)
        self.num_accepted += source.n

    def cancel(self, request_id: str) -> None:
        """End this request at the next step boundary. An id that has already ended is ignored."""
        for request in self._in_flight():
            if request.request_id == request_id:
                request.cancelled = True
                self._order.forget_times()

    def take_shed(self) -> list[tuple[str, Decision]]:
        """The requests that were shed since the last call; nothing else tells of their end."""
        shed, self._shed_since = self._shed_since, []
        return shed

    def _shed(self, verdict: Verdict) -> None:
        for request in verdict.victims:
            self.kv.forget(request)
            request.ended = True
            self.outcomes[Outcome.SHED] += 1
        if verdict.victims:
            self._order.drop_ended()
            self._order.forget_times()
            ids = dict.fromkeys(request.request_id for request in verdict.victims)
            self._shed_since += zip(ids, verdict.shed, strict=True)

    # -- one step --------------------------------------------------------------------------------

    def schedule(self, now: float) -> SchedulerOutput:
        """Choose the step's tokens. Expired and cancelled requests free their blocks first."""
        self._order.forget_times()
        self._drop_dead(now)
        self._shed(self._admission.overdue(self._order, self._running, now))
        budget = StepBudget.of_step(
            self._order.protected(self._running),
            now,
            model=self.telemetry.model,
            tokens=self.limits.max_batch_tokens,
            ttft=self.limits.ttft_seconds,
            tpot=self.limits.tpot_seconds,
            progress=self.kv.block_size,
        )
        step = Step(budget)
        for request in self._order.turns(self._running):
            if request.running:
                self._continue(request, step)
            elif request.waits_for_leader(self.kv.block_size):
                self._order.defer(request)
            elif self._start(request, step, now):
                self._order.start(request)
            elif not request.ended:
                self._order.block(request)
        chosen = list(step.chosen.values())
        self._order.charge(chosen)
        return lay_out(chosen, self.kv, self._eos_token_ids)

    def update(
        self, plan: SchedulerOutput, output: ModelRunnerOutput, now: float
    ) -> list[TokenChunk]:
        """Account for a step: advance, append the sampled tokens, end what is done."""
        by_key = {request.key: request for request in self._running}
        chunks, self._ended = self._ended, []
        self._order.forget_times()
        for sequence in plan.sequences:
            request = by_key[sequence.key]
            request.num_computed_tokens = sequence.context_length
            self.kv.publish(request)
            request.prompt_logprobs.extend(output.prompt_logprobs.get(request.key, ()))
            if (error := output.failed.get(request.key)) is not None:
                chunks.append(self._fail(request, error, now))
            elif sequence.sample is not None:
                chunks.append(self._append(request, output.sampled[request.key], now))
        self._running = [request for request in self._running if not request.ended]
        self.num_steps += 1
        return chunks

    # -- choosing --------------------------------------------------------------------------------

    def _continue(self, request: Request, step: Step) -> None:
        """Give a running request its missing tokens. Where blocks lack, somebody is preempted."""
        first, missing = request.num_computed_tokens, request.num_missing_tokens
        if missing == 1:
            count = step.budget.take_one()
        else:
            yields = self._order.yields(request, step.first)
            count = step.budget.take(first, missing, after_others=yields)
        if not count:
            return
        step.put(request, count, prompt=missing > 1)
        while request.running and not self.kv.extend(request, first + count):
            victim = self._order.victim(request, self._running) or request
            self._preempt(victim, step, heir=request)
            step.crowded = True

    def _start(self, request: Request, step: Step, now: float) -> bool:
        """Start a waiting request if there is budget, a place, and blocks for its whole chunk. One
        whose first token would be too late is shed instead.

        What was preempted in this step stays out of it; and after a preemption for want of blocks
        only those start for whom others have to make room.
        """
        if request.key in step.preempted or request.ended:
            return False
        cached = self.kv.num_cached_tokens(request)
        missing, yields = request.num_tokens - cached, self._order.yields(request, step.first)
        count = step.budget.offer(cached, missing, after_others=yields)
        if not count or (step.crowded and not self._order.victim(request, self._running)):
            return False
        ahead = step.budget.until_first_token
        own = partial(ahead, cached, missing, count, after_others=yields)
        if late := self._admission.begins_late(request, self._in_flight(), now, own):
            self._shed(Verdict(None, (late,), request.among(self._order)))
            return False
        if not self._seat(request, count, step):
            return False
        missing = request.num_missing_tokens
        count = min(count, missing)
        step.budget.spend(request.num_computed_tokens, missing, count, after_others=yields)
        step.put(request, count, prompt=True)
        self._enter(request, now)
        return True

    def _seat(self, request: Request, count: int, step: Step) -> bool:
        """Give it a place and blocks. Others are preempted for it, unless all are not enough."""
        most = self.limits.max_running
        if len(self._running) < most and self.kv.attach(request, count):
            return True
        leaving = room_for(request, count, self.kv, self._order, self._running, most)
        for victim in leaving:
            self._preempt(victim, step, heir=request)
        return bool(leaving) and self.kv.attach(request, count)

    def _enter(self, request: Request, now: float) -> None:
        if request.scheduled_at is None:
            request.scheduled_at = now
            request.call.begun = True
            request.cached_tokens = min(request.num_computed_tokens, len(request.prompt))
        request.running = True
        self._running.append(request)

    def _preempt(self, request: Request, step: Step, *, heir: Request) -> None:
        """Take a running request's blocks, and its tokens out of the step; it starts over later."""
        most = self.limits.max_running
        full = not heir.running and len(self._running) >= most
        note_preemption(request, heir, self.kv, max_running=most if full else None)
        self._running.remove(request)
        request.running = False
        self.kv.release(request)
        request.fall_back(self.kv.block_size)
        self._order.put_back(request)
        self.num_preemptions += 1
        step.take_out(request)

    # -- accounting ------------------------------------------------------------------------------

    def _append(self, request: Request, token: TokenLogprobs, now: float) -> TokenChunk:
        """Add one sampled token, and end the request if it was the last."""
        first = not request.output
        if first:
            request.first_token_at = now
        request.output.append(token.token_id)
        verdict = judge(request, token.token_id, self._eos_token_ids)
        finish = None
        if verdict.reason is not None:
            finish = self._end(request, Outcome.FINISHED, verdict.reason, now, verdict.matched)
        return TokenChunk(
            request_id=request.request_id,
            choice=request.choice,
            token_ids=(token.token_id,),
            text=verdict.text,
            logprobs=() if request.params.logprobs is None else (token,),
            prompt_logprobs=request.take_prompt_logprobs() if first else (),
            finish=finish,
        )

    def _fail(self, request: Request, error: BackendError, now: float) -> TokenChunk:
        """End a request whose next token cannot be computed; its neighbours are unharmed."""
        finish = self._end(request, Outcome.FAILED, FinishReason.ABORT, now)
        finish = replace(finish, problem=error.problem, rule=error.rule)
        return TokenChunk(
            request.request_id, request.choice, text=request.text.finish(), finish=finish
        )

    def _drop_dead(self, now: float) -> None:
        """End what was cancelled or has expired, before it costs another token (law 6)."""
        dead = [r for r in self._in_flight() if r.cancelled or r.expired(now)]
        if not dead:
            return
        for request in dead:
            outcome = Outcome.CANCELLED if request.cancelled else Outcome.EXPIRED
            finish = self._end(request, outcome, FinishReason.ABORT, now)
            self._ended.append(
                TokenChunk(
                    request.request_id, request.choice, text=request.text.finish(), finish=finish
                )
            )
        self._order.drop_ended()
        self._running = [r for r in self._running if not r.ended]

    def _end(
        self,
        request: Request,
        outcome: Outcome,
        reason: FinishReason,
        now: float,
        matched: str | int | None = None,
    ) -> Finish:
        self.kv.forget(request)
        request.ended = True
        self.outcomes[outcome] += 1
        timings = Timings(request.arrived, request.scheduled_at, request.first_token_at, now)
        told = preempted(request)
        return Finish(outcome, reason, timings, matched, request.cached_tokens, preempted=told)

    # -- seen from outside -----------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(len(self._order) or self._running or self._ended)

    @property
    def num_in_flight(self) -> int:
        return len(self._order) + len(self._running)

    def load(self, now: float) -> LoadSnapshot:
        pool, told = self.kv.pool, self.telemetry
        return LoadSnapshot(
            requests_waiting=len(self._order),
            requests_running=len(self._running),
            tokens_waiting=self._order.num_tokens,
            tokens_running=sum(request.num_missing_tokens for request in self._running),
            queues=self._order.queues(self._running, self._estimate(now)),
            kv_block_tokens=self.kv.block_size,
            kv_blocks_total=pool.num_blocks,
            kv_blocks_owned=pool.num_owned,
            kv_blocks_cached=pool.num_cached,
            steps=self.num_steps,
            preemptions=self.num_preemptions,
            prefix_cache_queries=self.kv.num_queried_tokens,
            prefix_cache_hits=self.kv.num_hit_tokens,
            step_seconds=told.seconds,
            predicted_step_seconds=told.predicted_seconds,
            step_error_seconds=told.error_seconds,
            latency=None if told.model == UNMEASURED else told.model,
            told_at=now,
        )

    # -- in time or not --------------------------------------------------------------------------

    def _expected_tokens(self, source: GenerateRequest, now: float) -> int:
        probe = next(Request.choices(source, now, self._new_decoder))
        expected = self.kv.num_expected_tokens(probe)
        self.kv.forget(probe)
        return expected

    def _estimate(self, now: float) -> Estimate:
        return Estimate(optimistic(self.telemetry.model), now)

    def _in_flight(self) -> Iterator[Request]:
        yield from self._running
        yield from self._order

    def __repr__(self) -> str:
        return (
            f"<Scheduler {len(self._running)} running, {len(self._order)} waiting, "
            f"{self.kv.pool!r}>"
        )
