"""The native core's exact mode (bf16 weights, all else float32) against the NumPy reference.

A model in bf16 is its bf16 weights. So the core's greedy tokens on the golden prompts are held
against the NumPy runner over the same rounded weights: each must be the reference's own choice after
the same text, and may be another only where the two logits are within TIE, where float32 rounding
decides. Such ties are counted and listed. How far the rounded weights stay with the file's own, in
float32, is told by the second line: prompts that equal the goldens, and gaps where they part.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.models import open_checkpoint
from salver.testing.rounded import Bf16Weights
from salver.testing.steps import Piece, lay_out

pytest.importorskip("salver._native")
native_runner = pytest.importorskip("salver.engine.runners.native_runner")

TIE = 1e-2
MOST_TIES = 3
TABLE = 8  # blocks of 32 tokens hold 200 of a prompt and 32 of its output
FOLDER = Path(__file__).parent

Tell = Callable[[str, object], None]


@pytest.mark.model
def test_smollm2_is_exact_over_its_bf16_weights(smollm2_path: Path, record_property: Tell) -> None:
    compare(smollm2_path, "smollm2-135m-instruct-q4_1.json", record_property)


@pytest.mark.large
def test_qwen_coder_is_exact_over_its_bf16_weights(record_property: Tell) -> None:
    path = os.environ.get("SALVER_TEST_QWEN_GGUF")
    if path is None:
        pytest.skip("SALVER_TEST_QWEN_GGUF does not name Qwen2.5-Coder-0.5B-Instruct Q4_K_M")
    compare(Path(path), "qwen2.5-coder-0.5b-instruct-q4_k_m.json", record_property)


def compare(model: Path, golden: str, tell: Tell) -> None:
    cases = json.loads((FOLDER / golden).read_text())["cases"]
    outputs = continue_greedily(model, cases)
    ties = differences(model, cases, outputs)
    parted = gaps_at_divergence(cases, outputs)
    print(f"{len(ties)} tokens are not the reference's over bf16 weights: {ties}")
    print(f"{len(cases) - len(parted)} of {len(cases)} equal the float32 goldens; gaps: {parted}")
    tell("ties", ties)
    tell("gaps where the goldens part", parted)
    assert all(gap < TIE for *_, gap in ties)
    assert len(ties) <= MOST_TIES


def continue_greedily(model: Path, cases: list[dict[str, Any]]) -> list[list[int]]:
    runner = native_runner.NativeRunner(
        open_checkpoint(model),
        num_blocks=len(cases) * TABLE,
        max_batch_tokens=4096,
        precision="bf16",
        kv_cache="f32",
        threads=os.cpu_count() or 1,
    )
    outputs: list[list[int]] = [[] for _ in cases]
    for _ in cases[0]["output"]:
        step = [next_piece(i, case["prompt"], outputs[i]) for i, case in enumerate(cases)]
        sampled = runner.execute(lay_out(step)).sampled
        for i, output in enumerate(outputs):
            output.append(sampled[str(i)].token_id)
    return outputs


def next_piece(index: int, prompt: list[int], output: list[int]) -> Piece:
    """The whole prompt first, then the last token."""
    table = range(index * TABLE, (index + 1) * TABLE)
    spec = SampleSpec(SamplingParams(max_tokens=1, temperature=0), 0, prompt, output)
    if not output:
        return Piece(str(index), prompt, 0, table, spec)
    return Piece(str(index), output[-1:], len(prompt) + len(output) - 1, table, spec)


def differences(
    model: Path, cases: list[dict[str, Any]], outputs: list[list[int]]
) -> list[tuple[int, int, int, float]]:
    """(question, step, token, gap) wherever the reference prefers another token by `gap`."""
    runner = NumpyRunner(
        Bf16Weights(open_checkpoint(model)), num_blocks=16, threads=os.cpu_count() or 1
    )
    found: list[tuple[int, int, int, float]] = []
    for case, output in zip(cases, outputs, strict=True):
        prompt = case["prompt"]
        hidden = runner.forward(lay_out([Piece("a", prompt + output[:-1], 0, range(16))]))
        logits = runner.logits(hidden[len(prompt) - 1 :])
        gaps = logits.max(axis=1) - logits[np.arange(len(output)), output]
        found += [
            (case["question_id"], step, output[step], round(float(gaps[step]), 5))
            for step in np.flatnonzero(logits.argmax(axis=1) != output).tolist()
        ]
    return found


def gaps_at_divergence(cases: list[dict[str, Any]], outputs: list[list[int]]) -> list[float]:
    """Of prompts whose tokens differ from the golden's: by how much its token led at the first."""
    found: list[float] = []
    for case, output in zip(cases, outputs, strict=True):
        triples = zip(case["output"], output, case["gaps"], strict=True)
        found += [gap for want, got, gap in triples if want != got][:1]
    return found
