"""Models whose files hold 4-bit groups: q4 near the reference, law 3, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.engine.runners.choice import RunnerKind, runner_needs
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.errors import UnsupportedModel
from salver.models import ModelConfig
from salver.models.checkpoint import Checkpoint
from salver.testing.steps import Piece, lay_out
from salver.testing.tiny_groups import GroupedCheckpoint
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

if TYPE_CHECKING:
    from salver.engine.runners.native_runner import NativeRunner

native = pytest.importorskip("salver._native")
native_runner = pytest.importorskip("salver.engine.runners.native_runner")

Floats = NDArray[np.float32]
ISAS = native.available_isas()
BLOCKS = 8
STORED: Mapping[str, Mapping[str, str]] = {
    "Q4_0": {"proj.weight": "Q4_0"},
    "Q4_1": {"proj.weight": "Q4_1"},
    "Q4_K": {"proj.weight": "Q4_K"},
    # qkv and gate_up have parts that do not agree, output and down have groups of their own
    "mixed": {
        "q_proj.weight": "Q4_1",
        "k_proj.weight": "Q4_1",
        "o_proj.weight": "Q4_0",
        "gate_proj.weight": "Q4_0",
        "up_proj.weight": "Q4_1",
        "down_proj.weight": "Q4_1",
    },
}


def config(stored: str, **changes: Any) -> ModelConfig:
    """Widths of whole groups: an odd number of them, or whole super-blocks."""
    if stored == "Q4_K":
        made = tiny_config(num_heads=4, num_kv_heads=2, head_dim=64)
        return replace(made, hidden_size=256, intermediate_size=512, **changes)
    made = tiny_config(num_heads=6, num_kv_heads=2, head_dim=16)
    return replace(made, hidden_size=96, intermediate_size=160, **changes)


def make(checkpoint: Checkpoint, isa: str = ISAS[-1], threads: int = 1) -> "NativeRunner":
    runner: NativeRunner = native_runner.NativeRunner(
        checkpoint,
        num_blocks=BLOCKS,
        max_batch_tokens=256,
        precision="q4",
        threads=threads,
        isa=isa,
    )
    runner.fill_pool(0xFF)
    return runner


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("isa", ISAS)
def test_logits_are_near_the_reference(isa: str, stored: str) -> None:
    checkpoint = GroupedCheckpoint(config(stored, attention_bias=True), STORED[stored])
    tokens = np.random.default_rng(3).integers(0, 61, 70).tolist()
    reference = NumpyRunner(checkpoint, num_blocks=16)
    expected = reference.logits(reference.forward(lay_out([Piece("a", tokens, 0, range(16))])))
    runner = make(checkpoint, isa)
    runner.forward(lay_out([Piece("a", tokens, 0, range(BLOCKS))]))
    found = runner.logits(range(70))
    assert np.sqrt(np.square(found - expected).mean()) / expected.std() < 0.1


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("isa", ISAS)
@given(length=st.integers(2, 200), seed=st.integers(0, 1000), threads=st.integers(1, 3))
@settings(max_examples=8)
def test_bits_do_not_depend_on_batch_chunks_or_threads(
    isa: str, stored: str, length: int, seed: int, threads: int
) -> None:
    checkpoint = GroupedCheckpoint(config(stored), STORED[stored], seed)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 61, length).tolist()
    alone = make(checkpoint, isa)
    expected = alone.forward(lay_out([Piece("alone", tokens, 0, range(BLOCKS))]))
    together, parts, done = make(checkpoint, isa, threads), [], 0
    while done < length:
        count = min(int(rng.choice([1, 3, 9, 40, 128])), length - done)
        company = rng.integers(0, 61, int(rng.integers(1, 20))).tolist()
        pieces = [
            Piece("company", company, 0, [7]),
            Piece("it", tokens[done : done + count], done, range(BLOCKS - 1)),
        ]
        parts.append(together.forward(lay_out(pieces))[len(company) :])
        done += count
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_a_model_without_groups_is_refused_with_what_it_has() -> None:
    checkpoint = TinyCheckpoint(tiny_config())
    with pytest.raises(UnsupportedModel, match=r"stored as F32.*") as refused:
        make(checkpoint)
    assert refused.value.rule == "runtime.q4_groups"
    parts_disagree = GroupedCheckpoint(config("mixed"), {"q_proj.weight": "Q4_1"})
    with pytest.raises(UnsupportedModel, match="none of them in groups that the core can hold"):
        make(parts_disagree)


@pytest.mark.parametrize("stored", STORED)
def test_the_plan_counts_the_bytes_that_the_core_keeps(stored: str) -> None:
    checkpoint = GroupedCheckpoint(config(stored, tie_embeddings=False), STORED[stored])
    core = make(checkpoint)._core
    kept = sum(data.size for name, _, data in core.sections() if not name.endswith("norm"))
    needs = runner_needs(
        RunnerKind.NATIVE_Q4,
        checkpoint.config,
        checkpoint.formats,
        threads=1,
        max_batch_tokens=1,
        max_context_tokens=1,
    )
    assert needs.weights_bytes == kept


class Kept:
    """`KeptWeights` in memory."""

    def __init__(self) -> None:
        self.sections: dict[str, bytes] = {}

    def fill(self, sections: Any) -> bool:
        for each in sections if self.sections else ():
            each.data[:] = self.sections[each.name]
        return bool(self.sections)

    def keep(self, sections: Any) -> None:
        self.sections = {each.name: bytes(each.data) for each in sections}


@pytest.mark.parametrize("stored", STORED)
def test_a_core_filled_with_kept_groups_computes_the_same_bits(stored: str) -> None:
    checkpoint, kept = GroupedCheckpoint(config(stored), STORED[stored]), Kept()
    plan = lay_out([Piece("a", list(range(40)), 0, [0, 1])])
    packed, filled = (
        native_runner.NativeRunner(
            checkpoint, num_blocks=2, max_batch_tokens=64, precision="q4", kept=kept
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(packed.forward(plan), filled.forward(plan))
