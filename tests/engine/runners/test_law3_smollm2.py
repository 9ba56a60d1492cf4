"""Law 3 on real weights, whose sizes reach the BLAS kernels that tiny models do not."""

from pathlib import Path

import numpy as np
import pytest

from salver.engine.runners.numpy_runner import NumpyRunner
from salver.models import open_checkpoint
from salver.testing.steps import Piece, lay_out

LENGTHS = [70, 9, 33]
CHUNKS = [(1, 0, 20), (0, 5, 0), (64, 1, 1), (0, 1, 12), (5, 2, 0)]  # tokens of each per step


@pytest.mark.model
def test_bits_do_not_depend_on_batch_or_chunks(smollm2_path: Path) -> None:
    runner = NumpyRunner(open_checkpoint(smollm2_path), num_blocks=32, threads=2)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 49152, length).tolist() for length in LENGTHS]
    alone = [runner.forward(lay_out([Piece("alone", prompt, 0, range(8))])) for prompt in prompts]
    done = [0, 0, 0]
    for counts in CHUNKS:
        plan = lay_out(
            [
                Piece(str(i), prompts[i][done[i] : done[i] + count], done[i], range(8 + 8 * i, 32))
                for i, count in enumerate(counts)
                if count
            ]
        )
        hidden = runner.forward(plan)
        for sequence in plan.sequences:
            i, at = int(sequence.key), slice(sequence.first_position, sequence.context_length)
            np.testing.assert_array_equal(hidden[sequence.start : sequence.end], alone[i][at])
            done[i] = sequence.context_length
    assert done == LENGTHS
    logits = runner.logits(alone[0])
    for row in (0, 17, 69):
        np.testing.assert_array_equal(runner.logits(alone[0][row : row + 1])[0], logits[row])
