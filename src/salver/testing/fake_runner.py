"""A model runner whose model is a hash.

It keeps a real KV pool, addressed by real block tables, but what it stores per token is a hash
chained over everything before it, and what it samples is a function of *all* the entries that the
block table leads to. A wrong table, an overwritten shared block, a stale prefix hit or a token
computed at the wrong position therefore changes its output, as it would a real model's.
"""

from collections.abc import Sequence
from hashlib import blake2b

from salver.contract import SamplingParams, TokenLogprobs
from salver.engine.plan import (
    ModelRunnerOutput,
    SampleSpec,
    ScheduledSequence,
    SchedulerOutput,
)


class FakeRunner:
    """A `ModelRunner` over token ids [0, vocab_size). Deterministic, instant, and exact."""

    def __init__(self, num_blocks: int = 64, block_size: int = 4, vocab_size: int = 97) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.vocab_size = vocab_size
        self.num_computed_tokens = 0  # over the runner's life
        self._kv: dict[tuple[int, int], int] = {}

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        sampled: dict[str, TokenLogprobs] = {}
        prompt_logprobs: dict[str, list[TokenLogprobs]] = {}
        for sequence in plan.sequences:
            states = self._run(sequence, plan.token_ids[sequence.start : sequence.end])
            if sequence.sample is not None:
                sampled[sequence.key] = self._sample(self._context(sequence), sequence.sample)
            if sequence.prompt_logprobs is not None:
                pairs = zip(states, sequence.next_prompt_tokens, strict=False)
                prompt_logprobs[sequence.key] = [
                    _logprobs(state, token, sequence.prompt_logprobs) for state, token in pairs
                ]
        self.num_computed_tokens += plan.num_tokens
        return ModelRunnerOutput(sampled, prompt_logprobs)

    def alone(self, prompt: Sequence[int], params: SamplingParams, seed: int = 0) -> list[int]:
        """The oracle: the `max_tokens` tokens that follow `prompt` when nothing else is running."""
        output: list[int] = []
        states: list[int] = []
        for token in prompt:
            states.append(_mix(states[-1] if states else 0, token, len(states)))
        for _ in range(params.max_tokens):
            spec = SampleSpec(params, seed, prompt, output)
            output.append(self._sample(states, spec).token_id)
            states.append(_mix(states[-1], output[-1], len(states)))
        return output

    def _run(self, sequence: ScheduledSequence, token_ids: Sequence[int]) -> list[int]:
        states = []
        for position, token in enumerate(token_ids, start=sequence.first_position):
            before = self._kv[self._slot(sequence, position - 1)] if position else 0
            self._kv[self._slot(sequence, position)] = _mix(before, token, position)
            states.append(self._kv[self._slot(sequence, position)])
        return states

    def _context(self, sequence: ScheduledSequence) -> list[int]:
        return [self._kv[self._slot(sequence, p)] for p in range(sequence.context_length)]

    def _slot(self, sequence: ScheduledSequence, position: int) -> tuple[int, int]:
        return sequence.block_table[position // self.block_size], position % self.block_size

    def _sample(self, context: Sequence[int], spec: SampleSpec) -> TokenLogprobs:
        draw = _mix(spec.seed, len(spec.output)) if spec.params.temperature else 0
        state = _mix(draw, *context)
        token = state % self.vocab_size
        while token in spec.banned:
            token = (token + 1) % self.vocab_size
        return _logprobs(state, token, spec.params.logprobs or 0)


def _logprobs(state: int, token: int, alternatives: int) -> TokenLogprobs:
    logprob = -(state % 1000) / 100
    return TokenLogprobs(token, logprob, tuple((token, logprob) for _ in range(alternatives)))


def _mix(*numbers: int) -> int:
    data = b"".join(number.to_bytes(8, "little") for number in numbers)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
