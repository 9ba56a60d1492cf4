"""Law 3 on real weights, whose sizes reach the BLAS kernels that tiny models do not."""

from pathlib import Path

import numpy as np
import pytest

from salver.engine.runners.numpy_runner import NumpyRunner
from salver.models import open_checkpoint
from salver.testing.company import hidden_in_company
from salver.testing.steps import Piece, lay_out

LENGTHS = [70, 9, 33]
CHUNKS = [{0: 1, 2: 20}, {1: 5}, {0: 64, 1: 1, 2: 1}, {1: 1, 2: 12}, {0: 5, 1: 2}]


@pytest.mark.model
def test_bits_do_not_depend_on_batch_or_chunks(smollm2_path: Path) -> None:
    runner = NumpyRunner(open_checkpoint(smollm2_path), num_blocks=32, threads=2)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 49152, length).tolist() for length in LENGTHS]
    alone = [runner.forward(lay_out([Piece("alone", prompt, 0, range(8))])) for prompt in prompts]
    tables = [range(8 + 8 * i, 32) for i in range(3)]
    for found, expected in zip(
        hidden_in_company(runner, prompts, tables, CHUNKS), alone, strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    logits = runner.logits(alone[0])
    for row in (0, 17, 69):
        np.testing.assert_array_equal(runner.logits(alone[0][row : row + 1])[0], logits[row])
