"""One server of a pool: what it holds, whether it may be asked, and what its calls say of it."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from salver.clock import Clock
from salver.contract import Action, Cause, Decision, GenerateRequest, TokenChunk
from salver.errors import SalverError
from salver.flow.circuit_breaker import BreakerRule, CircuitBreaker, Ticket
from salver.flow.fairness import DECODE_CHARGE, PREFILL_CHARGE
from salver.flow.replica_choice import Load
from salver.flow.server_pace import Flight, ServerPace
from salver.telemetry import BreakerChanged, Decided, Observer
from salver.upstream.address import DEFAULT_TOKENS_IN_FLIGHT
from salver.upstream.ending import Ending, ending_of
from salver.upstream.server import UpstreamServer


@dataclass(slots=True, eq=False)
class Turn:
    """A request on its way to a replica: the room reserved for it, and what it is charged."""

    replica: "Replica"
    ticket: Ticket
    request: GenerateRequest
    tokens: int  # reserved
    charged: int  # of its prompt: at first what the replica is not expected to have cached
    flight: Flight
    delivered: float | None = None  # since when its caller has a chunk; None: it awaits one

    def charge_for_prompt(self) -> float:
        """In prompt tokens, when it is sent."""
        return PREFILL_CHARGE * self.charged

    def charge_for(self, chunk: TokenChunk) -> float:
        """For what has come; with the end, for what was not cached after all."""
        charge = DECODE_CHARGE * chunk.num_tokens
        if chunk.finish is not None:
            computed = len(self.request.prompt_token_ids) - chunk.finish.cached_tokens
            charge += PREFILL_CHARGE * max(0, computed - self.charged)
            self.charged = max(self.charged, computed)
        return charge


class Replica:
    """Counts its tokens in flight and keeps its breaker. `observe` is told of each breaker change.

    `silent_after` is in seconds: see `contract.Upstreams`.
    """

    def __init__(
        self,
        server: UpstreamServer,
        rule: BreakerRule,
        clock: Clock,
        observe: Observer,
        *,
        silent_after: float,
    ) -> None:
        self.server = server
        self.breaker = CircuitBreaker(rule)
        self.tokens_in_flight = 0
        self.pace = ServerPace(clock.now())
        self._clock = clock
        self._observe = observe
        self._silent_after = silent_after
        self._run = secrets.token_hex(4)  # epochs begin anew with each process
        self._turns: set[Turn] = set()  # whose room is reserved

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def requests_in_flight(self) -> int:
        return self.pace.requests

    @property
    def open(self) -> bool:
        """Whether a request may go out now."""
        return self.server.ready and self.breaker.lets_through(self._clock.now())

    def load(self) -> Load:
        """What is in flight, and what may be: as declared, else as its metrics say."""
        declared = self.server.address.max_tokens_in_flight
        limit = declared or self.server.facts.kv_tokens or DEFAULT_TOKENS_IN_FLIGHT
        return Load(self.tokens_in_flight, limit)

    def reserve(self, request: GenerateRequest, *, tokens: int, fresh: int) -> Turn:
        """Take room for a request that goes out now; `give_back` it."""
        now = self._clock.now()
        self.breaker, ticket = self.breaker.send(now)
        self.tokens_in_flight += tokens
        flight = self.pace.send(fresh, request.n, now)
        turn = Turn(self, ticket, request, tokens, fresh, flight)
        self._turns.add(turn)
        return turn

    def give_back(self, turn: Turn) -> bool:
        """The request is over, or never went out. Returns whether its room was still reserved."""
        if turn not in self._turns:
            return False
        self._turns.remove(turn)
        self.tokens_in_flight -= turn.tokens
        self.pace.end(turn.flight, self._clock.now())
        self.breaker = self.breaker.give_up(turn.ticket)  # nothing, if its end was told
        return True

    def end_stuck(self) -> tuple[Turn, ...]:
        """End what hangs, and what its callers do not read; returns the turns of these."""
        self.server.end_if_silent(self._silent_after)
        latest = self._clock.now() - self._silent_after
        unread = tuple(
            turn for turn in self._turns if turn.delivered is not None and turn.delivered <= latest
        )
        for turn in unread:
            self.server.give_up(turn.request)
        return unread

    async def ask(self, turn: Turn) -> AsyncGenerator[TokenChunk, None]:
        """The server's answer; what its end says of the server is told to the breaker."""
        try:
            async with aclosing(self.server.generate(turn.request)) as chunks:
                async for chunk in chunks:
                    turn.delivered = self._clock.now()
                    if turn in self._turns:
                        self.pace.arrive(turn.flight, chunk.num_tokens, turn.delivered)
                    yield chunk
                    turn.delivered = None
        except SalverError as error:
            match ending_of(error):
                case Ending.ANSWERED:
                    self._succeeded(turn)
                case Ending.FAILED:
                    self._failed(turn, error.problem)
                case Ending.SILENT:
                    self._judge_silence(turn)
            raise
        self._succeeded(turn)

    def _judge_silence(self, turn: Turn) -> None:
        """A deadline came before any byte: a hint each, which together are failures.

        A trial has to show that the server is back, so its own silence is enough, if it lasted:
        deadlines are the callers', and one that is too short for any server shows nothing.
        """
        enough = min(self._silent_after, self.breaker.rule.first_wait)
        if self.server.silence.judge(enough if turn.ticket.trial else self._silent_after, enough):
            self._failed(turn, "it sends nothing before its requests' deadlines")

    def _succeeded(self, turn: Turn) -> None:
        before, self.breaker = self.breaker, self.breaker.succeed(turn.ticket)
        if before.opened is not None and self.breaker.opened is None:
            reason = "a trial was answered: it is used again"
            self._tell(turn.request, Action.USE_AGAIN, before, reason)

    def _failed(self, turn: Turn, problem: str) -> None:
        now = self._clock.now()
        before, self.breaker = self.breaker, self.breaker.fail(turn.ticket, now)
        if self.breaker.opened is not None and self.breaker.epoch != before.epoch:
            reason = f"left alone for {self.breaker.wait:g} s: {problem}"
            self._tell(turn.request, Action.LEAVE_ALONE, before, reason)

    def _tell(
        self, request: GenerateRequest, action: Action, before: CircuitBreaker, reason: str
    ) -> None:
        decision = Decision(
            id=f"dec-{self.name}-{self._run}-{self.breaker.epoch}",
            rule="upstreams.breaker_failures",
            value=before.failed + (action is Action.LEAVE_ALONE),
            limit=before.rule.failures,
            action=action,
            cause=Cause.SERVER,
            reason=f"the upstream {self.name!r} is {reason}"
            if action is Action.LEAVE_ALONE
            else f"the upstream {self.name!r}: {reason}",
        )
        self._observe(Decided(decision, request.tenant, request.id))
        self._observe(BreakerChanged(self.name, opened=action is Action.LEAVE_ALONE))

    def __repr__(self) -> str:
        state = self.breaker.state(self._clock.now())
        return f"<Replica {self.name} {state} {self.pace}>"
