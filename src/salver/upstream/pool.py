"""Several servers that serve one release, as one `contract.Backend`.

A request waits in the queue until a replica that may be asked has room for it, and is handed to the
one that knows its prefix best (`flow.replica_choice`). Room is reserved in the same instant, so that
nobody overtakes and nothing is promised twice. If the replica fails it before its first chunk, it is
tried elsewhere while the retry budget lasts; after that chunk it never is, since another answer
would be spliced to the first.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from salver.clock import Clock
from salver.contract import Decision, GenerateRequest, LoadSnapshot, TokenChunk
from salver.errors import BackendUnavailable, Refused
from salver.flow.circuit_breaker import BreakerRule, Ticket
from salver.flow.queue_bound import QueueBound
from salver.flow.replica_choice import PrefixMap, choose, prefixes_of
from salver.flow.retry_budget import RetryBudget
from salver.telemetry import Decided, Observer
from salver.upstream.refusing import RETRY_AFTER_S, expired, unavailable
from salver.upstream.replica import Replica
from salver.upstream.server import UpstreamServer
from salver.upstream.waiting import FirstComeQueue, Queue, Waiter

MOST_TRIES = 3  # of one request (SRE, chapter 21)
RETRY_PAUSE_SECONDS = 0.05  # at most, at random, before the same replica is asked again
LOOK_SECONDS = 1.0  # between two looks at metrics and silence


@dataclass(frozen=True, slots=True)
class PoolRule:
    """How the pool treats its servers; see `contract.Upstreams`."""

    queue: QueueBound
    breaker: BreakerRule = field(default_factory=BreakerRule)
    retries: float = 0.1
    silent_after: float = 30.0


class UpstreamPool:
    """Open from `start` to `close`. `observe` is told of every breaker change."""

    def __init__(
        self,
        name: str,
        servers: Sequence[UpstreamServer],
        rule: PoolRule,
        *,
        clock: Clock,
        observe: Observer,
        entropy: random.Random | None = None,
        queue: Queue | None = None,
    ) -> None:
        self.retries = 0  # since it was opened
        self._name = name
        self._rule = rule
        self._clock = clock
        self._observe = observe
        self._entropy = entropy or random.SystemRandom()
        self._queue: Queue = FirstComeQueue() if queue is None else queue
        self._replicas = {
            server.name: Replica(server, rule.breaker, clock, self._decide) for server in servers
        }
        self._tickets: dict[Waiter, Ticket] = {}
        self._budget = RetryBudget(rule.retries)
        self._prefixes = PrefixMap()
        self._watch: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def ready(self) -> bool:
        return any(replica.open for replica in self._replicas.values())

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """By name, in their declared order."""
        return self._replicas

    async def start(self) -> None:
        """Open the servers and look at their metrics once."""
        for replica in self._replicas.values():
            await replica.server.start()
        await self._look()
        self._watch = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        """Close all connections."""
        if self._watch is not None:
            self._watch.cancel()
        for replica in self._replicas.values():
            await replica.server.close()

    def load(self) -> LoadSnapshot:
        """What is in flight and what waits here."""
        requests, tokens = self._queue.waiting()
        running = sum(replica.requests_in_flight for replica in self._replicas.values())
        return LoadSnapshot(
            requests_waiting=requests, requests_running=running, tokens_waiting=tokens
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """See `contract.Backend.generate`.

        Raises:
            RequestError: as the server says.
            Refused: the queue is full, no server may be asked or has answered, or the deadline
                passed.
            BackendLost: the server was lost in the middle of the answer.
        """
        self._budget.request()
        failed: list[str] = []
        while True:
            begun = False
            try:
                async with aclosing(self._try(request, frozenset(failed))) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except _Failed as failure:
                if begun or not self._may_retry(failure, failed):
                    raise failure.as_told(request) from failure.error
            await self._pause(failed)

    async def _try(
        self, request: GenerateRequest, avoided: frozenset[str]
    ) -> AsyncGenerator[TokenChunk, None]:
        """One replica's answer."""
        waiter = _waiter(request, avoided)
        replica = await self._turn(waiter)
        ticket = self._tickets.pop(waiter)
        try:
            async with aclosing(replica.ask(request, ticket)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BackendUnavailable as error:
            raise _Failed(replica.name, error) from error
        except Refused as error:
            if error.decision.rule == "upstream.busy":
                raise _Failed(replica.name, error) from error
            raise
        finally:
            self._leave(replica, waiter, ticket)

    async def _turn(self, waiter: Waiter) -> Replica:
        """The replica that has room for it, which is reserved."""
        deadline = waiter.request.deadline
        left = None if deadline is None else deadline - self._clock.now()
        try:
            self._queue.push(waiter)
            self._hand_out()
            self._check_bound(waiter)
            async with asyncio.timeout(left):
                return await waiter.turn
        except BaseException as error:
            self._queue.remove(waiter)
            self._return_turn(waiter)
            if isinstance(error, TimeoutError):
                raise expired(waiter.request, self._clock.now()) from None
            raise

    def _check_bound(self, waiter: Waiter) -> None:
        """Raises Refused for one that has to wait where too much waits already."""
        if waiter.turn.done():
            return
        requests, tokens = self._queue.waiting()
        mine = len(waiter.request.prompt_token_ids)
        refusal = self._rule.queue.refusal(
            waiter.request.id, waiting=(requests - 1, tokens - mine), adding=(1, mine)
        )
        if refusal is not None:
            raise Refused(refusal)

    def _hand_out(self) -> None:
        """Give turns to as many as have room, in the queue's order."""
        while (waiter := self._queue.first()) is not None:
            replica = self._choice(waiter)
            if replica is None and any(each.open for each in self._replicas.values()):
                return
            self._queue.remove(waiter)
            if waiter.turn.done():
                continue
            if replica is None:
                waiter.turn.set_exception(Refused(self._nobody(waiter.request)))
                continue
            self._tickets[waiter] = replica.reserve(waiter.tokens)
            self._prefixes.note(waiter.prefixes, replica.name)
            waiter.turn.set_result(replica)

    def _choice(self, waiter: Waiter) -> Replica | None:
        loads = {name: each.load() for name, each in self._replicas.items() if each.open}
        fresh = {name: load for name, load in loads.items() if name not in waiter.avoided}
        matched = self._prefixes.matched(waiter.prefixes)
        chosen = choose(fresh or loads, matched, waiter.tokens)
        return None if chosen is None else self._replicas[chosen]

    def _return_turn(self, waiter: Waiter) -> None:
        """It had a turn and cannot take it."""
        ticket = self._tickets.pop(waiter, None)
        if ticket is None:
            waiter.turn.cancel()
        else:
            self._leave(waiter.turn.result(), waiter, ticket)

    def _leave(self, replica: Replica, waiter: Waiter, ticket: Ticket) -> None:
        replica.give_back(waiter.tokens, ticket)
        self._hand_out()

    def _may_retry(self, failure: "_Failed", failed: list[str]) -> bool:
        """Take a retry from the budget, if this request may have another."""
        failed.append(failure.replica)
        if len(failed) >= MOST_TRIES or not self.ready or not self._budget.take():
            return False
        self.retries += 1
        return True

    async def _pause(self, failed: Sequence[str]) -> None:
        """Come back to a server that just failed a moment later, and not all at once."""
        if all(name in failed for name, each in self._replicas.items() if each.open):
            await asyncio.sleep(self._entropy.uniform(0.0, RETRY_PAUSE_SECONDS))

    def _nobody(self, request: GenerateRequest) -> Decision:
        now = self._clock.now()
        wait = min(each.breaker.retry_after(now) for each in self._replicas.values())
        reason = f"no server of {self._name!r} may be asked: each has failed lately"
        return unavailable(request.id, reason, max(wait, 0.0))

    def _decide(self, decision: Decision, request: GenerateRequest) -> None:
        self._observe(Decided(decision, request.tenant, request.id))

    async def _look(self) -> None:
        await asyncio.gather(*(each.server.look() for each in self._replicas.values()))

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for replica in self._replicas.values():
                replica.server.end_if_silent(self._rule.silent_after)
            await self._look()
            self._hand_out()

    def __repr__(self) -> str:
        return f"<UpstreamPool {self._name} {list(self._replicas.values())}>"


class _Failed(Exception):
    """A replica failed a request that may be tried elsewhere."""

    def __init__(self, replica: str, error: BackendUnavailable | Refused) -> None:
        super().__init__(str(error))
        self.replica = replica
        self.error = error

    def as_told(self, request: GenerateRequest) -> Refused:
        """The refusal that the caller gets when it is not tried again."""
        if isinstance(self.error, Refused):
            return self.error
        return Refused(unavailable(request.id, self.error.problem, RETRY_AFTER_S))


def _waiter(request: GenerateRequest, avoided: frozenset[str]) -> Waiter:
    tokens = len(request.prompt_token_ids) + request.n * request.sampling.max_tokens
    prefixes = prefixes_of(request.cache_salt, request.prompt_token_ids)
    turn = asyncio.get_running_loop().create_future()
    return Waiter(request, tokens, prefixes, turn, avoided)
