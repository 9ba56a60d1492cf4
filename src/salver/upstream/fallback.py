"""What answers when the release cannot: one backend after the other, as the contract lists them.

A step is left for the next one only while nothing of its answer was delivered, and only when it
could not take the request: a request that is itself at fault, or out of time, is refused as it is.
Without a static text at the end the chain fails closed, with the refusal of its first step.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from salver.clock import Clock
from salver.contract import (
    Action,
    Backend,
    Cause,
    Decision,
    Finish,
    FinishReason,
    GenerateRequest,
    LoadSnapshot,
    Outcome,
    Timings,
    TokenChunk,
)
from salver.errors import BackendUnavailable, Refused, SalverError
from salver.telemetry import Decided, FellBack, Observer


class StaticAnswer:
    """Answers every request with one text."""

    name = "static"
    ready = True

    def __init__(self, text: str, clock: Clock) -> None:
        self._text = text
        self._clock = clock

    def load(self) -> LoadSnapshot:
        """None."""
        return LoadSnapshot()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """The text, for every choice; no token is counted, since none was computed."""
        now = self._clock.now()
        finish = Finish(Outcome.FINISHED, FinishReason.STOP, Timings(now, None, None, now))
        for choice in range(request.n):
            yield TokenChunk(request.id, choice, text=self._text, finish=finish)


class FallbackChain:
    """A `contract.Backend` over `steps`, the release first. Each fallback leaves a Decision."""

    def __init__(self, steps: Sequence[Backend], observe: Observer) -> None:
        self._steps = tuple(steps)
        self._observe = observe

    @property
    def name(self) -> str:
        return self._steps[0].name

    @property
    def ready(self) -> bool:
        return any(step.ready for step in self._steps)

    def load(self) -> LoadSnapshot:
        """That of the first step that is ready."""
        return next((each for each in self._steps if each.ready), self._steps[0]).load()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """See `contract.Backend.generate`."""
        refusals: list[BackendUnavailable | Refused] = []
        for step in self._steps:
            if refusals:
                self._tell(request, len(refusals), refusals[-1])
            begun = False
            try:
                async with aclosing(step.generate(request)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except (BackendUnavailable, Refused) as error:
                if begun or not _may_fall_back(error):
                    raise
                refusals.append(error)
        raise refusals[0]

    def _tell(self, request: GenerateRequest, index: int, error: SalverError) -> None:
        decision = Decision(
            id=f"dec-{request.id}",
            rule="fallback.order",
            value=index,
            limit=len(self._steps) - 1,
            action=Action.FALL_BACK,
            cause=Cause.SERVER,
            reason=f"{self._steps[index].name!r} is asked instead: {error.problem}",
        )
        self._observe(Decided(decision, request.tenant, request.id))
        self._observe(FellBack(request.tenant, self._steps[index].name))

    def __repr__(self) -> str:
        return f"<FallbackChain {' > '.join(step.name for step in self._steps)}>"


def _may_fall_back(error: BackendUnavailable | Refused) -> bool:
    if isinstance(error, BackendUnavailable):
        return True
    decision = error.decision
    refused = decision.action in (Action.REFUSE, Action.SHED)
    return refused and decision.cause is not Cause.DEADLINE
