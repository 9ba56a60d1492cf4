"""Whether a request can still be answered by its deadline; one that cannot is refused at once.

The estimate errs towards yes, so that what is refused really had no chance. It counts what an answer
is certain to need: the prompt's tokens that no prefix hit saves, the output tokens before which
nothing can end it, and the queue it stands in. Costs are taken off by twice the model's own error,
and by a fifth at least; a model that is off by half therefore refuses nobody. Whatever else may
happen, such as other requests' decodes, is left out: it can only make the answer later.
"""

from collections.abc import Iterable

from salver.contract import (
    Action,
    Cause,
    Decision,
    LatencyModel,
    LoadSnapshot,
    SamplingParams,
    StepShape,
)

LEAST_DOUBT = 0.2


def optimistic(model: LatencyModel) -> LatencyModel:
    """Costs that a step hardly ever stays below."""
    return model.scaled(max(0.0, 1 - doubt(model)))


def pessimistic(model: LatencyModel) -> LatencyModel:
    """Costs that a step hardly ever goes beyond."""
    return model.scaled(1 + doubt(model))


def doubt(model: LatencyModel) -> float:
    """By which share of itself a prediction may be off."""
    return max(LEAST_DOUBT, 2 * model.error)


def certain_output(params: SamplingParams) -> int:
    """Tokens that every choice will have, whatever the model says."""
    may_stop = not params.ignore_eos or params.stop or params.stop_token_ids
    return max(1, min(params.min_tokens, params.max_tokens)) if may_stop else params.max_tokens


def own_seconds(
    model: LatencyModel, *, prompt: int, cached: int = 0, output: int = 1, choices: int = 1
) -> float:
    """From the first step to the last token of a request that is alone.

    `prompt` tokens of which `cached` need no computing, then `output` tokens of each choice: as many
    steps, the first of which computes the prompt.
    """
    answer = model.marginal(StepShape.of_tokens(prompt, output - 1, output - 1))
    asked = model.marginal(StepShape.of_tokens(cached, prompt - cached, choices))
    return output * model.base + asked + choices * answer


def drained(at: float, work: Iterable[tuple[float, float]]) -> float:
    """The instant at which a queue is through that is begun `at` an instant.

    `work` has each request's seconds and the instant of its deadline, in order. One that reaches its
    deadline is dropped there, and takes no more time. A queue may be drained in pieces: each begins
    where the one before was through.
    """
    for seconds, deadline in work:
        at = max(at, min(at + seconds, deadline))
    return at


def least_own_seconds(load: LoadSnapshot, *, prompt: int, output: int, choices: int) -> float:
    """`own_seconds` as far as a backend's load tells: any token may be a hit that it keeps, or will have
    computed by then."""
    if load.latency is None:
        return 0.0
    kept = (load.kv_blocks_owned + load.kv_blocks_cached) * load.kv_block_tokens
    coming = load.tokens_waiting + load.tokens_running
    cached = min(kept + coming, max(0, prompt - 1))
    model = optimistic(load.latency)
    return own_seconds(model, prompt=prompt, cached=cached, output=output, choices=choices)


def unreachable(
    request_id: str, *, queue: float, own: float, deadline: float | None, now: float
) -> Decision | None:
    """Hold the earliest possible end, `queue` and `own` seconds from now, against the deadline.

    None admits. Where the queue alone is too long, it is worth coming back when it is shorter.
    """
    if deadline is None or (earliest := queue + own) <= (left := deadline - now):
        return None
    return Decision(
        id=f"dec-{request_id}",
        rule="admission.reachable_deadline_s",
        value=earliest,
        limit=left,
        action=Action.REFUSE,
        cause=Cause.DEADLINE,
        reason=f"the answer would be there in {earliest:.3f} s at the earliest, of which "
        f"{queue:.3f} s in the queue, and the deadline is in {left:.3f} s",
        retry_after=earliest - left if own <= left else None,
    )
