"""The bound on a step's memory, held against what tracemalloc sees NumPy allocate."""

import tracemalloc
from dataclasses import replace

import pytest

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.engine.runners.step_memory import step_bytes
from salver.models import ModelConfig
from salver.testing.steps import Piece, lay_out
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

OVERHEAD = 500_000  # bytes of Python objects and index arrays of these steps

WIDE = tiny_config(num_layers=1, num_heads=9, num_kv_heads=3, head_dim=64, vocab_size=100)
MODELS = {
    "wide attention": WIDE,
    "wide feed-forward": replace(WIDE, intermediate_size=4000),
    "wide vocabulary": replace(WIDE, vocab_size=60_000),
    "many heads": replace(WIDE, num_heads=32, num_kv_heads=32, head_dim=32),
}
STEPS = {"one prompt": (1, 512, 0), "at the end": (1, 512, 512), "decoding": (64, 1, 1000)}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_no_step_needs_more_than_the_bound(config: ModelConfig, step: tuple[int, int, int]) -> None:
    sequences, count, first = step
    runner = NumpyRunner(TinyCheckpoint(config), num_blocks=64, threads=2)
    spec = SampleSpec(SamplingParams(1, top_p=0.9, repetition_penalty=1.1, logprobs=5), 0, [1], [2])
    plan = lay_out(
        [Piece(str(i), [i] * count, first, range(64), sample=spec) for i in range(sequences)]
    )
    runner.execute(plan)
    tracemalloc.start()
    try:
        runner.execute(plan)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    bound = step_bytes(
        config, block_size=16, threads=2, max_batch_tokens=512, max_context_tokens=1024
    )
    assert peak <= bound + OVERHEAD
