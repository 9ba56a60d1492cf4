"""Steps by hand, for tests of a runner without a scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass

from salver.engine.plan import SampleSpec, ScheduledSequence, SchedulerOutput


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive tokens of one sequence, see `ScheduledSequence`."""

    key: str
    tokens: Sequence[int]
    first_position: int
    block_table: Sequence[int]
    sample: SampleSpec | None = None
    prompt_logprobs: int | None = None
    next_prompt_tokens: Sequence[int] = ()


def lay_out(pieces: Sequence[Piece]) -> SchedulerOutput:
    """The step that computes these pieces, end to end in this order."""
    token_ids: list[int] = []
    sequences = []
    for piece in pieces:
        start = len(token_ids)
        token_ids += piece.tokens
        sequences.append(
            ScheduledSequence(
                piece.key,
                start,
                len(token_ids),
                piece.first_position,
                piece.block_table,
                piece.sample,
                piece.prompt_logprobs,
                piece.next_prompt_tokens,
            )
        )
    return SchedulerOutput(token_ids, sequences)
