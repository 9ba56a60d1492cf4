"""One server of a pool: what it holds, whether it may be asked, and what its calls say of it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from salver.clock import Clock
from salver.contract import Action, Cause, Decision, GenerateRequest, TokenChunk
from salver.errors import BackendError, SalverError
from salver.flow.circuit_breaker import BreakerRule, CircuitBreaker, Ticket
from salver.flow.replica_choice import Load
from salver.upstream.address import DEFAULT_TOKENS_IN_FLIGHT
from salver.upstream.server import UpstreamServer

Decide = Callable[[Decision, GenerateRequest], None]


class Replica:
    """Counts its tokens in flight and keeps its breaker. `decide` is told of each breaker change."""

    def __init__(
        self, server: UpstreamServer, rule: BreakerRule, clock: Clock, decide: Decide
    ) -> None:
        self.server = server
        self.breaker = CircuitBreaker(rule)
        self.tokens_in_flight = 0
        self.requests_in_flight = 0
        self._clock = clock
        self._decide = decide

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def open(self) -> bool:
        """Whether a request may go out now."""
        return self.server.ready and self.breaker.lets_through(self._clock.now())

    def load(self) -> Load:
        """What is in flight, and what may be: as declared, else as its metrics say."""
        declared = self.server.address.max_tokens_in_flight
        limit = declared or self.server.facts.kv_tokens or DEFAULT_TOKENS_IN_FLIGHT
        return Load(self.tokens_in_flight, limit)

    def reserve(self, tokens: int) -> Ticket:
        """Take room for a request that goes out now; `give_back` it."""
        self.tokens_in_flight += tokens
        self.requests_in_flight += 1
        self.breaker, ticket = self.breaker.send(self._clock.now())
        return ticket

    def give_back(self, tokens: int, ticket: Ticket) -> None:
        """The request is over, or never went out."""
        self.tokens_in_flight -= tokens
        self.requests_in_flight -= 1
        self.breaker = self.breaker.give_up(ticket)  # nothing, if its end was told

    async def ask(
        self, request: GenerateRequest, ticket: Ticket
    ) -> AsyncGenerator[TokenChunk, None]:
        """The server's answer; how it ends is told to the breaker.

        A refusal for the request's own sake is an answer too: the server is there.
        """
        try:
            async with aclosing(self.server.generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BackendError as error:
            self._failed(ticket, request, error)
            raise
        except SalverError as error:
            if not _expired(error):
                self._succeeded(ticket, request)
            raise
        self._succeeded(ticket, request)

    def _succeeded(self, ticket: Ticket, request: GenerateRequest) -> None:
        before, self.breaker = self.breaker, self.breaker.succeed(ticket)
        if before.opened is not None and self.breaker.opened is None:
            self._tell(request, Action.USE_AGAIN, before, "a trial was answered: it is used again")

    def _failed(self, ticket: Ticket, request: GenerateRequest, error: BackendError) -> None:
        now = self._clock.now()
        before, self.breaker = self.breaker, self.breaker.fail(ticket, now)
        if self.breaker.opened is not None and self.breaker.epoch != before.epoch:
            reason = f"left alone for {self.breaker.wait:g} s: {error.problem}"
            self._tell(request, Action.LEAVE_ALONE, before, reason)

    def _tell(
        self, request: GenerateRequest, action: Action, before: CircuitBreaker, reason: str
    ) -> None:
        decision = Decision(
            id=f"dec-{self.name}-{self.breaker.epoch}",
            rule="upstreams.breaker_failures",
            value=before.failed + (action is Action.LEAVE_ALONE),
            limit=before.rule.failures,
            action=action,
            cause=Cause.SERVER,
            reason=f"the upstream {self.name!r} is {reason}"
            if action is Action.LEAVE_ALONE
            else f"the upstream {self.name!r}: {reason}",
        )
        self._decide(decision, request)

    def __repr__(self) -> str:
        state = self.breaker.state(self._clock.now())
        return f"<Replica {self.name} {state} {self.requests_in_flight} in flight>"


def _expired(error: SalverError) -> bool:
    decision = getattr(error, "decision", None)
    return isinstance(decision, Decision) and decision.action is Action.EXPIRE
