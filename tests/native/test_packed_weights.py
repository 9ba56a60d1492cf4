"""What the core keeps of the weights: the same bytes however packed, and the same bits from them."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from salver.engine.runners.choice import RunnerKind
from salver.models import ModelConfig
from salver.models.names import expected_tensors
from salver.testing.steps import Piece, lay_out
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

if TYPE_CHECKING:
    from salver.engine.runners.kept_weights import Section
    from salver.engine.runners.native_runner import NativeRunner

native = pytest.importorskip("salver._native")
native_runner = pytest.importorskip("salver.engine.runners.native_runner")

PRECISIONS = ["w8a16", "w8a8", "bf16"]
CONFIGS = [
    tiny_config(),
    tiny_config(tie_embeddings=False, attention_bias=True, qk_norm=True, head_dim=10),
]

# Of `CountedCheckpoint`, by layout. Where one of these changes, raise kPackedLayout in
# native/sections.h: what stores hold is then packed anew.
LAYOUT = 1
PACKED = {"w8a16": "502a92efbee8cdf6", "w8a8": "502a92efbee8cdf6", "bf16": "8b09265b2e8b6bab"}


class CountedCheckpoint:
    """Tensors that any machine computes alike: small fractions, counted off."""

    config = CONFIGS[1]
    formats = dict.fromkeys(expected_tensors(config), "F32")

    def tensor(self, name: str) -> NDArray[np.float32]:
        shape = expected_tensors(self.config)[name]
        numbers = np.arange(np.prod(shape), dtype=np.int64) * 7919 + len(name)
        return ((numbers % 257 - 128) / np.float32(64)).astype(np.float32).reshape(shape)


class Kept:
    """`KeptWeights` in memory."""

    def __init__(self) -> None:
        self.sections: dict[str, tuple[str, bytes]] = {}

    def fill(self, sections: "list[Section]") -> bool:
        for each in sections if self.sections else ():
            kind, kept = self.sections[each.name]
            assert (kind, len(kept)) == (each.type, each.data.nbytes)
            each.data[:] = kept
        return bool(self.sections)

    def keep(self, sections: "list[Section]") -> None:
        self.sections = {each.name: (each.type, bytes(each.data)) for each in sections}

    @property
    def digest(self) -> str:
        parts = (name.encode() + kept for name, (_, kept) in self.sections.items())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def open_runner(
    checkpoint: "TinyCheckpoint | CountedCheckpoint",
    kept: Kept,
    precision: str,
    *,
    threads: int = 1,
    isa: str | None = None,
) -> "NativeRunner":
    runner: NativeRunner = native_runner.NativeRunner(
        checkpoint,
        num_blocks=4,
        max_batch_tokens=64,
        precision=precision,
        threads=threads,
        isa=isa,
        kept=kept,
    )
    return runner


def logits(runner: "NativeRunner") -> bytes:
    runner.forward(lay_out([Piece("a", list(range(40)), 0, [0, 1])]))
    return runner.logits(range(40)).tobytes()


@pytest.mark.parametrize("config", CONFIGS, ids=["plain", "biased"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_core_filled_with_kept_weights_computes_the_same_bits(
    precision: str, config: ModelConfig
) -> None:
    kept = Kept()
    packed = open_runner(TinyCheckpoint(config, seed=3), kept, precision)
    assert kept.sections
    filled = open_runner(NothingToRead(config), kept, precision)
    assert logits(filled) == logits(packed)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_packed_bytes_depend_on_neither_threads_nor_instruction_set(precision: str) -> None:
    checkpoint, first = TinyCheckpoint(CONFIGS[1]), Kept()
    open_runner(checkpoint, first, precision)
    for isa in native.available_isas():
        for threads in (1, 3):
            other = Kept()
            open_runner(checkpoint, other, precision, threads=threads, isa=isa)
            assert other.sections == first.sections, (isa, threads)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_layout_has_the_number_that_its_bytes_have(precision: str) -> None:
    kept = Kept()
    open_runner(CountedCheckpoint(), kept, precision)
    assert (native.PACKED_LAYOUT, kept.digest[:16]) == (LAYOUT, PACKED[precision])


class NothingToRead(TinyCheckpoint):
    """Has a config, and no tensor that may be asked for."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        raise AssertionError(f"{name} was read")


def test_kinds_share_packed_weights_exactly_where_they_share_the_format() -> None:
    """The KV cache's format has no say in it."""
    for kind in RunnerKind:
        if kind.is_native:
            assert kind.packing.endswith("bf16") == (kind.precision == "bf16"), kind
