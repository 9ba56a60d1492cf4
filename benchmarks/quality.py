"""What each precision costs in answers: agreement with float32 on real text.

    python benchmarks/quality.py TEXT --model MODEL.gguf [--tokens 5000] [--only NAME ...]
                                 [--llamacpp PYTHON] [--output FILE.json]

TEXT is a plain text file, or a JSONL file of prompts with `turns` (as Spec-Bench has). The text is
cut into windows of 500 tokens; everyone predicts each window's every next token. Against the NumPy
float32 runner on the same file: how often the likeliest token is the same, the mean KL divergence
sum p log(p / q) in nats with p the float32 distribution, and the perplexity on the text.

Who takes part: every native runner of this build; each kind of matrix alone in a format of the core,
imitated on the float32 runner; and, with --llamacpp, llama.cpp itself, which makes its Q8_0 and Q4_0
of the same file (`quality_llamacpp.py` says what PYTHON must have). llama.cpp in float32 shows how
near two programs come that differ in their arithmetic only.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
from quality_formats import KINDS, Q4, W8A8, W8A16, Floats, Format, FormatRunner
from quality_measures import Quality, Tally

from salver.engine import ScheduledSequence, SchedulerOutput
from salver.engine.runners.choice import RunnerKind, native_is_built, open_runner
from salver.engine.runners.matrices import MATRICES, layer_kinds
from salver.models import GROUP_KINDS, open_model
from salver.models.checkpoint import Checkpoint

WINDOW = 500
LLAMA_CPP = {
    "llama.cpp f32": "f32",
    "llama.cpp Q8_0": "q8_0",
    "llama.cpp Q4_0": "q4_0",
    "llama.cpp, the file as it is": "as-is",
}

Predict = Callable[[list[int]], Floats]
"""A window's tokens to the logits after each of them: [tokens, vocab_size]."""


class LogitRunner(Protocol):
    """What the native runner offers beside `execute`."""

    block_size: int

    def forward(self, plan: SchedulerOutput) -> Floats: ...

    def logits(self, rows: range) -> Floats: ...


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


@contextmanager
def llama_cpp(python: Path, model: Path, file_type: str, vocab_size: int) -> Iterator[Predict]:
    """llama.cpp in a process of its own, with the model in one of its file types."""
    script = Path(__file__).with_name("quality_llamacpp.py")
    command = [str(python), str(script), str(model.resolve()), file_type, str(WINDOW)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def predict(window: list[int]) -> Floats:
            stdin.write(json.dumps(window).encode() + b"\n")
            stdin.flush()
            answer = np.frombuffer(stdout.read(len(window) * vocab_size * 4), np.float32)
            return answer.reshape(len(window), vocab_size)

        yield predict
        stdin.close()


def formats_by_name(checkpoint: Checkpoint) -> dict[str, dict[str, Format]]:
    """One kind of matrix alone in a format. 4-bit groups only where all matrices are in them."""
    alone = {f"{f.name}, {kind} alone": {kind: f} for f in (W8A16, W8A8) for kind in KINDS}
    if not has_groups(checkpoint):
        return alone
    layers = layer_kinds(checkpoint.config, checkpoint.formats, "q4")
    everywhere = [name for name in MATRICES if all(name in layer for layer in layers)]
    return alone | {f"{Q4.name}, {kind} alone": {kind: Q4} for kind in everywhere}


def has_groups(checkpoint: Checkpoint) -> bool:
    return not GROUP_KINDS.keys().isdisjoint(checkpoint.formats.values())


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
    model: Path, checkpoint: Checkpoint, windows: list[list[int]], options: argparse.Namespace
) -> Iterator[Quality]:
    threads = len(os.sched_getaffinity(0))
    reference = FormatRunner(checkpoint, num_blocks=-(-WINDOW // 16), threads=threads)
    comparison = Comparison(windows, reference)

    def wanted(name: str) -> bool:
        return options.only is None or name in options.only

    for kind in runners(checkpoint):
        if wanted(kind.value):
            with native(kind, checkpoint, threads) as predict:
                yield comparison.of(kind.value, predict)
    for name, formats in formats_by_name(checkpoint).items():
        if wanted(name):
            yield comparison.of(name, imitated(reference, formats))
    for name, file_type in LLAMA_CPP.items() if options.llamacpp else ():
        if wanted(name):
            vocab_size = checkpoint.config.vocab_size
            with llama_cpp(options.llamacpp, model, file_type, vocab_size) as predict:
                yield comparison.of(name, predict)


def runners(checkpoint: Checkpoint) -> list[RunnerKind]:
    """The native ones of this build that can compute with this file."""
    usable = [kind for kind in RunnerKind if kind.precision != "q4" or has_groups(checkpoint)]
    return [kind for kind in usable if kind.is_native] if native_is_built() else []


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
    parser.add_argument("--llamacpp", type=Path, metavar="PYTHON", help="to ask llama.cpp with")
    parser.add_argument("--output", type=Path, help="a JSON file; a .md is written beside it")
    options = parser.parse_args()
    model = open_model(options.model)
    text = read_text(options.text)[: options.tokens * 8]
    ids = model.tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    ids = ids[: options.tokens]
    windows = [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
    results = list(compare(options.model, model.checkpoint, windows, options))
    heading = f"{options.model.name}, {results[0].tokens:,} tokens of {options.text.name}"
    table = f"{heading}\n\n{report(results)}"
    if options.output:
        options.output.write_text(json.dumps([asdict(result) for result in results], indent=2))
        options.output.with_suffix(".md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
