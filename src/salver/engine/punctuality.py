"""Whether a request that arrives can be in time, from all that the engine knows.

`flow.feasibility` has the rule; here are its numbers: the requests ahead, in the order in which they
are served, and what the prefix cache has of the prompt.
"""

from collections.abc import Callable, Iterable
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


class QueueClock:
    """When the prompts of all in flight are computed: an instant, kept while nothing else changes it
    than requests that come last.

    Whoever steps or cancels forgets it; whoever asks then hands in all in flight, running ones first.
    Prefix hits of requests that wait are not known yet: `hit_share` of their tokens, as many as so
    far, are taken to be hits. Choices that share their leader's prompt add nothing.
    """

    def __init__(self) -> None:
        self._through: float | None = None

    def forget(self) -> None:
        """What is in flight has changed in other ways than by one that came last."""
        self._through = None

    def seconds(
        self,
        in_flight: Callable[[], Iterable[Request]],
        model: LatencyModel,
        *,
        hit_share: float,
        now: float,
    ) -> float:
        """From now until all are through; the queue is gone over only where that is not known."""
        if self._through is None:
            self._through = _drained(now, in_flight(), model, hit_share)
        return max(0.0, self._through - now)

    def extend(
        self, last: Iterable[Request], model: LatencyModel, *, hit_share: float, now: float
    ) -> None:
        """These have come after all others."""
        if self._through is not None:
            self._through = _drained(max(now, self._through), last, model, hit_share)


def _drained(
    at: float, requests: Iterable[Request], model: LatencyModel, hit_share: float
) -> float:
    return drained(
        at,
        (
            (_seconds(each, model, hit_share), inf if each.deadline is None else each.deadline)
            for each in requests
        ),
    )


def _seconds(request: Request, model: LatencyModel, hit_share: float) -> float:
    if request.cancelled or (request.leader is not None and not request.leader.ended):
        return 0.0
    first, missing = request.num_computed_tokens, request.num_missing_tokens
    seconds = model.marginal(StepShape.of_tokens(first, missing, 1))
    return seconds if first else seconds * (1 - hit_share)
