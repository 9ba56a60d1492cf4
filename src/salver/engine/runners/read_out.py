"""From the last hidden states to tokens: logits for the rows that need them, a few at a time.

A vocabulary row is large (600 kB for 151,936 tokens), so no more of them exist at once than fit one
row tile, however many prompt log-probabilities a step asks for.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from salver.contract import TokenLogprobs
from salver.engine.plan import ModelRunnerOutput, SampleSpec, ScheduledSequence, SchedulerOutput
from salver.engine.runners.linear import TILE_ROWS, Floats
from salver.engine.sampling import Row, sample, token_logprobs
from salver.errors import BackendError


@dataclass(frozen=True, slots=True)
class PromptTarget:
    """The log-probability of prompt token `token_id` is wanted, with `num_top` alternatives."""

    token_id: int
    num_top: int


@dataclass(frozen=True, slots=True)
class LogitRow:
    """A flat row whose logits are needed, for which sequence, and what for."""

    row: int
    key: str
    purpose: PromptTarget | SampleSpec


def read_out(
    plan: SchedulerOutput, logits_of: Callable[[Sequence[int]], Floats]
) -> ModelRunnerOutput:
    """Sample and score what the plan asks for; `logits_of` gives [rows, vocab_size] of flat rows."""
    rows = _with_logits(wanted_rows(plan), logits_of)
    return collect((wanted, settle(wanted, logits)) for wanted, logits in rows)


def collect(rows: Iterable[tuple[LogitRow, TokenLogprobs | BackendError]]) -> ModelRunnerOutput:
    """What came of every row, by sequence. One whose logits allow no token is reported in `failed`;
    the others are unharmed."""
    sampled: dict[str, TokenLogprobs] = {}
    scored: dict[str, list[TokenLogprobs]] = defaultdict(list)
    failed: dict[str, BackendError] = {}
    for wanted, result in rows:
        if isinstance(result, BackendError):
            failed[wanted.key] = result
        elif isinstance(wanted.purpose, PromptTarget):
            scored[wanted.key].append(result)
        else:
            sampled[wanted.key] = result
    return ModelRunnerOutput(sampled, scored, failed)


def settle(wanted: LogitRow, logits: Row) -> TokenLogprobs | BackendError:
    """What one row of logits gives, by the definition."""
    try:
        match wanted.purpose:
            case PromptTarget(token_id, num_top):
                return token_logprobs(logits, token_id, num_top)
            case SampleSpec() as spec:
                return sample(logits, spec)
    except BackendError as error:
        return error


def _with_logits(
    wanted: Sequence[LogitRow], logits_of: Callable[[Sequence[int]], Floats]
) -> Iterator[tuple[LogitRow, Floats]]:
    for first in range(0, len(wanted), TILE_ROWS):
        tile = wanted[first : first + TILE_ROWS]
        yield from zip(tile, logits_of([logit_row.row for logit_row in tile]), strict=True)


def wanted_rows(plan: SchedulerOutput) -> list[LogitRow]:
    """The rows of a step that need logits."""
    return [row for each in plan.sequences for row in _rows_of(each)]


def _rows_of(sequence: ScheduledSequence) -> Iterator[LogitRow]:
    if sequence.prompt_logprobs is not None:
        for row, token_id in enumerate(sequence.next_prompt_tokens, start=sequence.start):
            yield LogitRow(row, sequence.key, PromptTarget(token_id, sequence.prompt_logprobs))
    if sequence.sample is not None:
        yield LogitRow(sequence.end - 1, sequence.key, sequence.sample)
