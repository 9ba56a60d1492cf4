"""One call's way through the backend: fan out, deliver, account, and end exactly once.

A call is a batch of GenerateRequests that lives and dies together: they run side by side, the
first to fail cancels the others, and cancelling the call closes every generator. Chunks are pushed
to one `deliver`, which writes them to a stream or gathers them; while it waits for a slow reader,
nothing more is taken from the backend.

The backend keeps the deadline, at a step boundary. The timeout here only catches a backend that
does not, and a reader so slow that the answer outlives its deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from salver.clock import Clock
from salver.contract import (
    Action,
    Backend,
    Cause,
    Decision,
    Finish,
    GenerateRequest,
    Outcome,
    TokenChunk,
)
from salver.errors import BackendError, BackendLost, BackendUnavailable, Refused
from salver.gateway.arrival import Arrival
from salver.gateway.ids import Ids
from salver.gateway.tenancy import Charge, Quotas, quota_headers
from salver.gateway.wire.usage import PromptTokensDetails, Usage
from salver.telemetry import Decided, Observer, RequestEnded, Stopwatch

DEADLINE_GRACE_SECONDS = 1.0  # for the backend's own answer to a passed deadline to arrive

Deliver = Callable[[int, TokenChunk], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """`requests` in the order of the caller's prompts; `id` names the call and its answer."""

    endpoint: str
    requests: tuple[GenerateRequest, ...]
    arrival: Arrival
    id: str

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(len(request.prompt_token_ids) for request in self.requests)

    @property
    def most_tokens(self) -> int:
        """The most that it can use: every prompt once, and every choice to its end."""
        output = sum(request.n * request.sampling.max_tokens for request in self.requests)
        return self.prompt_tokens + output


class Calls:
    """Runs calls against one backend, each within its tenant's quota."""

    def __init__(
        self, backend: Backend, quotas: Quotas, *, clock: Clock, ids: Ids, observe: Observer
    ) -> None:
        self._backend = backend
        self._quotas = quotas
        self._clock = clock
        self._ids = ids
        self._observe = observe

    def check_alone(self, arrival: Arrival, tokens: int) -> None:
        """Refuses what is over its tenant's quota by itself, before any work is spent on it.

        Raises:
            Refused: a call of at least so many tokens can never be admitted.
        """
        self._quotas.check_alone(arrival.request_id, arrival.caller.tenant, tokens)

    async def run(self, call: Call, deliver: Deliver) -> Usage:
        """Deliver every chunk of every request as (index into `requests`, chunk).

        Returns when each choice has finished.

        Raises:
            Refused: by the tenant's quota or the backend, or because the deadline passed; by then
                chunks may be delivered.
            StateUnavailable: the quota cannot be checked, and fails closed.
            BackendUnavailable: nothing was delivered for that request.
            BackendLost: the backend died, gave up, or ended a stream early.
        """
        charge = Charge(call.id, call.arrival.caller.tenant, call.most_tokens)
        async with self._quotas.hold(charge, lambda s: call.arrival.told.update(quota_headers(s))):
            tallies = [_Tally(call.arrival, request) for request in call.requests]
            try:
                await self._pumped(call, tallies, deliver)
            finally:
                charge.used = sum(tally.used for tally in tallies)
        return _usage(tallies)

    async def _pumped(self, call: Call, tallies: "Sequence[_Tally]", deliver: Deliver) -> None:
        pumps = [self._pump(call, i, tally, deliver) for i, tally in enumerate(tallies)]
        remaining = max(0.0, call.arrival.deadline - self._clock.now())
        try:
            async with asyncio.timeout(remaining + DEADLINE_GRACE_SECONDS) as limit:
                await _all_or_none(pumps)
        except TimeoutError:
            if limit.expired():
                raise self._expired(call) from None
            raise

    async def _pump(self, call: Call, index: int, tally: "_Tally", deliver: Deliver) -> None:
        """Carry one request's chunks; its outcome is observed however it ends."""
        try:
            async with aclosing(self._backend.generate(tally.request)) as chunks:
                async for chunk in chunks:
                    tally.add(chunk, self._clock.now())
                    self._note(call, tally, chunk.finish)
                    self._check(call, chunk.finish)
                    await deliver(index, chunk)
            tally.check_complete()
        except BaseException as error:
            self._ended(call, tally, self._outcome(call, error))
            raise
        self._ended(call, tally, Outcome.FINISHED)

    def _note(self, call: Call, tally: "_Tally", finish: Finish | None) -> None:
        """Keep the Decision that was taken on a choice while it ran."""
        if finish and finish.preempted:
            self._observe(Decided(finish.preempted, tally.request.tenant, call.arrival.request_id))

    def _check(self, call: Call, finish: Finish | None) -> None:
        """Turn an end that is not an answer into its error."""
        if finish is None or finish.outcome is Outcome.FINISHED:
            return
        if finish.outcome is Outcome.EXPIRED:
            raise self._expired(call)
        if finish.outcome is Outcome.FAILED:
            raise BackendError(finish.problem, rule=finish.rule)
        raise BackendLost("the backend gave the request up", rule="backend.outcome")

    def _expired(self, call: Call) -> Refused:
        decision = Decision(
            id=self._ids.call("dec"),
            rule="request.deadline_seconds",
            value=round(self._clock.now() - call.arrival.arrived, 3),
            limit=round(call.arrival.deadline - call.arrival.arrived, 3),
            action=Action.EXPIRE,
            cause=Cause.DEADLINE,
            reason="the deadline passed before the answer was complete",
        )
        return Refused(decision)

    def _outcome(self, call: Call, error: BaseException) -> Outcome | None:
        """None for a request that was never accepted."""
        match error:
            case Refused():
                expired = error.decision.action is Action.EXPIRE
                return Outcome.EXPIRED if expired else None
            case BackendUnavailable():
                return None
            case asyncio.CancelledError():
                late = self._clock.now() >= call.arrival.deadline
                return Outcome.EXPIRED if late else Outcome.CANCELLED
            case _:
                return Outcome.FAILED

    def _ended(self, call: Call, tally: "_Tally", outcome: Outcome | None) -> None:
        tally.accepted = outcome is not None
        if outcome is not None:
            self._observe(tally.ended(call.endpoint, outcome, self._clock.now()))


class _Tally:
    """What one request has produced so far."""

    def __init__(self, arrival: Arrival, request: GenerateRequest) -> None:
        self.request = request
        self.accepted = True
        self.output_tokens = 0
        self._stopwatch = Stopwatch(arrival.arrived)
        self._finishes: list[Finish] = []

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def used(self) -> int:
        """What counts against a quota: nothing, if no backend computed anything of the request."""
        computed = self.accepted and all(finish.computed for finish in self._finishes)
        return self.prompt_tokens + self.output_tokens if computed else 0

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, as its first choice met it: later choices share the first one's blocks."""
        return min((finish.cached_tokens for finish in self._finishes), default=0)

    def add(self, chunk: TokenChunk, now: float) -> None:
        self.output_tokens += chunk.num_tokens
        self._stopwatch.tokens(chunk.choice, chunk.num_tokens, now)
        if chunk.finish is not None:
            self._finishes.append(chunk.finish)

    def check_complete(self) -> None:
        if len(self._finishes) < self.request.n:
            raise BackendLost("the backend ended a stream early", rule="backend.complete")

    def ended(self, endpoint: str, outcome: Outcome, now: float) -> RequestEnded:
        return RequestEnded(
            endpoint=endpoint,
            outcome=outcome,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            latencies=self._stopwatch.read(now),
            timings=tuple(finish.timings for finish in self._finishes),
            reasons=tuple(finish.reason for finish in self._finishes),
            tenant=self.request.tenant,
        )


def _usage(tallies: Sequence[_Tally]) -> Usage:
    prompt = sum(tally.prompt_tokens for tally in tallies)
    output = sum(tally.output_tokens for tally in tallies)
    cached = sum(tally.cached_tokens for tally in tallies)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )


async def _all_or_none(work: Sequence[Coroutine[object, object, None]]) -> None:
    """Run all to their ends; the first to fail cancels the others and is raised as it is."""
    if len(work) == 1:
        await work[0]
        return
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
