"""Whether a request that arrives can be in time, from all that the engine knows.

`flow.feasibility` has the rule; here are its numbers: the requests ahead, in the order in which they
are served, and what the prefix cache has of the prompt.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf

from salver.contract import Decision, GenerateRequest, LatencyModel, StepShape
from salver.engine.request import Request
from salver.flow import certain_output, drain_seconds, own_seconds, unreachable


def too_late(
    source: GenerateRequest,
    *,
    queue: float,
    cached: Callable[[], int],
    model: LatencyModel,
    now: float,
) -> Decision | None:
    """Why the deadline cannot be met; None admits. `cached` is asked only where it could help."""

    def refusal(hit: int) -> Decision | None:
        own = own_seconds(
            model,
            prompt=len(source.prompt_token_ids),
            cached=hit,
            output=certain_output(source.sampling),
            choices=source.n,
        )
        return unreachable(source.id, queue=queue, own=own, deadline=source.deadline, now=now)

    return refusal(0) and refusal(cached())


def queue_seconds(
    ahead: Iterable[Request], model: LatencyModel, *, hit_share: float, now: float
) -> float:
    """Until the prompts of `ahead` are computed, running requests first.

    Prefix hits of requests that wait are not known yet: `hit_share` of their tokens, as many as so
    far, are taken to be hits. Choices that share their leader's prompt add nothing.
    """

    def work() -> Iterator[tuple[float, float]]:
        for request in ahead:
            until = inf if request.deadline is None else request.deadline - now
            yield (0.0 if request.cancelled else _seconds(request, model, hit_share)), until

    return drain_seconds(work())


def _seconds(request: Request, model: LatencyModel, hit_share: float) -> float:
    if request.leader is not None and not request.leader.ended:
        return 0.0
    first, missing = request.num_computed_tokens, request.num_missing_tokens
    seconds = model.marginal(StepShape.of_tokens(first, missing, 1))
    return seconds if first else seconds * (1 - hit_share)
