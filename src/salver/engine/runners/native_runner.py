"""The native core as a `ModelRunner`: one call per step, the GIL released.

Tokens are drawn and scored inside the core, by the definition in `engine/sampling.py`, whose uniform
numbers it is handed. Only what the core refuses, logits that are not finite or tokens that are all
banned, is asked of the definition itself, which says what is wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from salver import _native
from salver.contract import TokenLogprobs
from salver.engine.plan import ModelRunnerOutput, ScheduledSequence, SchedulerOutput
from salver.engine.runners.edits import EditBook
from salver.engine.runners.kept_weights import KeptWeights
from salver.engine.runners.linear import Floats
from salver.engine.runners.matrices import MATRICES, LayerKinds, layer_kinds
from salver.engine.runners.native_rows import NativeRows
from salver.engine.runners.native_weights import give_rotary, give_weights, sections_of
from salver.engine.runners.read_out import LogitRow, collect, settle, wanted_rows
from salver.errors import BackendError
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig

Ints = NDArray[np.int32]

NO_WINDOW = 2**30  # keys visible to a query where the model has no sliding window


class NativeRunner:
    """A `ModelRunner` on `salver._native`. Not thread-safe: one step at a time.

    Args:
        checkpoint: read once, here; not kept.
        num_blocks: blocks in the KV pool, of BLOCK_TOKENS tokens.
        max_batch_tokens: the most a step may hold.
        precision: `w8a16`, `w8a8`, `bf16` or `q4`.
        threads: how many compute a step together; bits do not depend on it.
        kv_cache: `bf16` or `int8`, in any of them; `f32` beside `bf16` weights rounds nothing else.
        isa: a path of `_native.available_isas()`; None takes the fastest.
        kept: has the packed weights from an earlier start, or keeps them for the next one.

    Raises:
        MalformedModel: a tensor that the config calls for is absent or cannot be decoded.
        UnsupportedModel: `q4`, and the file has no 4-bit groups.
        ValueError: the core does not have this shape, precision or path.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_blocks: int,
        max_batch_tokens: int,
        precision: str = "w8a16",
        kv_cache: str = "bf16",
        threads: int = 1,
        isa: str | None = None,
        kept: KeptWeights | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = _native.BLOCK_TOKENS
        self._vocab_size = checkpoint.config.vocab_size
        self._edits = EditBook(checkpoint.config.vocab_size)
        self._hidden_size = checkpoint.config.hidden_size
        new_core = partial(
            _core,
            checkpoint.config,
            threads=threads,
            blocks=num_blocks,
            step_tokens=max_batch_tokens,
            precision=precision,
            kv_cache=kv_cache,
            isa=isa or _native.available_isas()[-1],
        )
        kinds = layer_kinds(checkpoint.config, checkpoint.formats, precision)
        self._core = _loaded(new_core, checkpoint, kinds, kept, threads)
        give_rotary(self._core, checkpoint.config, num_blocks * self.block_size)

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        """Compute the plan's tokens, write their KV, and sample where a sequence asks for it."""
        if not plan.sequences:
            return ModelRunnerOutput()
        rows = NativeRows(wanted_rows(plan), self._vocab_size, self._edits)
        self._step(plan, rows)
        return collect(self._settled(rows))

    def _settled(self, rows: NativeRows) -> Iterator[tuple[LogitRow, TokenLogprobs | BackendError]]:
        for wanted, found in rows.found():
            yield wanted, found or settle(wanted, self.logits([wanted.row])[0])

    def forward(self, plan: SchedulerOutput) -> Floats:
        """Run every layer and keep the plan's KV: hidden states [tokens, hidden_size]."""
        self._step(plan, NativeRows([], self._vocab_size), keep_all=True)
        hidden = np.empty((plan.num_tokens, self._hidden_size), np.float32)
        self._core.hidden(hidden)
        return hidden

    def logits(self, rows: Sequence[int]) -> Floats:
        """[rows, vocab_size] of flat rows: those that the last step sampled, or any of `forward`."""
        out = np.empty((len(rows), self._vocab_size), np.float32)
        self._core.logits(np.asarray(rows, np.int32), out)
        return out

    def fill_pool(self, byte: int) -> None:
        """Overwrite all keys and values, for tests of what a sequence must never see."""
        self._core.fill_pool(byte)

    def _step(self, plan: SchedulerOutput, rows: NativeRows, *, keep_all: bool = False) -> None:
        self._core.step(
            np.asarray(plan.token_ids, np.int32),
            np.fromiter((0, *(each.end for each in plan.sequences)), np.int32),
            np.fromiter((each.first_position for each in plan.sequences), np.int32),
            *_block_tables(plan.sequences, self.block_size),
            rows.rows,
            rows.arrays(),
            keep_all=keep_all,
        )


def _loaded(
    new_core: Callable[[], _native.Model],
    checkpoint: Checkpoint,
    kinds: LayerKinds,
    kept: KeptWeights | None,
    threads: int,
) -> _native.Model:
    """A core with its weights: as they were kept, or else packed now."""
    if kept:
        core = new_core()
        lines = [tuple(layer.get(name, "none") for name in MATRICES) for layer in kinds]
        core.reserve(qk_norm=checkpoint.config.qk_norm, groups=lines if any(kinds) else [])
        if kept.fill(sections_of(core)):
            return core
    core = new_core()  # a new one: what could not be filled is given back
    give_weights(core, checkpoint, kinds, threads=threads)
    if kept:
        kept.keep(sections_of(core))
    return core


def _core(
    config: ModelConfig,
    *,
    threads: int,
    blocks: int,
    step_tokens: int,
    precision: str,
    kv_cache: str,
    isa: str,
) -> _native.Model:
    return _native.Model(
        layers=config.num_layers,
        hidden=config.hidden_size,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        window=config.sliding_window or NO_WINDOW,
        epsilon=config.rms_norm_eps,
        threads=threads,
        blocks=blocks,
        step_tokens=step_tokens,
        precision=precision,
        kv_cache=kv_cache,
        isa=isa,
    )


def _block_tables(sequences: Sequence[ScheduledSequence], block_size: int) -> tuple[Ints, Ints]:
    """Where each table begins, and the tables end to end, as far as the step's context reaches."""
    tables = [each.block_table[: -(-each.context_length // block_size)] for each in sequences]
    starts = np.fromiter(accumulate(map(len, tables), initial=0), np.int32)
    return starts, np.fromiter(chain.from_iterable(tables), np.int32)
