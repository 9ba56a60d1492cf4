"""How fast a machine could run a model at most, and what would hold it back.

A step streams its weights and keys from memory and multiplies them. Whatever it does besides, it
cannot end before the slower of the two is done:

    seconds >= max(bytes / bandwidth, operations / rate)

which is the roofline (Williams, Waterman and Patterson, 2009). It is a bound, not an estimate: bytes
and operations are the fewest that the runner's formats allow. Rates are what the machine did right
before the run that is held against them, since machines change their speed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from salver.engine.memory import MemoryPlan
from salver.engine.runners.choice import RunnerKind
from salver.models.config import ModelConfig

EMBEDDING_BYTES = (
    2  # per number: the core keeps the embedding in bf16, and reads a token's row of it
)


class Bound(StrEnum):
    """What a step waits for."""

    BANDWIDTH = "bandwidth"
    MATRIX_RATE = "matrix rate"


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do at least. A multiply and an add are two operations."""

    streamed_bytes: float
    operations: float


@dataclass(frozen=True, slots=True)
class Roof:
    """What the machine can do: `bandwidth` in bytes, `matrix_rate` in operations per second."""

    bandwidth: float
    matrix_rate: float

    def seconds(self, work: Work) -> float:
        return max(work.streamed_bytes / self.bandwidth, work.operations / self.matrix_rate)

    def bound(self, steps: Iterable[Work]) -> Bound:
        """What most of these steps' time goes to; bandwidth where both are alike."""
        streaming = computing = 0.0
        for work in steps:
            streaming += work.streamed_bytes / self.bandwidth
            computing += work.operations / self.matrix_rate
        return Bound.BANDWIDTH if streaming >= computing else Bound.MATRIX_RATE


@dataclass(frozen=True, slots=True)
class Load:
    """`sequences` prompts of `prompt_tokens`, all of them decoding (one token each a step), or
    being read."""

    sequences: int
    prompt_tokens: int
    decoding: bool

    @property
    def name(self) -> str:
        if self.decoding:
            return f"decode at {self.sequences}"
        return f"prefill {self.sequences} x {self.prompt_tokens}"

    @property
    def tokens(self) -> int:
        """Tokens that count: one per sequence and step, or all of the prompts."""
        return self.sequences if self.decoding else self.sequences * self.prompt_tokens


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What a model asks of every step.

    `weights_bytes` are streamed once a step. `layers` and `head` count weights, which every token,
    and every token that is followed by another, meets `passes` times: a `w8a16` row is two rows of
    bytes. `kv_bytes` are those of one token.
    """

    weights_bytes: int
    layers: int
    head: int
    passes: int
    kv_bytes: float
    attended: int  # operations per token and key that it sees
    window: int | None = None

    @classmethod
    def of(cls, config: ModelConfig, kind: RunnerKind, plan: MemoryPlan) -> Self:
        """Of a model with a native runner, whose memory was planned."""
        table = config.vocab_size * config.hidden_size
        tables = 1 if config.tie_embeddings else 2
        return cls(
            weights_bytes=plan.weights_bytes - EMBEDDING_BYTES * table,
            layers=config.num_parameters - tables * table,
            head=table,
            passes=2 if kind.precision == "w8a16" or kind.kv_cache == "f32" else 1,
            kv_bytes=plan.block_bytes / plan.block_size,
            attended=4 * config.num_layers * config.num_heads * config.head_dim,
            window=config.sliding_window,
        )

    def steps(self, load: Load, max_batch_tokens: int) -> Iterator[Work]:
        """The steps that the load takes, with at most so many tokens in each; one, if it decodes."""
        if load.decoding:
            yield self.step(load.sequences, load.sequences, load.prompt_tokens)
            return
        length, done = load.prompt_tokens, 0
        while done < load.tokens:
            end = min(done + max_batch_tokens, load.tokens)
            yield self.step(end - done, end // length - done // length, (length + 1) / 2)
            done = end

    def step(self, tokens: int, logits_rows: int, context: float) -> Work:
        """A step of `tokens`, each of which sees `context` keys.

        Keys are streamed for those sequences alone that come to a logits row: tokens of one
        sequence share theirs.
        """
        seen = min(context, self.window or context)
        products = self.passes * (self.layers * tokens + self.head * logits_rows)
        return Work(
            streamed_bytes=self.weights_bytes + self.kv_bytes * logits_rows * seen,
            operations=2 * products + self.attended * tokens * seen,
        )
