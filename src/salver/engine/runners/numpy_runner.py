"""The model in NumPy: the readable specification that faster runners are held against.

A step is one flat list of tokens from many sequences. Everything but attention treats a token by
itself, so prompts and decoding take the same path, and attention finds each token's past through
its sequence's block table. Bits do not depend on how a sequence was cut into steps or on who else
was there; `linear.py` and `attention.py` say how.
"""

from dataclasses import dataclass

import numpy as np

from salver.engine.plan import ModelRunnerOutput, SchedulerOutput
from salver.engine.runners.attention import (
    AttentionBatch,
    AttentionShape,
    Indices,
    attend,
    plan_attention,
)
from salver.engine.runners.linear import Floats, linear
from salver.engine.runners.read_out import read_out
from salver.engine.runners.rope import RotaryTable
from salver.engine.runners.threads import TaskThreads, one_blas_thread
from salver.engine.runners.weights import LayerWeights, Projection, load_weights
from salver.models.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Step:
    """Where each of a step's flat tokens stands; the same in every layer."""

    positions: Indices  # [tokens]
    blocks: Indices  # [tokens] pool block and
    slots: Indices  # [tokens] slot in it, where the token's KV goes
    attention: list[AttentionBatch]


class NumpyRunner:
    """A `ModelRunner` on float32 NumPy arrays. Not thread-safe: one step at a time.

    Args:
        checkpoint: read once, here; not kept.
        num_blocks: blocks in the KV pool.
        block_size: tokens per block.
        threads: how many compute a step together; bits do not depend on it.

    Raises:
        MalformedModel: a tensor that the config calls for is absent or cannot be decoded.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, num_blocks: int, block_size: int = 16, threads: int = 1
    ) -> None:
        config = checkpoint.config
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._threads = TaskThreads(threads)
        self._weights = load_weights(checkpoint)
        self._epsilon = np.float32(config.rms_norm_eps)
        self._shape = AttentionShape.of(config, block_size)
        positions = min(config.max_positions, num_blocks * block_size)
        self._rotary = RotaryTable(config.rope, head_dim=config.head_dim, max_positions=positions)
        pool = (config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_dim)
        self._keys = np.zeros(pool, np.float32)
        self._values = np.zeros(pool, np.float32)

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        """Compute the plan's tokens, write their KV, and sample where a sequence asks for it."""
        if not plan.sequences:
            return ModelRunnerOutput()
        hidden = self.forward(plan)
        return read_out(plan, lambda rows: self.logits(hidden[rows]))

    def forward(self, plan: SchedulerOutput) -> Floats:
        """Run every layer and keep the plan's KV: hidden states [tokens, hidden_size]."""
        step = self._layout(plan)
        hidden = self._weights.embedding[np.asarray(plan.token_ids, np.intp)]
        with one_blas_thread():
            for index, layer in enumerate(self._weights.layers):
                normed = self._norm(hidden, layer.input_norm)
                hidden = hidden + self._attention(index, layer, normed, step)
                hidden = hidden + self._mlp(layer, self._norm(hidden, layer.post_attention_norm))
        return hidden

    def logits(self, hidden: Floats) -> Floats:
        """Rows [n, hidden_size] of `forward` to logits [n, vocab_size]."""
        with one_blas_thread():
            return self._linear(self._weights.head, self._norm(hidden, self._weights.norm))

    def _layout(self, plan: SchedulerOutput) -> Step:
        positions = np.empty(plan.num_tokens, np.intp)
        blocks = np.empty(plan.num_tokens, np.intp)
        for sequence in plan.sequences:
            at = slice(sequence.start, sequence.end)
            positions[at] = np.arange(sequence.first_position, sequence.context_length)
            blocks[at] = np.asarray(sequence.block_table, np.intp)[positions[at] // self.block_size]
        return Step(
            positions,
            blocks,
            slots=positions % self.block_size,
            attention=plan_attention(plan.sequences, self._shape),
        )

    def _attention(self, index: int, layer: LayerWeights, x: Floats, step: Step) -> Floats:
        """Self-attention of one layer over `x` [tokens, hidden], its keys and values kept."""
        queries, keys = self._heads(layer.q, x), self._heads(layer.k, x)
        if layer.q_norm is not None and layer.k_norm is not None:
            queries, keys = self._norm(queries, layer.q_norm), self._norm(keys, layer.k_norm)
        queries = self._rotary.rotate(queries, step.positions)
        written = step.blocks, step.slots
        self._keys[index][written] = self._rotary.rotate(keys, step.positions)
        self._values[index][written] = self._heads(layer.v, x)
        mixed = attend(
            queries,
            self._keys[index],
            self._values[index],
            step.attention,
            self._shape,
            self._threads,
        )
        return self._linear(layer.o, mixed)

    def _heads(self, projection: Projection, x: Floats) -> Floats:
        """Project [tokens, hidden] to [tokens, heads, head_dim]."""
        return self._linear(projection, x).reshape(len(x), -1, self._shape.head_dim)

    def _mlp(self, layer: LayerWeights, x: Floats) -> Floats:
        """The gated feed-forward layer with SiLU (SwiGLU, arXiv 2002.05202)."""
        gated = _silu(self._linear(layer.gate, x)) * self._linear(layer.up, x)
        return self._linear(layer.down, gated)

    def _linear(self, projection: Projection, x: Floats) -> Floats:
        return linear(x, projection.weight, projection.bias, self._threads)

    def _norm(self, x: Floats, weight: Floats) -> Floats:
        """Root mean square norm (arXiv 1910.07467) over the last axis."""
        root: Floats = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + self._epsilon)
        return x / root * weight


def _silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp of a large negative x: the result is then rightly 0
        divisor: Floats = np.exp(-x) + np.float32(1)
    return x / divisor
