"""The runner's greedy tokens equal those of `transformers` in float32 on the same weights.

`make_goldens.py` tells how the goldens were made. A token may differ only where the reference's two
largest logits are within TIE of each other, where float32 rounding decides; the rest of that prompt
is then another text and is not compared. Such divergences are counted, and must be few.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.models import open_checkpoint
from salver.testing.steps import Piece, lay_out

TIE = 1e-3
MOST_DIVERGENCES = 2
BLOCK_SIZE = 16
BLOCKS_PER_CASE = 16  # 200 prompt and 32 output tokens fit


@dataclass(frozen=True, slots=True)
class Case:
    """`gaps[i]` is by how much the reference's logit of `output[i]` led."""

    question_id: int
    prompt: list[int]
    output: list[int]
    gaps: list[float]


@pytest.mark.model
def test_smollm2_continues_as_transformers_does(
    smollm2_path: Path, record_property: Callable[[str, object], None]
) -> None:
    divergences = compare(smollm2_path, "smollm2-135m-instruct-q4_1.json")
    record_property("divergences at a tie", divergences)
    assert len(divergences) <= MOST_DIVERGENCES


@pytest.mark.large
@pytest.mark.parametrize(
    ("variable", "golden"),
    [
        ("SALVER_TEST_QWEN_GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.json"),
        ("SALVER_TEST_QWEN_15B_GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.json"),
    ],
)
def test_qwen_coder_continues_as_transformers_does(
    variable: str, golden: str, record_property: Callable[[str, object], None]
) -> None:
    path = os.environ.get(variable)
    if path is None:
        pytest.skip(f"{variable} does not name the file that {golden} was made of")
    divergences = compare(Path(path), golden)
    record_property("divergences at a tie", divergences)
    assert len(divergences) <= MOST_DIVERGENCES


def compare(model: Path, golden_name: str) -> list[str]:
    """Run every case of a golden at once; describe the divergences that a tie excuses."""
    golden = json.loads(Path(__file__).with_name(golden_name).read_text())
    with model.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == golden["sha256"]
    cases = [Case(**case) for case in golden["cases"]]
    assert cases
    outputs = continue_greedily(model, cases)
    found = [divergence(case, output) for case, output in zip(cases, outputs, strict=True)]
    divergences = [text for text in found if text is not None]
    print(f"{len(cases) - len(divergences)} of {len(cases)} equal; ties: {divergences}")
    return divergences


def continue_greedily(model: Path, cases: list[Case]) -> list[list[int]]:
    runner = NumpyRunner(
        open_checkpoint(model),
        num_blocks=len(cases) * BLOCKS_PER_CASE,
        block_size=BLOCK_SIZE,
        threads=os.cpu_count() or 1,
    )
    outputs: list[list[int]] = [[] for _ in cases]
    for _ in cases[0].output:
        step = [next_piece(i, case, outputs[i]) for i, case in enumerate(cases)]
        sampled = runner.execute(lay_out(step)).sampled
        for i, output in enumerate(outputs):
            output.append(sampled[str(i)].token_id)
    return outputs


def next_piece(index: int, case: Case, output: list[int]) -> Piece:
    """The whole prompt first, then the last token."""
    table = range(index * BLOCKS_PER_CASE, (index + 1) * BLOCKS_PER_CASE)
    spec = SampleSpec(SamplingParams(max_tokens=1, temperature=0), 0, case.prompt, output)
    if not output:
        return Piece(str(index), case.prompt, 0, table, spec)
    return Piece(str(index), output[-1:], len(case.prompt) + len(output) - 1, table, spec)


def divergence(case: Case, output: list[int]) -> str | None:
    """None where all tokens are equal; fails where they differ without a tie."""
    for step, (expected, found, gap) in enumerate(zip(case.output, output, case.gaps, strict=True)):
        if expected != found:
            what = f"question {case.question_id}, token {step}: {found} for {expected}, gap {gap}"
            assert gap < TIE, what
            return what
    return None
