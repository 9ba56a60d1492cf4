"""The boundary between the scheduler and whatever runs the model.

The scheduler says what to compute (`SchedulerOutput`), the runner says what came out
(`ModelRunnerOutput`). Neither sees the other's state: the runner keeps nothing between steps but
the KV pool, which it addresses by block id and slot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from salver.contract import SamplingParams, TokenLogprobs
from salver.errors import BackendError


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """How to draw the next token of one sequence.

    `prompt` and `output` are the scheduler's own lists, the same two in all steps of a sequence, and
    grow only at the end: read them during a step, and never change them. The draw is a function of (`seed`, `len(output)`) alone, so that it does not
    depend on the batch (law 3). `banned` token ids get probability zero.
    """

    params: SamplingParams
    seed: int
    prompt: Sequence[int]
    output: Sequence[int]
    banned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """One sequence's share of a step.

    Its tokens are the flat interval [start, end); they sit at absolute positions
    [first_position, first_position + end - start). Token at position p lives in the KV pool at
    block `block_table[p // block_size]`, slot `p % block_size`. The table also covers every earlier
    position, whose KV is already there.

    `sample` is None while the sequence has not caught up. `prompt_logprobs`, when not None, asks for
    the log-probabilities of the *next* prompt token (with that many alternatives) after each of
    this interval's tokens that has a next prompt token.
    """

    key: str
    start: int
    end: int
    first_position: int
    block_table: Sequence[int]
    sample: SampleSpec | None = None
    prompt_logprobs: int | None = None
    next_prompt_tokens: Sequence[int] = ()  # the targets of prompt_logprobs, one per row, in order
    deadline: float | None = None

    @property
    def context_length(self) -> int:
        """Tokens whose KV exists after this step."""
        return self.first_position + self.end - self.start


@dataclass(frozen=True, slots=True)
class SchedulerOutput:
    """One step: every chosen sequence's tokens laid end to end."""

    token_ids: Sequence[int] = ()
    sequences: Sequence[ScheduledSequence] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class ModelRunnerOutput:
    """What a step produced, by sequence key.

    A sequence in `failed` is not in `sampled`: its logits were not finite, or every token was
    banned. It must end there; no other sequence is harmed.
    """

    sampled: Mapping[str, TokenLogprobs] = field(default_factory=dict)
    prompt_logprobs: Mapping[str, Sequence[TokenLogprobs]] = field(default_factory=dict)
    failed: Mapping[str, BackendError] = field(default_factory=dict)


class ModelRunner(Protocol):
    """Runs the model over one step's tokens and draws the next ones."""

    @property
    def block_size(self) -> int:
        """Tokens per KV block."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks in the KV pool; ids are [0, num_blocks)."""
        ...

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        """Compute the plan's tokens, write their KV, and sample where a sequence asks for it.

        `logprob` and `top` of a sampled token need only be filled in when its params ask for them;
        otherwise `logprob` is 0.0.
        """
        ...
