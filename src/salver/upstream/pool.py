"""Several servers that serve one release, as one `contract.Backend`.

A request waits (`upstream.waiting`) until a replica that may be asked has room for it, and is handed
to the one that knows its prefix best (`flow.replica_choice`). If the replica fails it before its first
chunk, it is tried elsewhere while the retry budget lasts; after that chunk it never is, since another
answer would be spliced to the first.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from salver.clock import Clock
from salver.contract import Action, Decision, GenerateRequest, LoadSnapshot, TokenChunk
from salver.errors import BackendUnavailable, Refused, UnsupportedField
from salver.flow import retry_after
from salver.flow.circuit_breaker import BreakerRule
from salver.flow.replica_choice import PREFIX_BLOCK_TOKENS, Load, PrefixMap, choose, prefixes_of
from salver.flow.retry_budget import RetryBudget
from salver.flow.waiting import FirstComeQueue, Queue
from salver.telemetry import Observer, UpstreamAsked
from salver.upstream.asking import check_supported
from salver.upstream.ending import Busy
from salver.upstream.refusing import RETRY_AFTER_S, unavailable
from salver.upstream.replica import Replica, Turn
from salver.upstream.server import UpstreamServer
from salver.upstream.waiting import Waiter, WaitingRoom, WaitingRule

log = logging.getLogger(__name__)

MOST_TRIES = 3  # of one request (SRE, chapter 21)
RETRY_PAUSE_SECONDS = 0.05  # at most, at random, before the same replica is asked again
LOOK_SECONDS = 1.0  # between two looks at metrics and silence


@dataclass(frozen=True, slots=True)
class PoolRule:
    """How the pool treats its servers; see `contract.Upstreams`."""

    waiting: WaitingRule
    breaker: BreakerRule = field(default_factory=BreakerRule)
    retries: float = 0.1
    silent_after: float = 30.0
    token_gap: float | None = None  # `slo.tpot_p95`: so many are in flight as leave each that


class UpstreamPool:
    """Open from `start` to `close`. `observe` is told of every call to a server and breaker change."""

    def __init__(
        self,
        name: str,
        servers: Sequence[UpstreamServer],
        rule: PoolRule,
        *,
        clock: Clock,
        observe: Observer,
        entropy: random.Random | None = None,
        queue: Queue[Waiter] | None = None,
    ) -> None:
        self.retries = 0  # since it was opened
        self._events = 0  # likewise
        self._name = name
        self._rule = rule
        self._clock = clock
        self._observe = observe
        self._entropy = entropy or random.SystemRandom()
        self._room = WaitingRoom(
            FirstComeQueue() if queue is None else queue,
            rule.waiting,
            clock=clock,
            draw=self._entropy.random,
            place=self._place,
        )
        self._replicas = {
            server.name: Replica(
                server, rule.breaker, clock, observe, silent_after=rule.silent_after
            )
            for server in servers
        }
        self._budget = RetryBudget(rule.retries)
        self._prefixes = PrefixMap()
        self._watch: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def ready(self) -> bool:
        return any(replica.open for replica in self._replicas.values())

    def check_ready(self, request_id: str) -> None:
        """Raises Refused while no server may be asked."""
        if not self.ready:
            raise Refused(self._nobody(request_id, self._replicas.values()))

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
        """What is in flight and what waits here. An event of an answer counts as a step."""
        requests, tokens = self._room.queue.waiting()
        running = sum(replica.requests_in_flight for replica in self._replicas.values())
        return LoadSnapshot(
            requests_waiting=requests,
            requests_running=running,
            tokens_waiting=tokens,
            steps=self._events,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """See `contract.Backend.generate`.

        Raises:
            UnsupportedField: none of the servers can be asked for it; told before it waits.
            RequestError: as the server says.
            Refused: the queue is full, no server may be asked or has answered, or the deadline
                passed.
            BackendLost: the server was lost in the middle of the answer, or the caller did not read
                on for `silent_after`.
        """
        able, failed = self._able(request), list[str]()
        while True:
            begun = False
            try:
                async with aclosing(self._try(request, able, frozenset(failed))) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                if not failed:
                    self._budget.answered()
                return
            except _Failed as failure:
                if begun or not self._may_retry(failure, failed):
                    raise failure.as_told(request) from failure.error
            await self._pause(failed)

    def _able(self, request: GenerateRequest) -> frozenset[str]:
        """The replicas that can be asked for it.

        Raises:
            UnsupportedField: there are none.
        """
        able, problem = set[str](), None
        for name, replica in self._replicas.items():
            try:
                check_supported(request, replica.server.address)
            except UnsupportedField as error:
                problem = error
            else:
                able.add(name)
        if problem is not None and not able:
            raise problem
        return frozenset(able)

    async def _try(
        self, request: GenerateRequest, able: frozenset[str], avoided: frozenset[str]
    ) -> AsyncGenerator[TokenChunk, None]:
        """One replica's answer."""
        turn = await self._room.turn(self._waiter(request, able, avoided))
        try:
            self._observe(UpstreamAsked(turn.replica.name, again=bool(avoided)))
            async with aclosing(turn.replica.ask(turn)) as chunks:
                async for chunk in chunks:
                    self._events += 1
                    self._room.queue.charge(request, turn.charge_for(chunk))
                    yield chunk
        except (BackendUnavailable, Busy) as error:
            raise _Failed(turn.replica.name, error) from error
        finally:
            self._room.leave(turn)

    def _waiter(
        self, request: GenerateRequest, able: frozenset[str], avoided: frozenset[str]
    ) -> Waiter:
        tokens = len(request.prompt_token_ids) + request.n * request.sampling.max_tokens
        prefixes = prefixes_of(request.cache_salt, request.prompt_token_ids)
        since = self._clock.now() if request.arrived is None else request.arrived
        turn = asyncio.get_running_loop().create_future()
        return Waiter(request, tokens, prefixes, since, turn, able, avoided)

    def _place(self, waiter: Waiter) -> Turn | None:
        """Room at the replica that suits the request best; None if it has to wait.

        Raises:
            Refused: no replica may be asked, or the first token would be too late.
        """
        able = {name: self._replicas[name] for name in self._replicas if name in waiter.able}
        loads = {name: each.load() for name, each in able.items() if each.open}
        if not loads:
            raise Refused(self._nobody(waiter.request.id, able.values()))
        untried = {name: load for name, load in loads.items() if name not in waiter.avoided}
        matched = self._prefixes.matched(waiter.prefixes)
        chosen = choose(self._paced(untried or loads), matched, waiter.tokens)
        if chosen is None:
            return None
        replica = self._replicas[chosen]
        hit = PREFIX_BLOCK_TOKENS * matched.get(chosen, 0)
        fresh = max(1, len(waiter.request.prompt_token_ids) - hit)
        self._check_in_time(waiter, replica, fresh)
        self._prefixes.note(waiter.prefixes, chosen)
        return replica.reserve(waiter.request, tokens=waiter.tokens, fresh=fresh)

    def _paced(self, loads: Mapping[str, Load]) -> Mapping[str, Load]:
        """Those at which one more request does not make the others too slow."""
        gap, replicas = self._rule.token_gap, self._replicas
        return {name: load for name, load in loads.items() if replicas[name].pace.has_place(gap)}

    def _check_in_time(self, waiter: Waiter, replica: Replica, fresh: int) -> None:
        """Raises Refused if the first token would be too late, told high.

        Where a request waits for nobody it is served, however long the gateway took to bring it here.
        """
        bound = self._rule.waiting.first_token
        waits_for_nobody = not waiter.waits and replica.requests_in_flight == 0
        if bound is None or waiter.was_sent or waits_for_nobody:
            return
        queue, own = replica.pace.first_tokens.told_high(replica.pace.unanswered, fresh)
        late = bound.broken(
            waiter.request.id,
            wait=self._clock.now() - waiter.since + queue,
            own=own,
            action=Action.SHED if waiter.waits else Action.REFUSE,
            retry_after=retry_after(0.0, self._entropy.random),
        )
        if late is not None:
            raise Refused(late)

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

    def _nobody(self, request_id: str, able: Iterable[Replica]) -> Decision:
        now = self._clock.now()
        wait = min(each.breaker.retry_after(now) for each in able)
        reason = f"no server of {self._name!r} may be asked: each has failed lately"
        return unavailable(request_id, reason, max(wait, 0.0))

    async def _look(self) -> None:
        await asyncio.gather(*(each.server.look() for each in self._replicas.values()))

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look_after()
            except Exception:
                log.exception("the servers of %r could not be looked after; going on", self._name)

    async def _look_after(self) -> None:
        """End what hangs, learn from the metrics, and give the room that there is."""
        for replica in self._replicas.values():
            for turn in replica.end_stuck():
                self._room.leave(turn)
        await self._look()
        self._room.hand_out()

    def __repr__(self) -> str:
        return f"<UpstreamPool {self._name} {list(self._replicas.values())}>"


class _Failed(Exception):
    """A replica failed a request that may be tried elsewhere."""

    def __init__(self, replica: str, error: BackendUnavailable | Busy) -> None:
        super().__init__(str(error))
        self.replica = replica
        self.error = error

    def as_told(self, request: GenerateRequest) -> Refused:
        """The refusal that the caller gets when it is not tried again."""
        if isinstance(self.error, Busy):
            return self.error
        return Refused(unavailable(request.id, self.error.problem, RETRY_AFTER_S))
