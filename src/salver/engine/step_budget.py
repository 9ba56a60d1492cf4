"""How many tokens a step may hold: the batch's bound, and the time that the running decodes have.

A promise of `tpot` seconds per token dates every token after the first. TPOT is (E2E - TTFT) /
(tokens - 1), so a request that has drawn n tokens keeps its promise if the next one is there by
`first_token_at + n * tpot`. The earliest of these instants, less now, is the step's slack. A promise
that cannot be kept any more, not even if no prompt came, dates nothing: it would hold up every prompt
for the sake of what is lost, and those would be late too.

The rule: every running request that is one token behind is in the step, whatever the time. Prompts
get the most tokens whose predicted cost the slack still covers, and never fewer than one block of
tokens a step in all, so that no prompt starves behind decodes that are just in time.

Who comes while a step runs waits for its end, so a step is bounded even where nobody decodes: prompts
may cost what a batch full of fresh ones does (late in a long context the same tokens cost many times
that), and where a time to first token is promised, no more than leaves the step at a part of it.
"""

from bisect import bisect_right
from collections.abc import Iterable
from math import ceil, inf

from salver.contract import LatencyModel, StepShape
from salver.contract.latency import EMPTY_STEP
from salver.engine.request import Request
from salver.flow import doubt

AFTER_OTHERS = 0.5  # of a step's time, for prompts that are less urgent than the first in it
STEP_OF_TTFT = 0.25  # of the promised time to first token, which a step may take


class StepBudget:
    """What is left of one step. Owned by the step that is being scheduled.

    Args:
        model: predicts the step.
        tokens: the most the step may hold.
        decodes: of them, the places kept for running requests that are one token behind.
        seconds: what prompts may take; infinite where nothing was promised.
        progress: prompt tokens that are in the step however little time there is.
        predicted: seconds that the step takes without prompts.
    """

    def __init__(
        self,
        model: LatencyModel,
        tokens: int,
        decodes: int,
        seconds: float,
        progress: int,
        predicted: float = 0.0,
    ) -> None:
        self.tokens = tokens
        self._model = model
        self._decodes = decodes
        self._seconds = seconds
        self._progress = progress
        self._predicted = predicted  # without the prompts that come after others
        self._alone = predicted
        self._slack, self._least, self._most = seconds, progress, tokens - decodes
        self._after_others = 0.0

    @classmethod
    def of_step(
        cls,
        protected: Iterable[Request],
        now: float,
        *,
        model: LatencyModel,
        tokens: int,
        ttft: float | None,
        tpot: float | None,
        progress: int,
    ) -> "StepBudget":
        """The budget of a step that begins now, before anything is chosen.

        `protected` are the running requests whose next token is due whatever comes; `ttft` and `tpot`
        the times that are promised.
        """
        decodes = [request for request in protected if request.num_missing_tokens == 1]
        shape = sum((StepShape.of_tokens(r.num_computed_tokens, 1, 1) for r in decodes), EMPTY_STEP)
        alone, slack = model.predict(shape), inf
        if tpot is not None:
            slack = min((_due(r, tpot, now, alone) for r in decodes), default=inf) - now
        seconds = min(slack - alone, prompt_seconds(model, tokens, progress, alone, ttft))
        return cls(model, tokens, len(decodes), seconds, progress, alone)

    def take_one(self) -> int:
        """The token of a running request that is one behind; 0 where the step is full."""
        count = min(1, self.tokens)
        self.tokens -= count
        self._decodes = max(0, self._decodes - count)
        return count

    def give_back(self, count: int) -> None:
        """Tokens of the step that will not be computed after all."""
        self.tokens += count

    def take(self, first: int, missing: int, *, after_others: bool = False) -> int:
        """The most of a prompt's `missing` tokens, from position `first`, that the step may hold."""
        count = self.offer(first, missing, after_others=after_others)
        self.spend(first, missing, count, after_others=after_others)
        return count

    def offer(self, first: int, missing: int, *, after_others: bool = False) -> int:
        """What `take` would give. `after_others`: a more urgent prompt is in the step, which must not
        become longer by more than AFTER_OTHERS for all that are less urgent."""
        most = max(0, min(missing, self.tokens - self._decodes))
        sure = min(most, self._progress)

        def cost(count: int) -> float:
            return self._cost(first, missing, count)

        more = range(sure + 1, most + 1)
        seconds = self._seconds
        if after_others:
            seconds = min(seconds, AFTER_OTHERS * self._predicted - self._after_others)
        return sure + bisect_right(more, seconds, key=cost)

    def until_first_token(
        self, first: int, missing: int, count: int, *, after_others: bool = False
    ) -> float:
        """Seconds, if a prompt of which `count` tokens are offered begins now, and this step and the
        next ones become as long as they may: others fill what it leaves. Errs towards long.

        Where it stays `after_others`, its part of such a step is the AFTER_OTHERS of the rest.
        """
        cost = self._cost(first, missing, missing)
        slack = max(0.0, self._slack)
        share = slack
        if after_others:
            share = min(slack, AFTER_OTHERS / (1 + AFTER_OTHERS) * (self._alone + slack))
        in_time = missing if cost <= share else int(missing * share / cost)
        pace = max(1, self._least, min(self._most, in_time))
        prompts = min(slack, cost * self._most / missing)
        steps = 1 + ceil((missing - count) / pace)
        return steps * (self._alone + prompts) * (1 + doubt(self._model))

    def spend(self, first: int, missing: int, count: int, *, after_others: bool = False) -> None:
        """Put what was offered into the step."""
        self.tokens -= count
        self._progress = max(0, self._progress - count)
        cost = self._cost(first, missing, count)
        self._seconds -= cost
        if after_others:
            self._after_others += cost
        else:
            self._predicted += cost

    def _cost(self, first: int, missing: int, count: int) -> float:
        return self._model.marginal(StepShape.of_tokens(first, count, int(count == missing)))


def prompt_seconds(
    model: LatencyModel, tokens: int, progress: int, alone: float, ttft: float | None
) -> float:
    """What the prompts of a step may take whoever decodes, so that nobody waits long for its end.

    `alone` are the seconds of the step without them: half of a step is theirs, whatever `ttft` says.
    """
    fresh = StepShape(tokens, tokens * (tokens + 1) // 2, logit_rows=ceil(tokens / progress))
    most = model.marginal(fresh)
    return most if ttft is None else min(most, max(alone, STEP_OF_TTFT * ttft - alone))


def _due(request: Request, tpot: float, now: float, alone: float) -> float:
    """The instant by which the next token keeps the promise. Infinite before the first token; and
    where neither that token nor the last possible one can be in time, if steps take `alone` seconds."""
    if request.first_token_at is None:
        return inf
    drawn, most = len(request.output), request.params.max_tokens
    following, last = (request.first_token_at + n * tpot for n in (drawn, most - 1))
    lost = now + alone > following and now + (most - drawn) * alone > last
    return inf if lost else following
