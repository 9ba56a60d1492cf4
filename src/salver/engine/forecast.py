"""Whether an objective can be kept at the declared concurrency, before a request is served.

A contract promises percentiles of traffic that nobody has seen; what is known is the machine, as its
LatencyModel. So an objective is held against both ends of what `max_running` sequences at once can
ask of a step. The least: contexts of one token, with costs that a step hardly ever stays below. The
most: every context as long as it may be, as far as the KV pool reaches, beside a prompt's least
progress, with costs that a step hardly ever goes beyond. Between them it depends on the traffic.

Waiting in the queue is left out on both sides: it is a matter of how many arrive, not of the machine.
Prompts are cut by the step budget that serves (law 13).
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf

from salver.contract import LatencyModel, StepShape
from salver.engine.step_budget import StepBudget, prompt_seconds
from salver.flow import optimistic, pessimistic


class Verdict(StrEnum):
    """What a forecast says of its objective."""

    KEPT = "kept"
    DEPENDS = "depends on the traffic"
    BROKEN = "cannot be kept"


@dataclass(frozen=True, slots=True)
class Forecast:
    """One objective, with the least and the most that it can come to; all in seconds."""

    objective: str
    limit: float
    least: float
    most: float

    @property
    def verdict(self) -> Verdict:
        if self.most <= self.limit:
            return Verdict.KEPT
        return Verdict.BROKEN if self.least > self.limit else Verdict.DEPENDS


@dataclass(frozen=True, slots=True)
class Concurrency:
    """What is declared to run at once; `kv_tokens` is the pool, `block_size` a prompt's least
    progress in a step. All but `running` in tokens."""

    running: int
    batch_tokens: int
    context_tokens: int
    kv_tokens: int
    block_size: int

    def decodes(self, sequences: int, *, full: bool) -> StepShape:
        """One token of each sequence; with contexts of one token, or of all that there is room for."""
        attended = min(sequences * self.context_tokens, self.kv_tokens) if full else sequences
        return StepShape(sequences, attended, sequences)

    def rounds(self, tokens: int) -> int:
        """Steps that it takes until each of so many sequences had its token."""
        return max(1, ceil(tokens / self.batch_tokens))


def forecast_tpot(model: LatencyModel, at_once: Concurrency, limit: float) -> Forecast:
    """The time per output token of a request among `running`."""
    rounds = at_once.rounds(at_once.running)
    progress = StepShape.of_tokens(
        max(0, at_once.context_tokens - at_once.block_size), at_once.block_size, 1
    )
    few, many = optimistic(model), pessimistic(model)
    least = rounds * few.base + few.marginal(at_once.decodes(at_once.running, full=False))
    most = rounds * many.base + many.marginal(at_once.decodes(at_once.running, full=True))
    return Forecast("slo.tpot_p95", limit, least, most + many.marginal(progress))


def forecast_ttft(
    model: LatencyModel, at_once: Concurrency, limit: float, tpot: float | None
) -> Forecast:
    """The time to the first token of a request that starts beside `running` - 1 others.

    The most is a prompt as long as the context, which arrives when a step has just begun; `tpot` is
    what its chunks leave the others.
    """
    others = min(at_once.running, at_once.batch_tokens) - 1
    few, many = optimistic(model), pessimistic(model)
    least = few.predict(at_once.decodes(others + 1, full=False))
    beside = at_once.decodes(others, full=True)
    begun = many.predict(at_once.decodes(others + 1, full=True))
    prefill = _prefill(many, at_once, beside, ttft=limit, tpot=tpot)
    return Forecast("slo.ttft_p95", limit, least, begun + prefill)


def _prefill(
    model: LatencyModel,
    at_once: Concurrency,
    beside: StepShape,
    *,
    ttft: float,
    tpot: float | None,
) -> float:
    """Seconds of the steps that compute a prompt of a whole context beside decodes."""
    seconds, first, prompt = 0.0, 0, at_once.context_tokens
    own = model.predict(beside)
    slack = inf if tpot is None else tpot - own
    tokens, block = at_once.batch_tokens, at_once.block_size
    seconds_each = min(slack, prompt_seconds(model, tokens, block, own, ttft))
    while first < prompt:
        budget = StepBudget(model, tokens, beside.tokens, seconds_each, progress=block)
        count = budget.take(first, prompt - first)
        chunk = StepShape.of_tokens(first, count, int(first + count == prompt))
        seconds += own + model.marginal(chunk)
        first += count
    return seconds
