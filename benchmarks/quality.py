"""What each precision and KV cache cost in answers: agreement with float32 on real text.

    python benchmarks/quality.py TEXT [--model MODEL.gguf] [--tokens 5000] [--json FILE]

TEXT is a plain text file, or a JSONL file of prompts with `turns` (as Spec-Bench has). The text is
cut into windows of 512 tokens; every runner predicts each window's every next token. Against the
NumPy float32 runner: how often the likeliest token is the same, the mean KL divergence
sum p log(p / q) in nats with p the float32 distribution, and each runner's perplexity on the text.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salver.engine import ScheduledSequence, SchedulerOutput
from salver.engine.runners.native_runner import NativeRunner
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.models import GROUP_KINDS, Model, open_model

WINDOW, ROWS_AT_ONCE = 512, 64
KINDS = tuple(product(("bf16", "w8a16", "w8a8", "q4"), ("bf16", "int8")))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """`top1` is a share, `kl` a mean in nats."""

    precision: str
    kv_cache: str
    tokens: int
    top1: float
    kl: float
    perplexity: float
    reference_perplexity: float


def read_text(path: Path) -> str:
    text = path.read_text()
    if path.suffix != ".jsonl":
        return text
    return "\n\n".join(turn for line in text.splitlines() for turn in json.loads(line)["turns"])


def plan(tokens: list[int], block_size: int) -> SchedulerOutput:
    """One window as one step over the pool's first blocks."""
    table = range(-(-len(tokens) // block_size))
    return SchedulerOutput(tokens, [ScheduledSequence("window", 0, len(tokens), 0, table)])


def numpy_rows(runner: NumpyRunner, tokens: list[int]) -> Iterator[Floats]:
    hidden = runner.forward(plan(tokens, runner.block_size))
    for start in range(0, len(tokens), ROWS_AT_ONCE):
        yield log_softmax(runner.logits(hidden[start : start + ROWS_AT_ONCE]))


def native_rows(runner: NativeRunner, tokens: list[int]) -> Iterator[Floats]:
    runner.forward(plan(tokens, runner.block_size))
    for start in range(0, len(tokens), ROWS_AT_ONCE):
        yield log_softmax(runner.logits(range(start, min(start + ROWS_AT_ONCE, len(tokens)))))


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    normal: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def compare(
    precision: str, kv_cache: str, model: Model, windows: list[list[int]], threads: int
) -> Quality:
    reference = NumpyRunner(model.checkpoint, num_blocks=WINDOW // 16, threads=threads)
    native = NativeRunner(
        model.checkpoint,
        num_blocks=64,
        max_batch_tokens=WINDOW,
        precision=precision,
        kv_cache=kv_cache,
        threads=threads,
    )
    agree = divergence = nll = reference_nll = 0.0
    count = 0
    for window in windows:
        targets = window[1:]
        pairs = zip(numpy_rows(reference, window), native_rows(native, window), strict=True)
        for start, (p, q) in zip(range(0, WINDOW, ROWS_AT_ONCE), pairs, strict=False):
            agree += float((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            divergence += float((np.exp(p) * (p - q)).sum())
            count += len(p)
            some = targets[start : start + ROWS_AT_ONCE]
            at = np.arange(len(some)), some
            nll, reference_nll = nll - float(q[at].sum()), reference_nll - float(p[at].sum())
    scored = sum(len(window) - 1 for window in windows)
    return Quality(
        precision,
        kv_cache,
        count,
        agree / count,
        divergence / count,
        math.exp(nll / scored),
        math.exp(reference_nll / scored),
    )


def report(results: list[Quality]) -> str:
    rows = [
        "| precision | KV | top-1 | KL, nats | perplexity | delta |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        delta = r.perplexity / r.reference_perplexity - 1
        rows.append(
            f"| {r.precision} | {r.kv_cache} | {r.top1:.2%} | {r.kl:.5f} "
            f"| {r.perplexity:.3f} | {delta:+.2%} |"
        )
    rows.append(f"| float32 (NumPy) | | | | {results[0].reference_perplexity:.3f} | |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = open_model(options.model)
    text = read_text(options.text)[: options.tokens * 8]
    ids = model.tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    ids = ids[: options.tokens]
    windows = [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
    threads = len(os.sched_getaffinity(0))
    has_groups = not GROUP_KINDS.keys().isdisjoint(model.checkpoint.formats.values())
    kinds = [kind for kind in KINDS if kind[0] != "q4" or has_groups]
    results = [compare(*kind, model, windows, threads) for kind in kinds]
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2))
    print(f"{options.model.name}, {results[0].tokens} tokens of {options.text.name}\n")
    print(report(results))


if __name__ == "__main__":
    main()
