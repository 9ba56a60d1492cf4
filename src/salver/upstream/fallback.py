"""What answers when the release cannot: one backend after the other, as the contract lists them.

A step is left for the next one only while nothing of its answer was delivered, and only when it
could not answer: a request that the release itself finds fault with, or that is out of time, is
refused as it is. What a fallback finds at fault may still suit the next one: it need not be able to
do all that the release can. Without a static text at the end the chain fails closed, with the
refusal of its first step.
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
from salver.errors import BackendLost, BackendUnavailable, Refused, RequestError, SalverError
from salver.telemetry import Decided, FellBack, Observer


class StaticAnswer:
    """Answers every request with one text."""

    name = "static"
    ready = True

    def __init__(self, text: str, clock: Clock) -> None:
        self._text = text
        self._clock = clock

    def check_ready(self, request_id: str) -> None:
        """It always is."""

    def load(self) -> LoadSnapshot:
        """None."""
        return LoadSnapshot()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """The text, for every choice; no token is counted or charged, since none was computed."""
        now = self._clock.now()
        timings = Timings(now, None, None, now)
        finish = Finish(Outcome.FINISHED, FinishReason.STOP, timings, computed=False)
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

    def check_ready(self, request_id: str) -> None:
        """Raises what its first step does while no step is ready."""
        if not self.ready:
            self._steps[0].check_ready(request_id)

    def load(self) -> LoadSnapshot:
        """That of the first step that is ready."""
        return next((each for each in self._steps if each.ready), self._steps[0]).load()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """See `contract.Backend.generate`."""
        refusals: list[SalverError] = []
        for index, step in enumerate(self._steps):
            if refusals:
                self._tell(request, index, refusals[-1])
            begun = False
            try:
                async with aclosing(step.generate(request)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except SalverError as error:
                if begun or not _may_fall_back(error, first=not refusals):
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


def _may_fall_back(error: SalverError, *, first: bool) -> bool:
    match error:
        case BackendUnavailable() | BackendLost():
            return True
        case Refused(decision=decision):
            refused = decision.action in (Action.REFUSE, Action.SHED)
            return refused and decision.cause is not Cause.DEADLINE
        case RequestError():
            return not first
    return False
