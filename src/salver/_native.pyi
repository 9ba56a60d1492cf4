"""The native core (see `native/`): a Llama-family decoder, one call per step."""

import numpy as np
from numpy.typing import NDArray

BLOCK_TOKENS: int
GATE_LANES: int
PACKED_LAYOUT: int
"""Raised when the bytes of `Model.sections` change their meaning."""

def kv_head_bytes(kv_cache: str, head_dim: int) -> int:
    """Bytes of one layer's one KV head's part of a block."""

def available_isas() -> list[str]:
    """Names of the kernel paths that run here, slowest first."""

def product(
    isa: str,
    precision: str,
    x: NDArray[np.float32],
    weights: NDArray[np.float32] | GroupedArray,
    bias: NDArray[np.float32] | None = None,
    epilogue: str = "store",
    onto: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """One kernel by itself, for tests: `x` [m, k] times `weights` [n, k] transposed, plus bias.

    The epilogue is `store`, `add` to `onto` [m, n], or `swiglu` of rows of weights that are 16 gates,
    their 16 ups, and so on: [m, n / 2].
    """

def norm(
    isa: str, x: NDArray[np.float32], weight: NDArray[np.float32], epsilon: float
) -> NDArray[np.float32]: ...
def heads(
    isa: str,
    kv_cache: str,
    projections: NDArray[np.float32],
    *,
    kv_heads: int,
    cosines: NDArray[np.float32],
    sines: NDArray[np.float32],
    q_norm: NDArray[np.float32] | None = None,
    k_norm: NDArray[np.float32] | None = None,
    epsilon: float = 0.0,
    slot: int = 0,
    clear_from: int = 32,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One token's projections [heads + 2 * kv_heads, head_dim], written as `native/kv_block.h` says:
    queries [heads, bytes], and the block [kv_heads, bytes], of bytes 0xff before."""

def weigh(
    isa: str, logits: NDArray[np.float32], maximum: float, temperature: float
) -> NDArray[np.float64]:
    """exp((logits - maximum) / temperature)."""

def attention(
    isa: str,
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    window: int,
    kv_cache: str = "bf16",
    in_parts: bool = False,
) -> NDArray[np.float32]:
    """Of the context's last tokens: queries [tokens, heads, dim], keys [context, kv_heads, dim].

    `in_parts`: every group of keys by itself, merged afterwards, as threads that share a row do.
    """

def draw(isa: str, logits: NDArray[np.float32], asked: DrawArrays) -> None:
    """What each row of `logits` [rows, vocab] asks for, for tests."""

def best(isa: str, x: NDArray[np.float32]) -> int: ...
def group_panel_bytes(kind: str, k: int) -> int:
    """Of 32 channels of `k` weights in 4-bit groups."""

class GroupedArray:
    """A matrix in 4-bit groups, for `product` and `add_layer`; scales and minimums as bits of f16.

    See `salver.models.FourBitGroups` for kinds and shapes. Keeps the arrays it was made from.
    """

    def __init__(
        self,
        kind: str,
        *,
        codes: NDArray[np.uint8],
        scales: NDArray[np.uint16],
        minimums: NDArray[np.uint16] | None,
        inner_scales: NDArray[np.uint8] | None,
        inner_minimums: NDArray[np.uint8] | None,
    ) -> None: ...

def read_rate(*, threads: int, bytes: int, seconds: float) -> float:  # noqa: A002 - the core's name
    """Bytes per second that threads read of a buffer of that size, over `seconds`."""

def matrix_rate(isa: str, precision: str, *, threads: int, seconds: float) -> float:
    """Operations per second of the matrix unit alone, or of the product kernel over operands in the
    nearest caches where there is none.

    A multiply and an add are two; the two rows of a `w8a16` token count both.
    """

class DrawArrays:
    """What rows ask of the sampler; `native/draw_arrays.h` says what each array holds.

    The last four are written to. A token is -1 where a logit is not finite, -2 where all are banned.
    """

    def __init__(
        self,
        *,
        draws: NDArray[np.float64],
        edit_starts: NDArray[np.int32],
        edits: NDArray[np.float64],
        given: NDArray[np.int32],
        tops: NDArray[np.int32],
        tokens: NDArray[np.int32],
        logprobs: NDArray[np.float64],
        top_tokens: NDArray[np.int32],
        top_logprobs: NDArray[np.float64],
    ) -> None: ...

class Model:
    def __init__(
        self,
        *,
        layers: int,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        intermediate: int,
        vocab: int,
        window: int,
        epsilon: float,
        threads: int,
        blocks: int,
        step_tokens: int,
        precision: str,
        kv_cache: str = "bf16",
        isa: str,
    ) -> None: ...
    def set_rotary(self, cosines: NDArray[np.float32], sines: NDArray[np.float32]) -> None: ...
    def set_embedding(self, values: NDArray[np.float32]) -> None: ...
    def set_head(self, values: NDArray[np.float32], norm: NDArray[np.float32]) -> None: ...
    def add_layer(
        self,
        *,
        input_norm: NDArray[np.float32],
        qkv: NDArray[np.float32] | GroupedArray,
        qkv_bias: NDArray[np.float32] | None,
        q_norm: NDArray[np.float32] | None,
        k_norm: NDArray[np.float32] | None,
        output: NDArray[np.float32] | GroupedArray,
        post_norm: NDArray[np.float32],
        gate_up: NDArray[np.float32] | GroupedArray,
        down: NDArray[np.float32] | GroupedArray,
    ) -> None: ...
    def reserve(self, *, qk_norm: bool, groups: list[tuple[str, ...]]) -> None:
        """`groups` has the kinds of qkv, output, gate_up and down for each layer, or no line at all.

        In place of embedding, head and layers: room for them, zero until `sections` are filled."""
    def sections(self) -> list[tuple[str, str, NDArray[np.uint8]]]:
        """(name, element type, bytes [n]) of everything kept of the weights.

        The arrays are the model's own memory. Fill them only after `reserve`, before the first step.
        Names, order and sizes follow from shape and precision; bytes do not depend on `isa`.
        """
    def step(
        self,
        token_ids: NDArray[np.int32],
        starts: NDArray[np.int32],
        first_positions: NDArray[np.int32],
        table_starts: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        rows: NDArray[np.int32],
        asked: DrawArrays,
        *,
        keep_all: bool = False,
    ) -> None:
        """Compute the tokens, then what each of `rows` asks for; only those rows are kept, or all."""

    def logits(self, rows: NDArray[np.int32], out: NDArray[np.float32]) -> None:
        """[rows, vocab] of rows that the last step kept."""

    def hidden(self, out: NDArray[np.float32]) -> None:
        """[kept, hidden] of the rows that the last step kept, in their order."""

    def fill_pool(self, byte: int) -> None: ...
