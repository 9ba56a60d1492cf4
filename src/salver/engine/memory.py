"""What fits: the KV pool's size is computed from the envelope, never guessed.

    envelope memory = base + weights + largest step + KV pool

`base` is the process itself: interpreter, libraries, tokenizer and chat template. The largest step is
the runner's own upper bound for `max_batch_tokens` tokens at the longest context. The rest is KV.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from salver.engine.runners.choice import RunnerKind, runner_needs
from salver.errors import DoesNotFit
from salver.models.config import ModelConfig

BASE_BYTES = 160 * 2**20  # measured resident set of a worker that holds no model, rounded up


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """All sizes in bytes."""

    base_bytes: int
    weights_bytes: int
    activation_bytes: int
    block_bytes: int
    block_size: int
    num_blocks: int

    @property
    def kv_pool_bytes(self) -> int:
        return self.num_blocks * self.block_bytes

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV fits at once, over all running requests."""
        return self.num_blocks * self.block_size

    @property
    def total_bytes(self) -> int:
        return self.base_bytes + self.weights_bytes + self.activation_bytes + self.kv_pool_bytes


def plan_memory(
    config: ModelConfig,
    kind: RunnerKind,
    *,
    formats: Mapping[str, str],
    memory_bytes: int,
    threads: int,
    max_batch_tokens: int,
    max_running: int,
    max_context_tokens: int,
) -> MemoryPlan:
    """Divide the envelope's memory for a runner of this kind.

    The pool is no larger than `max_running` full contexts could use.

    Raises:
        DoesNotFit: not even one request of `max_context_tokens` would have KV blocks, or the model
            was not made for that many positions.
        UnsupportedModel: the runner computes with 4-bit groups, and `formats`, in which the file
            stores its tensors, has none.
    """
    if max_context_tokens > config.max_positions:
        raise DoesNotFit(
            f"the envelope allows {max_context_tokens} context tokens, "
            f"the model was made for {config.max_positions}",
            rule="envelope.max_context_tokens",
            value=max_context_tokens,
            limit=config.max_positions,
            fix=f"set max_context_tokens to at most {config.max_positions}",
        )
    needs = runner_needs(
        kind,
        config,
        formats,
        threads=threads,
        max_batch_tokens=max_batch_tokens,
        max_context_tokens=max_context_tokens,
    )
    weights, activations, block_bytes = needs.weights_bytes, needs.step_bytes, needs.block_bytes
    blocks_per_context = -(-max_context_tokens // needs.block_size)
    left = memory_bytes - BASE_BYTES - weights - activations
    if left < blocks_per_context * block_bytes:
        needed = BASE_BYTES + weights + activations + blocks_per_context * block_bytes
        raise DoesNotFit(
            f"the model needs {_mib(weights)} for weights, {_mib(activations)} for a step, "
            f"{_mib(BASE_BYTES)} for the process and {_mib(blocks_per_context * block_bytes)} for "
            f"one context of {max_context_tokens} tokens: {_mib(needed)} in all",
            rule="envelope.memory",
            value=memory_bytes,
            limit=needed,
            fix=f"raise release.envelope.memory to at least {_mib(needed)}, "
            "or lower max_context_tokens or max_batch_tokens",
        )
    num_blocks = min(left // block_bytes, max_running * blocks_per_context)
    return MemoryPlan(BASE_BYTES, weights, activations, block_bytes, needs.block_size, num_blocks)


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)}MiB"
