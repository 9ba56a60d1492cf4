"""Law 3 on the reference runner: bits do not depend on company, chunks, blocks or threads.

Every token's last hidden state and logits are compared with those of its sequence computed alone,
in one piece, by another runner. Equal means equal bits.
"""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.engine.runners.linear import linear
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.engine.runners.threads import TaskThreads, one_blas_thread
from salver.models import ModelConfig, RopeConfig, RopeScaling
from salver.testing.company import hidden_in_company, random_chunks
from salver.testing.steps import Piece, lay_out
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

Floats = NDArray[np.float32]

ROPES = [
    RopeConfig(),
    RopeConfig(scaling=RopeScaling.LINEAR, factor=3.0),
    RopeConfig(scaling=RopeScaling.LLAMA3, factor=8.0, original_max_positions=64),
]
HEADS = [(4, 4), (4, 2), (6, 2), (7, 1), (12, 1), (3, 3)]  # query heads, KV heads


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    heads, kv_heads = draw(st.sampled_from(HEADS))
    return tiny_config(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([4, 8, 10])),
        vocab_size=draw(st.sampled_from([33, 61])),
        rope=draw(st.sampled_from(ROPES)),
        tie_embeddings=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        sliding_window=draw(st.sampled_from([None, 1, 7, 70])),
    )


@given(
    config=configs(),
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=4),
    block_size=st.sampled_from([4, 16, 48]),
    threads=st.integers(1, 3),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=25)
def test_bits_do_not_depend_on_batch_chunks_blocks_or_threads(
    config: ModelConfig, lengths: list[int], block_size: int, threads: int, chance: random.Random
) -> None:
    checkpoint = TinyCheckpoint(config, seed=chance.randrange(1000))
    prompts = [[chance.randrange(config.vocab_size) for _ in range(n)] for n in lengths]
    alone = NumpyRunner(checkpoint, num_blocks=64, block_size=block_size)
    tables = scattered_tables(lengths, block_size, chance)
    together = NumpyRunner(
        checkpoint, num_blocks=1 + max(map(max, tables)), block_size=block_size, threads=threads
    )
    poison(together)
    found = hidden_in_company(together, prompts, tables, random_chunks(lengths, chance))
    for prompt, hidden in zip(prompts, found, strict=True):
        expected = alone.forward(lay_out([Piece("alone", prompt, 0, range(64))]))
        np.testing.assert_array_equal(hidden, expected)
        some = chance.sample(range(len(prompt)), k=chance.randint(1, len(prompt)))
        np.testing.assert_array_equal(together.logits(hidden[some]), alone.logits(expected)[some])


@given(shared=st.integers(1, 6), rest=st.integers(1, 80), chance=st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_a_prefix_hit_changes_no_bit(shared: int, rest: int, chance: random.Random) -> None:
    """The second sequence reads blocks that the first one wrote, from this step or an earlier one."""
    config = tiny_config(num_heads=6, num_kv_heads=2)
    runner = NumpyRunner(TinyCheckpoint(config), num_blocks=64, block_size=16)
    head = [chance.randrange(config.vocab_size) for _ in range(shared * 16)]
    first, second = ([chance.randrange(config.vocab_size) for _ in range(rest)] for _ in range(2))
    expected = runner.forward(lay_out([Piece("alone", head + second, 0, range(12))]))
    owned = list(range(20, 20 + shared))
    writer = Piece("writer", head + first, 0, [*owned, *range(40, 46)])
    reader = Piece("reader", second, len(head), [*owned, *range(50, 56)])
    if chance.random() < 0.5:
        hidden = runner.forward(lay_out([writer, reader]))[-rest:]
    else:
        runner.forward(lay_out([writer]))
        hidden = runner.forward(lay_out([reader]))
    np.testing.assert_array_equal(hidden, expected[-rest:])


@given(
    length=st.integers(550, 1000),
    window=st.sampled_from([None, 600]),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=10)
def test_bits_hold_over_many_key_tiles(
    length: int, window: int | None, chance: random.Random
) -> None:
    """Long enough that an unordered sum over key tiles would associate in another way."""
    config = tiny_config(num_layers=1, sliding_window=window)
    runner = NumpyRunner(TinyCheckpoint(config), num_blocks=64, block_size=16)
    prompt = [chance.randrange(config.vocab_size) for _ in range(length)]
    expected = runner.forward(lay_out([Piece("whole", prompt, 0, range(64))]))
    cuts = sorted(chance.sample(range(1, length), k=4))
    for first, end in zip([0, *cuts], [*cuts, length], strict=True):
        hidden = runner.forward(lay_out([Piece("part", prompt[first:end], first, range(64))]))
        np.testing.assert_array_equal(hidden, expected[first:end])


@given(
    rows=st.integers(1, 70),
    width=st.integers(1, 300),
    outputs=st.integers(1, 600),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_a_row_of_a_product_does_not_know_its_neighbours(
    rows: int, width: int, outputs: int, chance: random.Random
) -> None:
    rng = np.random.default_rng(chance.randrange(1000))
    x = rng.standard_normal((rows, width), np.float32)
    weight = rng.standard_normal((outputs, width), np.float32)
    row, place = chance.randrange(rows), chance.randrange(40)
    elsewhere = rng.standard_normal((place + 1, width), np.float32)
    elsewhere[place] = x[row]
    with one_blas_thread():
        product = linear(x, weight, None, TaskThreads(2))
        again = linear(elsewhere, weight, None, TaskThreads(1))
    np.testing.assert_array_equal(product[row], again[place])
    np.testing.assert_allclose(product, x @ weight.T, atol=1e-3)


def scattered_tables(lengths: list[int], block_size: int, chance: random.Random) -> list[list[int]]:
    counts = [-(-length // block_size) for length in lengths]
    ids = chance.sample(range(2 * sum(counts)), k=sum(counts))
    return [[ids.pop() for _ in range(count)] for count in counts]


def poison(runner: NumpyRunner) -> None:
    """Fill the pool with what a sequence must never see."""
    runner._keys[:] = np.nan
    runner._values[:] = np.nan
