"""What `salver doctor` measures: the machine's rates, and a model's engine against them.

A machine's speed changes while one looks, so the two sides of a share are measured in turn: in every
round of a load the machine reads and multiplies, and then the engine runs, each for about as long.
A share is the median over the rounds.

It needs the native core, by which everything is measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import median
from typing import Any, Self

from salver.cli import console
from salver.cli.home import forced_isa
from salver.clock import MonotonicClock
from salver.contract import Envelope
from salver.engine import EngineCore, Limits, MemoryPlan
from salver.engine.roofline import Bound, Load, ModelWork, Roof, Work
from salver.engine.runners import rates
from salver.engine.runners.choice import RunnerKind, open_runner
from salver.engine.trial import Silent, Trial
from salver.flow import QueueBound
from salver.models import Checkpoint

DECODES = (1, 8, 32)
PREFILLS = 8
PROMPT_TOKENS, DECODE_PROMPT_TOKENS = 128, 32
NEW_TOKENS = 64
ROUNDS = 5  # of one load, after one that touches memory for the first time
ROUND_SECONDS = 0.1  # of each measurement in a round


@dataclass(frozen=True, slots=True)
class Rates:
    """In bytes and in operations per second; on `threads` threads where no number is named."""

    isa: str
    threads: int
    read_by_one: float
    read: float
    int8: float
    bf16: float

    @classmethod
    def measure(cls, threads: int) -> "Rates":
        """Takes about two seconds; means over them."""
        isa = rates.isa_in_use(forced_isa())
        return cls(
            isa=isa,
            threads=threads,
            read_by_one=rates.read_rate(1),
            read=rates.read_rate(threads),
            int8=rates.matrix_rate("int8", threads, isa=isa),
            bf16=rates.matrix_rate("bf16", threads, isa=isa),
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is to be run with all that an envelope gives it."""

    checkpoint: Checkpoint
    kind: RunnerKind
    envelope: Envelope
    plan: MemoryPlan


@dataclass(frozen=True, slots=True)
class Round:
    """What the machine did, how many tokens per second that allows a load, and what the engine
    reached right after it."""

    roof: Roof
    most: float
    reached: float

    @property
    def share(self) -> float:
        return self.reached / self.most


@dataclass(frozen=True, slots=True)
class Reached:
    """One load: what its steps stream and multiply in all, and which bound holds. The rest are
    medians over the rounds, each by itself: the median share is that of pairs."""

    load: Load
    streamed_bytes: float
    operations: float
    roof: Roof
    bound: Bound
    most: float
    reached: float
    share: float

    @classmethod
    def of(cls, load: Load, steps: Sequence[Work], rounds: Sequence[Round]) -> Self:
        roof = Roof(
            bandwidth=median(each.roof.bandwidth for each in rounds),
            matrix_rate=median(each.roof.matrix_rate for each in rounds),
        )
        return cls(
            load=load,
            streamed_bytes=sum(step.streamed_bytes for step in steps),
            operations=sum(step.operations for step in steps),
            roof=roof,
            bound=roof.bound(steps),
            most=median(each.most for each in rounds),
            reached=median(each.reached for each in rounds),
            share=median(each.share for each in rounds),
        )

    def record(self) -> dict[str, Any]:
        """For a program."""
        return {
            "name": self.load.name,
            **asdict(self.load),
            "streamed_bytes": self.streamed_bytes,
            "operations": self.operations,
            **asdict(self.roof),
            "tokens_per_second_at_most": self.most,
            "tokens_per_second_reached": self.reached,
            "share": self.share,
            "bound": self.bound,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """On the envelope's threads."""

    kind: RunnerKind
    threads: int
    weights_bytes: int
    points: tuple[Reached, ...]

    def record(self) -> dict[str, Any]:
        """For a program; rates are in bytes, operations and tokens per second."""
        return {
            "runner": self.kind,
            "threads": self.threads,
            "weights_bytes_per_step": self.weights_bytes,
            "rounds": ROUNDS,
            "points": [each.record() for each in self.points],
        }


def compare(subject: Subject) -> Comparison:
    """Measure the machine and run the model, in turn: some seconds.

    Raises:
        MalformedModel: a tensor is absent or cannot be decoded.
    """
    model = ModelWork.of(subject.checkpoint.config, subject.kind, subject.plan)
    trial = _trial(subject)
    points = (_reached(load, model, trial, subject) for load in loads(subject))
    return Comparison(
        subject.kind, subject.envelope.threads, model.weights_bytes, tuple(filter(None, points))
    )


def loads(subject: Subject) -> list[Load]:
    """Those that the envelope has room for, their prompts no longer than half its context."""
    half = max(subject.envelope.max_context_tokens // 2, 1)
    listed = [Load(each, min(DECODE_PROMPT_TOKENS, half), decoding=True) for each in DECODES]
    listed.append(Load(PREFILLS, min(PROMPT_TOKENS, half), decoding=False))
    return [load for load in listed if _has_room(load, subject)]


def _has_room(load: Load, subject: Subject) -> bool:
    plan, tokens = subject.plan, load.prompt_tokens + _new_tokens(load, subject)
    blocks = load.sequences * -(-tokens // plan.block_size)
    return load.sequences <= subject.envelope.max_running and blocks <= plan.num_blocks


def _new_tokens(load: Load, subject: Subject) -> int:
    """Of each sequence: the first is none of decoding."""
    left = subject.envelope.max_context_tokens - load.prompt_tokens
    return min(NEW_TOKENS, left) if load.decoding else 1


def _reached(load: Load, model: ModelWork, trial: Trial, subject: Subject) -> Reached | None:
    """None where the envelope's steps are too small for this load, see `Trial.decode_rate`."""
    steps = list(model.steps(load, subject.envelope.max_batch_tokens))
    rounds = []
    for _ in range(1 + ROUNDS):
        roof = _roof(steps, subject)
        reached = _rate(load, trial, subject)
        if reached is None:
            return None
        rounds.append(Round(roof, load.tokens / sum(map(roof.seconds, steps)), reached))
    return Reached.of(load, steps, rounds[1:])


def _roof(steps: Sequence[Work], subject: Subject) -> Roof:
    """What the machine does now, its bandwidth over as many bytes as a step streams: caches hold a
    part of few."""
    threads = subject.envelope.threads
    streamed = int(max(step.streamed_bytes for step in steps))
    products = "bf16" if subject.kind.precision == "bf16" else "int8"
    return Roof(
        bandwidth=rates.read_rate(
            threads, min(streamed, rates.MEMORY_BYTES), seconds=ROUND_SECONDS
        ),
        matrix_rate=rates.matrix_rate(products, threads, isa=forced_isa(), seconds=ROUND_SECONDS),
    )


def _rate(load: Load, trial: Trial, subject: Subject) -> float | None:
    if load.decoding:
        return trial.decode_rate(load.sequences, load.prompt_tokens, _new_tokens(load, subject))
    return trial.prefill_rate(load.sequences, load.prompt_tokens)


def _trial(subject: Subject) -> Trial:
    """The engine as a worker has it, but for text, and random prompts for it."""
    envelope, clock = subject.envelope, MonotonicClock()
    runner = open_runner(
        subject.kind,
        subject.checkpoint,
        num_blocks=subject.plan.num_blocks,
        threads=envelope.threads,
        max_batch_tokens=envelope.max_batch_tokens,
        isa=forced_isa(),
    )
    engine = EngineCore.build(
        runner,
        clock,
        Limits(envelope.max_running, envelope.max_batch_tokens, envelope.max_context_tokens),
        QueueBound(max(DECODES), max(DECODES) * PROMPT_TOKENS),
        frozenset(),
        lambda _: Silent(),
    )
    random = Random(0)  # noqa: S311 - prompts, not secrets
    vocabulary = range(subject.checkpoint.config.vocab_size)

    def new_prompts(sequences: int, tokens: int) -> list[tuple[int, ...]]:
        return [tuple(random.choices(vocabulary, k=tokens)) for _ in range(sequences)]

    return Trial(engine, clock, new_prompts, seconds=ROUND_SECONDS)


def rates_rows(rates: Rates) -> list[tuple[str, ...]]:
    """For a person."""
    threads = f"on {rates.threads} threads"
    return [
        ("native path", rates.isa),
        ("read bandwidth", f"{gb(rates.read)} {threads}, {gb(rates.read_by_one)} on one"),
        ("int8 products", f"{gop(rates.int8)} {threads}"),
        ("bf16 products", f"{gop(rates.bf16)} {threads}"),
    ]


def comparison_text(comparison: Comparison) -> str:
    """For a person."""
    rows: list[tuple[str, ...]] = [
        ("tokens/s", "reading at", "products at", "at most", "reached", "share", "held by")
    ]
    for each in comparison.points:
        machine = (gb(each.roof.bandwidth), gop(each.roof.matrix_rate))
        tokens = (f"{each.most:,.0f}", f"{each.reached:,.0f}", f"{each.share:.0%}")
        rows.append((each.load.name, *machine, *tokens, each.bound))
    return (
        f"roofline of {comparison.kind} on {comparison.threads} threads: "
        f"{console.size(comparison.weights_bytes)} of weights a step; medians of {ROUNDS} rounds, "
        f"machine and engine in turn\n{console.table(rows)}"
    )


def gb(rate: float) -> str:
    return f"{rate / 1e9:.1f} GB/s"


def gop(rate: float) -> str:
    return f"{rate / 1e9:,.0f} Gop/s"
