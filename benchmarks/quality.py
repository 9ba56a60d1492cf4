"""What each precision costs in answers: agreement with float32 on real text.

    python benchmarks/quality.py TEXT [--model MODEL.gguf] [--tokens 5000] [--only NAME ...]
                                      [--output FILE.json]

TEXT is a plain text file, or a JSONL file of prompts with `turns` (as Spec-Bench has). The text is
cut into windows of 500 tokens; everyone predicts each window's every next token. Against the NumPy
float32 runner on the same file: how often the likeliest token is the same, the mean KL divergence
sum p log(p / q) in nats with p the float32 distribution, and the perplexity on the text.

Who takes part: every native runner of this build; each kind of matrix alone in int8, imitated on the
float32 runner; and llama.cpp's Q8_0 and Q4_0 of the same float32 weights (head in Q8_0, embedding
as it is), quantised by the `gguf` package, bit for bit as llama.cpp does, and computed by the float32
runner with rows in Q8_0: the formats are llama.cpp's, the attention and the sums are ours.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from quality_formats import (
    GGML_Q4_0,
    GGML_Q8_0,
    KINDS,
    W8A8,
    W8A16,
    Floats,
    Format,
    FormatRunner,
)

from salver.engine import ScheduledSequence, SchedulerOutput
from salver.engine.runners.choice import RunnerKind, native_is_built, open_runner
from salver.models import GROUP_KINDS, open_model
from salver.models.checkpoint import Checkpoint

WINDOW, ROWS_AT_ONCE = 500, 50

Predict = Callable[[list[int]], Floats]
"""A window's tokens to the logits after each of them: [tokens, vocab_size]."""


class LogitRunner(Protocol):
    """What the native runner offers beside `execute`."""

    block_size: int

    def forward(self, plan: SchedulerOutput) -> Floats: ...

    def logits(self, rows: range) -> Floats: ...


@dataclass(frozen=True)
class Quality:
    """`top1` is a share, `kl` a mean in nats, `delta` the change of perplexity as a share."""

    name: str
    tokens: int
    top1: float
    kl: float
    perplexity: float
    delta: float


@dataclass
class Tally:
    """Sums over the windows seen so far; `nll` is in nats."""

    tokens: int = 0
    scored: int = 0
    agreed: float = 0.0
    divergence: float = 0.0
    nll: float = 0.0
    reference_nll: float = 0.0

    def add(self, window: list[int], reference: Floats, found: Floats) -> None:
        for start in range(0, len(window), ROWS_AT_ONCE):
            at = slice(start, start + ROWS_AT_ONCE)
            p, q = log_softmax(reference[at]), log_softmax(found[at])
            self.agreed += float((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            self.divergence += float((np.exp(p) * (p - q)).sum(dtype=np.float64))
            targets = window[start + 1 : start + 1 + ROWS_AT_ONCE]
            told = np.arange(len(targets)), targets
            self.nll -= float(q[told].sum())
            self.reference_nll -= float(p[told].sum())
            self.tokens += len(p)
            self.scored += len(targets)

    def read(self, name: str) -> Quality:
        perplexity = math.exp(self.nll / self.scored)
        return Quality(
            name,
            self.tokens,
            self.agreed / self.tokens,
            self.divergence / self.tokens,
            perplexity,
            perplexity / math.exp(self.reference_nll / self.scored) - 1,
        )


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    normal: Floats = shifted - np.log(total).astype(np.float32)
    return normal


def read_text(path: Path) -> str:
    text = path.read_text()
    if path.suffix != ".jsonl":
        return text
    return "\n\n".join(turn for line in text.splitlines() for turn in json.loads(line)["turns"])


def plan(tokens: list[int], block_size: int) -> SchedulerOutput:
    """One window as one step over the pool's first blocks."""
    table = range(-(-len(tokens) // block_size))
    return SchedulerOutput(tokens, [ScheduledSequence("window", 0, len(tokens), 0, table)])


def imitated(runner: FormatRunner, formats: dict[str, Format]) -> Predict:
    def predict(window: list[int]) -> Floats:
        runner.take(formats)
        return runner.logits(runner.forward(plan(window, runner.block_size)))

    return predict


@contextmanager
def native(kind: RunnerKind, checkpoint: Checkpoint, threads: int) -> Iterator[Predict]:
    """One of the core's runners, loaded for as long as it is used."""
    runner: LogitRunner = open_runner(  # type: ignore[assignment]
        kind, checkpoint, num_blocks=64, threads=threads, max_batch_tokens=WINDOW
    )

    def predict(window: list[int]) -> Floats:
        runner.forward(plan(window, runner.block_size))
        return runner.logits(range(len(window)))

    yield predict


def formats_by_name() -> dict[str, dict[str, Format]]:
    """The imitations: int8 for one kind of matrix alone, and llama.cpp's formats for all."""
    alone = {f"{f.name}, {kind} alone": {kind: f} for f in (W8A16, W8A8) for kind in KINDS}
    layers = [kind for kind in KINDS if kind != "head"]
    return alone | {
        "llama.cpp Q8_0": dict.fromkeys(KINDS, GGML_Q8_0),
        "llama.cpp Q4_0": dict.fromkeys(layers, GGML_Q4_0) | {"head": GGML_Q8_0},
    }


class Comparison:
    """The reference's logits of every window, kept, and everyone held against them in turn."""

    def __init__(self, windows: list[list[int]], reference: FormatRunner) -> None:
        self._windows = windows
        predict = imitated(reference, {})
        self._logits = [predict(window) for window in windows]

    def of(self, name: str, predict: Predict) -> Quality:
        tally = Tally()
        for window, logits in zip(self._windows, self._logits, strict=True):
            tally.add(window, logits, predict(window))
        return tally.read(name)


def compare(
    checkpoint: Checkpoint, windows: list[list[int]], only: list[str] | None
) -> Iterator[Quality]:
    threads = len(os.sched_getaffinity(0))
    reference = FormatRunner(checkpoint, num_blocks=-(-WINDOW // 16), threads=threads)
    comparison = Comparison(windows, reference)
    has_groups = not GROUP_KINDS.keys().isdisjoint(checkpoint.formats.values())
    for kind in RunnerKind if native_is_built() else ():
        if kind.precision == "q4" and not has_groups:
            continue
        if kind.is_native and (only is None or kind.value in only):
            with native(kind, checkpoint, threads) as predict:
                yield comparison.of(kind.value, predict)
    for name, formats in formats_by_name().items():
        if only is None or name in only:
            yield comparison.of(name, imitated(reference, formats))


def report(results: list[Quality]) -> str:
    rows = ["| | top-1 | KL, nats | perplexity | delta |", "|---|---|---|---|---|"]
    rows += [
        f"| {r.name} | {r.top1:.2%} | {r.kl:.5f} | {r.perplexity:.3f} | {r.delta:+.2%} |"
        for r in results
    ]
    reference = results[0].perplexity / (1 + results[0].delta)
    return "\n".join([*rows, f"| float32 (NumPy) | | | {reference:.3f} | |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="as the report names them")
    parser.add_argument("--output", type=Path, help="a JSON file; a .md is written beside it")
    options = parser.parse_args()
    model = open_model(options.model)
    text = read_text(options.text)[: options.tokens * 8]
    ids = model.tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    ids = ids[: options.tokens]
    windows = [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
    results = list(compare(model.checkpoint, windows, options.only))
    heading = f"{options.model.name}, {results[0].tokens:,} tokens of {options.text.name}"
    table = f"{heading}\n\n{report(results)}"
    if options.output:
        options.output.write_text(json.dumps([asdict(result) for result in results], indent=2))
        options.output.with_suffix(".md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
