"""The runner against the textbook: one token, one head, one key at a time, in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec, SchedulerOutput
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.models import Checkpoint, ModelConfig, RopeConfig, RopeScaling
from salver.testing.steps import Piece, lay_out
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

Doubles = NDArray[np.float64]

FAMILIES = {
    "llama, grouped": tiny_config(num_heads=6, num_kv_heads=2),
    "llama, untied, multi-query": tiny_config(num_kv_heads=1, tie_embeddings=False),
    "multi-query, more heads than a tile": tiny_config(num_heads=12, num_kv_heads=1),
    "llama 3 rope": tiny_config(
        rope=RopeConfig(
            scaling=RopeScaling.LLAMA3,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_positions=64,
        )
    ),
    "linear rope": tiny_config(rope=RopeConfig(scaling=RopeScaling.LINEAR, factor=4.0)),
    "rope factors": tiny_config(rope=RopeConfig(frequency_factors=(1.0, 1.5, 4.0, 8.0))),
    "mistral": tiny_config(architecture="mistral", sliding_window=9),
    "qwen2": tiny_config(architecture="qwen2", attention_bias=True, num_kv_heads=4),
    "qwen3": tiny_config(architecture="qwen3", qk_norm=True, head_dim=10),
}


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
def test_logits_are_those_of_the_textbook(config: ModelConfig) -> None:
    checkpoint = TinyCheckpoint(config, seed=3)
    tokens = np.random.default_rng(5).integers(0, config.vocab_size, 80).tolist()
    runner = NumpyRunner(checkpoint, num_blocks=8)
    table = [6, 1, 7, 0, 3]
    pieces = (Piece("a", tokens[:70], 0, table), Piece("a", tokens[70:], 70, table))
    logits = np.concatenate([runner.logits(runner.forward(lay_out([p]))) for p in pieces])
    np.testing.assert_allclose(logits, textbook_logits(checkpoint, tokens), atol=2e-4, rtol=1e-3)


@given(
    window=st.integers(1, 150),
    length=st.integers(1, 200),
    block_size=st.sampled_from([4, 16, 48, 64]),
)
@settings(max_examples=15)
def test_a_window_hides_all_but_its_last_keys(window: int, length: int, block_size: int) -> None:
    config = tiny_config(num_layers=1, sliding_window=window)
    checkpoint = TinyCheckpoint(config, seed=window)
    tokens = np.random.default_rng(length).integers(0, config.vocab_size, length).tolist()
    runner = NumpyRunner(checkpoint, num_blocks=64, block_size=block_size)
    table = range(5, 5 + -(-length // block_size))
    logits = runner.logits(runner.forward(lay_out([Piece("a", tokens, 0, table)])))
    np.testing.assert_allclose(logits, textbook_logits(checkpoint, tokens), atol=2e-4, rtol=1e-3)


def test_an_empty_step_gives_nothing() -> None:
    runner = NumpyRunner(TinyCheckpoint(tiny_config()), num_blocks=4)
    output = runner.execute(SchedulerOutput())
    assert (output.sampled, output.prompt_logprobs, output.failed) == ({}, {}, {})


def test_execute_samples_only_where_asked() -> None:
    runner = NumpyRunner(TinyCheckpoint(tiny_config()), num_blocks=8)
    output = runner.execute(
        lay_out(
            [
                Piece("waits", [1, 2, 3], 0, [0]),
                Piece("samples", [1, 2, 3], 0, [1], sample=greedy(logprobs=2)),
            ]
        )
    )
    assert output.sampled.keys() == {"samples"}
    logits = runner.logits(runner.forward(lay_out([Piece("again", [1, 2, 3], 0, [2])])))
    chosen = output.sampled["samples"]
    assert chosen.token_id == logits[-1].argmax()
    assert [chosen.token_id, chosen.logprob] == list(chosen.top[0])
    assert len(chosen.top) == 2


def test_prompt_logprobs_follow_each_token_over_any_number_of_chunks() -> None:
    config = tiny_config()
    runner = NumpyRunner(TinyCheckpoint(config), num_blocks=8)
    prompt = [5, 9, 2, 2, 40, 17, 3]
    whole = runner.execute(
        lay_out([Piece("a", prompt, 0, [0], greedy(), 3, next_prompt_tokens=prompt[1:])])
    )
    first = runner.execute(
        lay_out([Piece("b", prompt[:4], 0, [1], None, 3, next_prompt_tokens=prompt[1:5])])
    )
    second = runner.execute(
        lay_out([Piece("b", prompt[4:], 4, [1], greedy(), 3, next_prompt_tokens=prompt[5:])])
    )
    entries = whole.prompt_logprobs["a"]
    assert [entry.token_id for entry in entries] == prompt[1:]
    assert [*first.prompt_logprobs["b"], *second.prompt_logprobs["b"]] == list(entries)
    assert whole.sampled["a"] == second.sampled["b"]
    logits = runner.logits(runner.forward(lay_out([Piece("c", prompt, 0, [2])])))[:-1]
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    found = [entry.logprob for entry in entries]
    np.testing.assert_allclose(found, expected[np.arange(6), prompt[1:]], atol=1e-9)


def test_more_prompt_logprobs_than_fit_one_tile() -> None:
    config = tiny_config()
    runner = NumpyRunner(TinyCheckpoint(config), num_blocks=8)
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, 50).tolist()
    output = runner.execute(lay_out([Piece("a", prompt, 0, range(4), None, 0, prompt[1:])]))
    assert [entry.token_id for entry in output.prompt_logprobs["a"]] == prompt[1:]


def test_a_broken_row_fails_alone() -> None:
    """One sequence with a NaN in its past; its neighbour's tokens share every tile with it."""
    runner = NumpyRunner(TinyCheckpoint(tiny_config()), num_blocks=8)
    alone = runner.execute(lay_out([Piece("well", [1, 2, 3], 0, [0], greedy(logprobs=4))]))
    runner.forward(lay_out([Piece("broken", [4, 5], 0, [1])]))
    runner._values[:, 1, 0] = np.nan
    both = runner.execute(
        lay_out(
            [
                Piece("broken", [6], 2, [1], greedy()),
                Piece("well", [1, 2, 3], 0, [2], greedy(logprobs=4)),
            ]
        )
    )
    assert both.sampled == alone.sampled
    assert both.failed["broken"].rule == "sampling.finite_logits"


def test_large_negative_gates_do_not_warn() -> None:
    checkpoint = TinyCheckpoint(tiny_config())
    checkpoint.tensor("model.layers.0.mlp.gate_proj.weight")[:] *= 500
    runner = NumpyRunner(checkpoint, num_blocks=2)
    assert np.isfinite(runner.forward(lay_out([Piece("a", [1, 2, 3], 0, [0])]))).all()


def greedy(logprobs: int | None = None) -> SampleSpec:
    return SampleSpec(SamplingParams(max_tokens=1, temperature=0, logprobs=logprobs), 0, (), ())


def textbook_logits(checkpoint: Checkpoint, tokens: list[int]) -> Doubles:
    """[tokens, vocab_size], in double precision, from the formulas of the papers."""
    config = checkpoint.config

    def tensor(name: str) -> Doubles:
        return checkpoint.tensor(name).astype(np.float64)

    hidden = tensor("model.embed_tokens.weight")[tokens]
    for index in range(config.num_layers):
        hidden = textbook_layer(config, tensor, f"model.layers.{index}.", hidden)
    head = "model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"
    logits: Doubles = norm(config, hidden, tensor("model.norm.weight")) @ tensor(head).T
    return logits


def textbook_layer(
    config: ModelConfig, read: Callable[[str], Doubles], prefix: str, hidden: Doubles
) -> Doubles:
    def tensor(name: str) -> Doubles:
        return read(prefix + name)

    x = norm(config, hidden, tensor("input_layernorm.weight"))
    heads = {}
    for part, count in (
        ("q", config.num_heads),
        ("k", config.num_kv_heads),
        ("v", config.num_kv_heads),
    ):
        y = x @ tensor(f"self_attn.{part}_proj.weight").T
        if config.attention_bias:
            y = y + tensor(f"self_attn.{part}_proj.bias")
        y = y.reshape(len(x), count, config.head_dim)
        if config.qk_norm and part != "v":
            y = norm(config, y, tensor(f"self_attn.{part}_norm.weight"))
        heads[part] = y if part == "v" else rotate(config, y)
    mixed = np.zeros((len(x), config.num_heads, config.head_dim))
    for t in range(len(x)):
        first = 0 if config.sliding_window is None else max(0, t + 1 - config.sliding_window)
        for head in range(config.num_heads):
            shared = head // (config.num_heads // config.num_kv_heads)
            scores = heads["k"][first : t + 1, shared] @ heads["q"][t, head]
            scores = np.exp(scores / math.sqrt(config.head_dim))
            mixed[t, head] = scores / scores.sum() @ heads["v"][first : t + 1, shared]
    hidden = hidden + mixed.reshape(len(x), -1) @ tensor("self_attn.o_proj.weight").T
    x = norm(config, hidden, tensor("post_attention_layernorm.weight"))
    gate = x @ tensor("mlp.gate_proj.weight").T
    up = x @ tensor("mlp.up_proj.weight").T
    gated: Doubles = gate / (1 + np.exp(-gate)) * up
    return hidden + gated @ tensor("mlp.down_proj.weight").T


def norm(config: ModelConfig, x: Doubles, weight: Doubles) -> Doubles:
    scale: Doubles = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.rms_norm_eps)
    return x * scale * weight


def rotate(config: ModelConfig, x: Doubles) -> Doubles:
    out = np.empty_like(x)
    half = config.head_dim // 2
    for position in range(len(x)):
        for i in range(half):
            angle = position * textbook_frequency(config.rope, i, config.head_dim)
            a, b = x[position, :, i], x[position, :, i + half]
            out[position, :, i] = a * math.cos(angle) - b * math.sin(angle)
            out[position, :, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def textbook_frequency(rope: RopeConfig, i: int, head_dim: int) -> float:
    frequency: float = 1 / rope.theta ** (2 * i / head_dim)
    if rope.frequency_factors is not None:
        return frequency / rope.frequency_factors[i]
    if rope.scaling is RopeScaling.LINEAR:
        return frequency / rope.factor
    if rope.scaling is RopeScaling.NONE:
        return frequency
    wavelength = 2 * math.pi / frequency
    if wavelength < rope.original_max_positions / rope.high_freq_factor:
        return frequency
    if wavelength > rope.original_max_positions / rope.low_freq_factor:
        return frequency / rope.factor
    smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    return (1 - smooth) * frequency / rope.factor + smooth * frequency
