"""From the last hidden states to tokens: logits for the rows that need them, a few at a time.

A vocabulary row is large (600 kB for 151,936 tokens), so no more of them exist at once than fit one
row tile, however many prompt log-probabilities a step asks for.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from salver.contract import TokenLogprobs
from salver.engine.plan import ModelRunnerOutput, SampleSpec, ScheduledSequence, SchedulerOutput
from salver.engine.runners.linear import TILE_ROWS, Floats
from salver.engine.sampling import sample, token_logprobs
from salver.errors import BackendError

NOTHING_DRAWN: Mapping[str, TokenLogprobs] = MappingProxyType({})


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
    plan: SchedulerOutput,
    logits_of: Callable[[Sequence[int]], Floats],
    *,
    drawn: Mapping[str, TokenLogprobs] = NOTHING_DRAWN,
) -> ModelRunnerOutput:
    """Sample and score what the plan asks for; `logits_of` gives [rows, vocab_size] of flat rows.

    Sequences in `drawn` have their sample already; it is passed on. A sequence whose logits allow no
    token is reported in `failed`; the others are unharmed.
    """
    sampled = dict(drawn)
    scored: dict[str, list[TokenLogprobs]] = defaultdict(list)
    failed: dict[str, BackendError] = {}
    for wanted, logits in _with_logits(_wanted_rows(plan, drawn), logits_of):
        try:
            match wanted.purpose:
                case PromptTarget(token_id, num_top):
                    scored[wanted.key].append(token_logprobs(logits, token_id, num_top))
                case SampleSpec() as spec:
                    sampled[wanted.key] = sample(logits, spec)
        except BackendError as error:
            failed[wanted.key] = error
    return ModelRunnerOutput(sampled, scored, failed)


def _with_logits(
    wanted: Sequence[LogitRow], logits_of: Callable[[Sequence[int]], Floats]
) -> Iterator[tuple[LogitRow, Floats]]:
    for first in range(0, len(wanted), TILE_ROWS):
        tile = wanted[first : first + TILE_ROWS]
        yield from zip(tile, logits_of([logit_row.row for logit_row in tile]), strict=True)


def _wanted_rows(plan: SchedulerOutput, drawn: Container[str]) -> list[LogitRow]:
    return [row for each in plan.sequences for row in _rows_of(each, each.key in drawn)]


def _rows_of(sequence: ScheduledSequence, drawn: bool) -> Iterator[LogitRow]:
    if sequence.prompt_logprobs is not None:
        for row, token_id in enumerate(sequence.next_prompt_tokens, start=sequence.start):
            yield LogitRow(row, sequence.key, PromptTarget(token_id, sequence.prompt_logprobs))
    if sequence.sample is not None and not drawn:
        yield LogitRow(sequence.end - 1, sequence.key, sequence.sample)
