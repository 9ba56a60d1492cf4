"""The one place that tells the runners apart: which there are, what they need, how they open.

`salver._native` may be absent (no compiler at install time), so it is imported only once its runner
is chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

from salver.engine.plan import ModelRunner
from salver.engine.runners.kept_weights import KeptWeights
from salver.engine.runners.matrices import layer_kinds
from salver.engine.runners.step_memory import native_step_bytes, step_bytes
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig

NUMPY_BLOCK_SIZE = 16
FLOAT32 = 4


class RunnerKind(StrEnum):
    """What computes, how it holds the weights, and how keys and values."""

    NUMPY_F32 = "numpy/f32/f32"
    NATIVE_W8A16 = "native/w8a16/bf16"
    NATIVE_W8A8 = "native/w8a8/bf16"
    NATIVE_BF16 = "native/bf16/bf16"
    NATIVE_W8A16_INT8 = "native/w8a16/int8"
    NATIVE_W8A8_INT8 = "native/w8a8/int8"
    NATIVE_BF16_INT8 = "native/bf16/int8"
    NATIVE_BF16_F32 = "native/bf16/f32"
    NATIVE_Q4 = "native/q4/bf16"
    NATIVE_Q4_INT8 = "native/q4/int8"

    @property
    def is_native(self) -> bool:
        return self is not RunnerKind.NUMPY_F32

    @property
    def precision(self) -> str:
        return self.value.split("/")[1]

    @property
    def kv_cache(self) -> str:
        return self.value.split("/")[2]

    @property
    def packing(self) -> str:
        """What its packed weights are called: precisions that share the bytes share the name."""
        shared = {"w8a16": "int8", "w8a8": "int8"}
        return f"native-{shared.get(self.precision, self.precision)}"


@dataclass(frozen=True, slots=True)
class RunnerNeeds:
    """What a runner takes, in bytes; `block_size` in tokens."""

    weights_bytes: int
    step_bytes: int
    block_size: int
    block_bytes: int


def native_is_built() -> bool:
    """Whether this installation has the native core."""
    return find_spec("salver._native") is not None


def native_paths() -> tuple[str, ...]:
    """The native core's paths on this machine, slowest first; none where it is not built."""
    if not native_is_built():
        return ()
    from salver._native import available_isas

    return tuple(available_isas())


def runner_needs(
    kind: RunnerKind,
    config: ModelConfig,
    formats: Mapping[str, str],
    *,
    threads: int,
    max_batch_tokens: int,
    max_context_tokens: int,
) -> RunnerNeeds:
    """What a runner of this kind takes for a model whose file has these formats.

    Raises:
        UnsupportedModel: it computes with 4-bit groups, and the file has none.
    """
    if kind.is_native:
        from salver.engine.runners.native_weights import (
            BLOCK_TOKENS,
            block_bytes,
            weight_bytes,
        )

        return RunnerNeeds(
            weights_bytes=weight_bytes(
                config,
                layer_kinds(config, formats, kind.precision),
                int8=kind.precision != "bf16",
            ),
            step_bytes=native_step_bytes(
                config,
                threads=threads,
                max_batch_tokens=max_batch_tokens,
                max_context_tokens=max_context_tokens,
            ),
            block_size=BLOCK_TOKENS,
            block_bytes=block_bytes(config, kind.kv_cache),
        )
    return RunnerNeeds(
        weights_bytes=config.num_parameters * FLOAT32,
        step_bytes=step_bytes(
            config,
            block_size=NUMPY_BLOCK_SIZE,
            threads=threads,
            max_batch_tokens=max_batch_tokens,
            max_context_tokens=max_context_tokens,
        ),
        block_size=NUMPY_BLOCK_SIZE,
        block_bytes=config.kv_elements_per_token * FLOAT32 * NUMPY_BLOCK_SIZE,
    )


def packed_form() -> str:
    """The version of the native core's packed bytes."""
    from salver._native import PACKED_LAYOUT

    return f"native layout {PACKED_LAYOUT}"


def open_runner(
    kind: RunnerKind,
    checkpoint: Checkpoint,
    *,
    num_blocks: int,
    threads: int,
    max_batch_tokens: int,
    isa: str | None = None,
    kept: KeptWeights | None = None,
) -> ModelRunner:
    """Load the weights into a runner of this kind. `isa` forces a slower native path.

    A native runner fills itself from `kept`, or has its packed weights kept there.

    Raises:
        MalformedModel: a tensor is absent or cannot be decoded.
        UnsupportedModel: the runner computes with 4-bit groups, and the file has none.
    """
    if kind.is_native:
        from salver.engine.runners.native_runner import NativeRunner

        return NativeRunner(
            checkpoint,
            num_blocks=num_blocks,
            max_batch_tokens=max_batch_tokens,
            precision=kind.precision,
            kv_cache=kind.kv_cache,
            threads=threads,
            isa=isa,
            kept=kept,
        )
    from salver.engine.runners.numpy_runner import NumpyRunner

    return NumpyRunner(
        checkpoint, num_blocks=num_blocks, block_size=NUMPY_BLOCK_SIZE, threads=threads
    )
