"""Whether a request that arrives can be in time, from all that the engine knows.

`flow.feasibility` has the rule; here are its numbers: the requests ahead, in the order in which they
are served, and what the prefix cache has of the prompt.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from salver.contract import Decision, GenerateRequest, LatencyModel, StepShape
from salver.engine.request import Request
from salver.flow import certain_output, drained, own_seconds, unreachable


def too_late(
    source: GenerateRequest,
    *,
    queue: Callable[[], float],
    cached: Callable[[], int],
    model: LatencyModel,
    now: float,
) -> Decision | None:
    """Why the deadline cannot be met; None admits.

    `queue`, in seconds, is asked only where there is a deadline; `cached` only where it could help.
    """
    if source.deadline is None:
        return None
    ahead = queue()

    def refusal(hit: int) -> Decision | None:
        own = own_seconds(
            model,
            prompt=len(source.prompt_token_ids),
            cached=hit,
            output=certain_output(source.sampling),
            choices=source.n,
        )
        return unreachable(source.id, queue=ahead, own=own, deadline=source.deadline, now=now)

    return refusal(0) and refusal(cached())


@dataclass(frozen=True, slots=True)
class Estimate:
    """What times are told from at one instant.

    What several prompts have in common is computed once, for the first of them: those that wait count
    without what they are expected to find (`KVCacheManager.expect`).
    """

    model: LatencyModel
    now: float

    def through(self, at: float, requests: Iterable[Request]) -> float:
        """The instant at which these prompts are computed, if the first is begun `at` an instant."""
        return drained(
            at,
            ((self._seconds(r), inf if r.deadline is None else r.deadline) for r in requests),
        )

    def _seconds(self, request: Request) -> float:
        """Choices that share their leader's prompt add nothing."""
        if request.cancelled or (request.leader is not None and not request.leader.ended):
            return 0.0
        first = request.num_computed_tokens or request.expected_tokens
        return self.model.marginal(StepShape.of_tokens(first, request.num_tokens - first, 1))


class QueueClock:
    """When the prompts of a queue are computed: an instant, kept while nothing else changes it than
    requests that come last.

    Whoever steps or cancels forgets it; whoever asks then hands in the queue, running requests first.
    Those that come last are taken in when somebody asks.
    """

    def __init__(self) -> None:
        self._through: float | None = None
        self._last: list[Request] = []

    def forget(self) -> None:
        """The queue has changed in other ways than by one that came last."""
        self._through = None
        self._last.clear()

    def extend(self, last: Iterable[Request]) -> None:
        """These have come after all others."""
        if self._through is not None:
            self._last.extend(last)

    def seconds(self, queue: Callable[[], Iterable[Request]], estimate: Estimate) -> float:
        """From now until all are through; the queue is gone over only where that is not known."""
        if self._through is None:
            self._through = estimate.through(estimate.now, queue())
        elif self._last:
            self._through = estimate.through(max(estimate.now, self._through), self._last)
            self._last.clear()
        return max(0.0, self._through - estimate.now)
