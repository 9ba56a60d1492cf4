"""What `salver doctor` measures: the machine's rates, and a model's engine against them.

It needs the native core, by which everything is measured.
"""

from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from salver.cli import console
from salver.cli.home import forced_isa
from salver.clock import MonotonicClock
from salver.contract import Envelope
from salver.engine import EngineCore, Limits, MemoryPlan
from salver.engine.roofline import Bound, Load, ModelWork, Roof
from salver.engine.runners import rates
from salver.engine.runners.choice import RunnerKind, open_runner
from salver.engine.trial import Silent, Trial
from salver.flow import QueueBound
from salver.models import Checkpoint

DECODES = (1, 8, 32)
PREFILLS = 8
PROMPT_TOKENS, DECODE_PROMPT_TOKENS = 128, 32
NEW_TOKENS = 64
TRIAL_SECONDS = 0.5  # of one load


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
        """Takes about two seconds."""
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
class Reached:
    """One load: what its steps stream and multiply in all, how many tokens per second the roof
    allows, which bound holds, and what the engine reached."""

    load: Load
    streamed_bytes: float
    operations: float
    most: float
    bound: Bound
    reached: float

    @property
    def share(self) -> float:
        return self.reached / self.most

    def record(self) -> dict[str, Any]:
        """For a program."""
        return {
            "name": self.load.name,
            **asdict(self.load),
            "streamed_bytes": self.streamed_bytes,
            "operations": self.operations,
            "tokens_per_second_at_most": self.most,
            "tokens_per_second_reached": self.reached,
            "share": self.share,
            "bound": self.bound,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """`roof` is that of the envelope's threads, its bandwidth over as many bytes as are streamed."""

    kind: RunnerKind
    threads: int
    weights_bytes: int
    roof: Roof
    points: tuple[Reached, ...]

    def record(self) -> dict[str, Any]:
        """For a program; rates are in bytes, operations and tokens per second."""
        return {
            "runner": self.kind,
            "threads": self.threads,
            "weights_bytes_per_step": self.weights_bytes,
            **asdict(self.roof),
            "points": [each.record() for each in self.points],
        }


def compare(subject: Subject) -> Comparison:
    """Measure the roof over a model, then run the model itself: some seconds.

    Raises:
        MalformedModel: a tensor is absent or cannot be decoded.
    """
    kind, threads = subject.kind, subject.envelope.threads
    model = ModelWork.of(subject.checkpoint.config, kind, subject.plan)
    products = "bf16" if kind.precision == "bf16" else "int8"
    roof = Roof(
        bandwidth=rates.read_rate(threads, model.weights_bytes),
        matrix_rate=rates.matrix_rate(products, threads, isa=forced_isa()),
    )
    trial = _trial(subject)
    points = (_reached(load, model, roof, trial, subject) for load in loads(subject))
    return Comparison(kind, threads, model.weights_bytes, roof, tuple(filter(None, points)))


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


def _reached(
    load: Load, model: ModelWork, roof: Roof, trial: Trial, subject: Subject
) -> Reached | None:
    """None where the envelope's steps are too small for this load, see `Trial.decode_rate`."""
    steps = list(model.steps(load, subject.envelope.max_batch_tokens))
    if load.decoding:
        new_tokens = _new_tokens(load, subject)
        decoded = trial.decode_rate(load.sequences, load.prompt_tokens, new_tokens)
        if decoded is None:
            return None
        reached = decoded
    else:
        reached = trial.prefill_rate(load.sequences, load.prompt_tokens)
    return Reached(
        load=load,
        streamed_bytes=sum(step.streamed_bytes for step in steps),
        operations=sum(step.operations for step in steps),
        most=load.tokens / sum(map(roof.seconds, steps)),
        bound=roof.bound(steps),
        reached=reached,
    )


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

    return Trial(engine, clock, new_prompts, seconds=TRIAL_SECONDS)


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
    roof = comparison.roof
    rows: list[tuple[str, ...]] = [("tokens/s", "at most", "reached", "share", "held by")]
    for each in comparison.points:
        rates = (f"{each.most:,.0f}", f"{each.reached:,.0f}", f"{each.share:.0%}")
        rows.append((each.load.name, *rates, each.bound))
    return (
        f"roofline of {comparison.kind} on {comparison.threads} threads: "
        f"{console.size(comparison.weights_bytes)} of weights a step, "
        f"read at {gb(roof.bandwidth)}; products at {gop(roof.matrix_rate)}\n{console.table(rows)}"
    )


def gb(rate: float) -> str:
    return f"{rate / 1e9:.1f} GB/s"


def gop(rate: float) -> str:
    return f"{rate / 1e9:,.0f} Gop/s"
