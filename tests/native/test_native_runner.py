"""The native runner against the reference runner, and law 3 on it: equal means equal bits."""

import itertools
import random
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec, SchedulerOutput
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.engine.runners.read_out import LogitRow, PromptTarget
from salver.engine.sampling import sample, token_logprobs
from salver.models import ModelConfig
from salver.models.checkpoint import Checkpoint
from salver.testing.company import hidden_in_company, random_chunks
from salver.testing.rounded import Bf16Weights
from salver.testing.steps import Piece, lay_out
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

if TYPE_CHECKING:
    from salver.engine.runners.native_runner import NativeRunner

native = pytest.importorskip("salver._native")
native_runner = pytest.importorskip("salver.engine.runners.native_runner")
native_rows = pytest.importorskip("salver.engine.runners.native_rows")

Floats = NDArray[np.float32]
ISAS = native.available_isas()
PRECISIONS = ["w8a16", "w8a8", "bf16"]
KV_CACHES = ["bf16", "int8"]
PATHS = [
    *itertools.product(ISAS, PRECISIONS, KV_CACHES),
    *itertools.product(ISAS, ["bf16"], ["f32"]),
]
HEADS = [(4, 4), (4, 2), (6, 2), (7, 1), (20, 1), (3, 3)]
BLOCKS = 16


def make(
    checkpoint: Checkpoint, isa: str, precision: str, kv_cache: str = "bf16", threads: int = 1
) -> "NativeRunner":
    """A runner whose pool is full of NaN: what a sequence must never see."""
    runner: NativeRunner = native_runner.NativeRunner(
        checkpoint,
        num_blocks=BLOCKS,
        max_batch_tokens=512,
        precision=precision,
        kv_cache=kv_cache,
        threads=threads,
        isa=isa,
    )
    runner.fill_pool(0xFF)
    return runner


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    heads, kv_heads = draw(st.sampled_from(HEADS))
    return tiny_config(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([4, 8, 10, 64])),
        vocab_size=draw(st.sampled_from([33, 61, 300])),
        tie_embeddings=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        sliding_window=draw(st.sampled_from([None, 1, 7, 70])),
    )


of_any_batch = given(
    config=configs(),
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=3),
    chance=st.randoms(use_true_random=False),
)


@pytest.mark.parametrize(("isa", "precision", "kv_cache"), PATHS)
@of_any_batch
@settings(max_examples=8)
def test_bits_do_not_depend_on_batch_chunks_blocks_or_threads(
    isa: str,
    precision: str,
    kv_cache: str,
    config: ModelConfig,
    lengths: list[int],
    chance: random.Random,
) -> None:
    checkpoint = TinyCheckpoint(config, seed=chance.randrange(1000))
    prompts = [[chance.randrange(config.vocab_size) for _ in range(n)] for n in lengths]
    ids = chance.sample(range(BLOCKS), k=BLOCKS)
    tables = [[ids.pop() for _ in range(-(-length // 32))] for length in lengths]
    together = make(checkpoint, isa, precision, kv_cache, threads=chance.randint(2, 3))
    found = hidden_in_company(together, prompts, tables, random_chunks(lengths, chance))
    for prompt, hidden in zip(prompts, found, strict=True):
        alone = make(checkpoint, isa, precision, kv_cache)
        expected = alone.forward(lay_out([Piece("alone", prompt, 0, range(BLOCKS))]))
        np.testing.assert_array_equal(hidden, expected)
        logits = alone.logits(range(len(prompt)))
        some = chance.sample(range(len(prompt)), k=chance.randint(1, len(prompt)))
        np.testing.assert_array_equal(alone.logits(some), logits[some])


@pytest.mark.parametrize(("isa", "precision", "kv_cache"), PATHS)
@of_any_batch
@settings(max_examples=8)
def test_rows_that_nobody_asks_for_change_no_bit(
    isa: str,
    precision: str,
    kv_cache: str,
    config: ModelConfig,
    lengths: list[int],
    chance: random.Random,
) -> None:
    """The last layer computes the rows that are wanted, any or none, and the keys of all."""
    checkpoint = TinyCheckpoint(config, seed=chance.randrange(1000))
    tables = [range(5 * i, 5 * i + 5) for i in range(len(lengths))]

    def pieces(counts: list[int], firsts: list[int]) -> SchedulerOutput:
        steps = zip(counts, firsts, tables, strict=True)
        tokens = ([chance.randrange(config.vocab_size) for _ in range(count)] for count in counts)
        return lay_out([Piece("a", next(tokens), first, table) for _, first, table in steps])

    prompts, after = pieces(lengths, [0] * len(lengths)), pieces([1] * len(lengths), lengths)
    every, some = (make(checkpoint, isa, precision, kv_cache, threads) for threads in (1, 2))
    every.forward(prompts)
    rows = chance.sample(range(sum(lengths)), k=chance.randint(0, sum(lengths)))
    wanted = [LogitRow(row, "a", PromptTarget(0, 0)) for row in rows]
    some._step(prompts, native_rows.NativeRows(wanted, config.vocab_size))
    np.testing.assert_array_equal(some.logits(rows), every.logits(rows))
    np.testing.assert_array_equal(some.forward(after), every.forward(after))


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_that_was_not_asked_for_is_not_told(isa: str) -> None:
    runner = make(TinyCheckpoint(tiny_config()), isa, "w8a16")
    greedy = SampleSpec(SamplingParams(max_tokens=1, temperature=0), 0, [], [])
    runner.execute(lay_out([Piece("a", [1, 2, 3], 0, [0], greedy)]))
    assert np.isfinite(runner.logits([2])).all()
    with pytest.raises(ValueError, match="a row is one that the last step kept"):
        runner.logits([1])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(("isa", "kv_cache"), [*itertools.product(ISAS, KV_CACHES)])
def test_threads_that_share_one_long_context_change_no_bit(
    isa: str, kv_cache: str, threads: int
) -> None:
    """Four groups of 128 keys and few queries: each thread takes some groups of the same rows."""
    checkpoint = TinyCheckpoint(tiny_config(num_heads=6, num_kv_heads=2))
    prompt = np.random.default_rng(7).integers(0, 61, 500).tolist()
    alone, shared = (make(checkpoint, isa, "w8a16", kv_cache, n) for n in (1, threads))
    expected = alone.forward(lay_out([Piece("a", prompt, 0, range(BLOCKS))]))
    shared.forward(lay_out([Piece("a", prompt[:495], 0, range(BLOCKS))]))
    for start, end in ((495, 496), (496, 498), (498, 500)):
        found = shared.forward(lay_out([Piece("a", prompt[start:end], start, range(BLOCKS))]))
        np.testing.assert_array_equal(found, expected[start:end])


@pytest.mark.parametrize(("isa", "precision", "kv_cache"), PATHS)
def test_a_prefix_hit_changes_no_bit(isa: str, precision: str, kv_cache: str) -> None:
    """The reader finds its first block written by another sequence, in the same step."""
    checkpoint = TinyCheckpoint(tiny_config(num_heads=6, num_kv_heads=2))
    rng = np.random.default_rng(3)
    head, first, second = (rng.integers(0, 61, size).tolist() for size in (64, 50, 77))
    alone = make(checkpoint, isa, precision, kv_cache)
    expected = alone.forward(lay_out([Piece("alone", head + second, 0, range(BLOCKS))]))
    runner = make(checkpoint, isa, precision, kv_cache, threads=2)
    writer = Piece("writer", head + first, 0, [9, 4, 1, 0])
    reader = Piece("reader", second, 64, [9, 4, 2, 3, 5])
    found = runner.forward(lay_out([writer, reader]))[-77:]
    np.testing.assert_array_equal(found, expected[-77:])


@pytest.mark.parametrize(("isa", "precision", "kv_cache"), PATHS)
@given(config=configs(), length=st.integers(1, 150))
@settings(max_examples=6)
def test_logits_are_near_the_reference(
    isa: str, precision: str, kv_cache: str, config: ModelConfig, length: int
) -> None:
    """Held to what each precision rounds; exactness is held kernel by kernel."""
    checkpoint = TinyCheckpoint(config)
    rng = np.random.default_rng(length)
    plan = lay_out([Piece("a", rng.integers(0, config.vocab_size, length).tolist(), 0, range(64))])
    exact = kv_cache == "f32"
    reference = NumpyRunner(Bf16Weights(checkpoint) if exact else checkpoint, num_blocks=64)
    expected = reference.logits(reference.forward(plan))
    plan = lay_out([Piece("a", plan.token_ids, 0, range(BLOCKS))])
    runner = make(checkpoint, isa, precision, kv_cache)
    runner.forward(plan)
    found = runner.logits(range(length))
    error = np.sqrt(np.square(found - expected).mean()) / expected.std()
    assert error < (1e-4 if exact else {"bf16": 0.1, "w8a16": 0.15, "w8a8": 0.2}[precision])


@pytest.mark.parametrize(("isa", "precision", "kv_cache"), PATHS)
def test_the_greedy_token_is_the_largest_logit(isa: str, precision: str, kv_cache: str) -> None:
    checkpoint = TinyCheckpoint(tiny_config(vocab_size=600))
    runner = make(checkpoint, isa, precision, kv_cache, threads=2)
    rng = np.random.default_rng(5)
    greedy = SampleSpec(SamplingParams(max_tokens=1, temperature=0), 0, [], [])
    biased = SampleSpec(SamplingParams(1, temperature=0, logit_bias={77: 1e4}), 0, [], [])
    pieces = [
        Piece(str(i), rng.integers(0, 600, 5).tolist(), 0, [i], biased if i == 3 else greedy)
        for i in range(12)
    ]
    plan = lay_out(pieces)
    output = runner.execute(plan)
    logits = runner.logits([each.end - 1 for each in plan.sequences])
    expected = logits.argmax(axis=1).tolist()
    expected[3] = 77
    assert [output.sampled[str(i)].token_id for i in range(12)] == expected
    assert not output.failed


def test_a_sequence_that_is_not_finite_fails_alone() -> None:
    class Broken(TinyCheckpoint):
        def tensor(self, name: str) -> Floats:
            values = super().tensor(name)
            if "embed" in name:
                values = values.copy()
                values[7] = np.nan
            return values

    runner = make(Broken(tiny_config(tie_embeddings=False)), ISAS[-1], "w8a16", threads=2)
    greedy = SampleSpec(SamplingParams(max_tokens=1, temperature=0), 0, [], [])
    plan = lay_out([Piece("bad", [1, 7, 2], 0, [0], greedy), Piece("good", [1, 2], 0, [1], greedy)])
    output = runner.execute(plan)
    assert set(output.sampled) == {"good"}
    assert output.failed["bad"].rule == "sampling.finite_logits"
    reused = lay_out([Piece("next", [1, 2], 0, [0], greedy)])  # the block that held NaN
    assert runner.execute(reused).sampled["next"] == output.sampled["good"]


def test_a_step_that_the_core_cannot_take_is_refused_before_it_runs() -> None:
    runner = make(TinyCheckpoint(tiny_config()), ISAS[-1], "w8a16")
    with pytest.raises(ValueError, match="1 to step_tokens"):
        runner.forward(lay_out([Piece("a", [1] * 513, 0, range(BLOCKS))]))
    with pytest.raises(ValueError, match="a block table covers"):
        runner.forward(lay_out([Piece("a", [1] * 33, 0, [0])]))
    with pytest.raises(ValueError, match="a token id is in"):
        runner.forward(lay_out([Piece("a", [61], 0, [0])]))
    with pytest.raises(ValueError, match="a block id is in"):
        runner.forward(lay_out([Piece("a", [1], 0, [BLOCKS])]))
    with pytest.raises(ValueError, match="no sse path"):
        make(TinyCheckpoint(tiny_config()), "sse", "w8a16")


@pytest.mark.parametrize("isa", ISAS)
def test_every_way_of_sampling_meets_in_one_step(isa: str) -> None:
    """Drawn in the core, drawn by the definition, or greedy: the definition's token each time."""
    runner = make(TinyCheckpoint(tiny_config(vocab_size=600)), isa, "w8a16", threads=2)
    ways = [
        SamplingParams(1, temperature=0),
        SamplingParams(1, temperature=1.0),
        SamplingParams(1, temperature=0.7, top_k=40, top_p=0.9),
        SamplingParams(1, temperature=1.2, min_p=0.02),
        SamplingParams(1, temperature=1.0, repetition_penalty=1.3),
        SamplingParams(1, temperature=1.0, logprobs=3),
    ]
    specs = [SampleSpec(way, 99 + i, [1, 2], [3]) for i, way in enumerate(ways)]
    pieces = [Piece(str(i), [i, 2, 5 * i], 0, [i], spec) for i, spec in enumerate(specs)]
    plan = lay_out(pieces)
    output = runner.execute(plan)
    logits = runner.logits([each.end - 1 for each in plan.sequences])
    for i, spec in enumerate(specs):
        assert output.sampled[str(i)] == sample(logits[i], spec)
    assert np.float32(1e-40) * np.float32(0.5) > 0, "the caller's floating-point mode came back"


class OneVocabularyAtATime(TinyCheckpoint):
    """Decodes anew at each reading, as files do, and the head only once the embedding is gone."""

    def tensor(self, name: str) -> Floats:
        decoded = super().tensor(name).copy()
        if name == "model.embed_tokens.weight":
            self.embedding = weakref.ref(decoded)
        if name == "lm_head.weight":
            assert self.embedding() is None, "the embedding is still held in float32"
        return decoded


def test_an_embedding_is_given_back_before_the_head_is_decoded() -> None:
    """Both in float32 are 1.9 GB of a model of 1.5 billion parameters, more than all else."""
    make(OneVocabularyAtATime(tiny_config(tie_embeddings=False)), ISAS[-1], "w8a16")


@pytest.mark.parametrize("isa", ISAS)
def test_greedy_rows_among_more_drawn_ones_than_exist_at_once(isa: str) -> None:
    """69 rows keep their logits, 32 of them at a time; three between them only want the largest."""
    runner = make(TinyCheckpoint(tiny_config(vocab_size=600)), isa, "w8a16", threads=2)
    greedy = SampleSpec(SamplingParams(max_tokens=1, temperature=0), 0, [], [])
    prompt = [(7 * i) % 600 for i in range(70)]
    scored = Piece("scored", prompt, 0, [2, 3, 4, 5, 6], greedy, 0, prompt[1:])
    pieces = [
        Piece("before", [5, 9], 0, [0], greedy),
        scored,
        Piece("after", [1, 2, 3], 0, [1], greedy),
    ]
    plan = lay_out(pieces)
    output = runner.execute(plan)
    logits = runner.logits([each.end - 1 for each in plan.sequences])
    for row, piece in zip(logits, pieces, strict=True):
        assert output.sampled[piece.key].token_id == int(row.argmax())
    rows = runner.logits(range(2, 2 + 69))
    expected = [token_logprobs(row, token, 0) for row, token in zip(rows, prompt[1:], strict=True)]
    found = output.prompt_logprobs["scored"]
    assert [token.token_id for token in found] == prompt[1:]
    assert [t.logprob for t in found] == pytest.approx([t.logprob for t in expected], abs=1e-12)
