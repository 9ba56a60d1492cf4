"""Each sampling parameter against a straightforward second writing of its definition."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec
from salver.engine.sampling import (
    draw_weights,
    likeliest,
    log_softmax,
    processed_logits,
    sample,
    splitmix64,
    token_logprobs,
    uniform,
)
from salver.errors import BackendError

Row = NDArray[np.float32]

# A coarse grid makes ties common.
rows = st.lists(st.integers(-24, 24), min_size=1, max_size=40).map(
    lambda quarters: np.array(quarters, np.float32) / np.float32(4)
)


def spec(
    seed: int = 0,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    banned: tuple[int, ...] = (),
    **params: Any,
) -> SampleSpec:
    return SampleSpec(SamplingParams(max_tokens=1, **params), seed, prompt, output, banned)


# -- greedy ---------------------------------------------------------------------------------------


@given(rows)
def test_greedy_takes_the_lowest_id_of_the_largest_logits(logits: Row) -> None:
    expected = min(i for i in range(len(logits)) if logits[i] == max(logits))
    assert sample(logits, spec(temperature=0)).token_id == expected


@given(rows, st.integers(0, 2**64 - 1))
def test_greedy_ignores_seed_and_the_filters(logits: Row, seed: int) -> None:
    plain = sample(logits, spec(temperature=0))
    assert sample(logits, spec(seed, temperature=0, top_k=2, top_p=0.1, min_p=0.9)) == plain


def test_greedy_follows_bias_bans_and_penalties() -> None:
    logits = np.array([3, 2, 1, 0], np.float32)
    assert sample(logits, spec(temperature=0, logit_bias={3: 100})).token_id == 3
    assert sample(logits, spec(temperature=0, logit_bias={0: -100})).token_id == 1
    assert sample(logits, spec(temperature=0, banned=(0, 1))).token_id == 2
    assert sample(logits, spec(temperature=0, output=(0,), presence_penalty=1.5)).token_id == 1


# -- what is kept ---------------------------------------------------------------------------------


@given(
    rows,
    st.sampled_from([0.25, 0.7, 1.0, 1.9]),
    st.integers(0, 50),
    st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.999, 1.0]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_filters_keep_what_their_definitions_keep(
    logits: Row, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    scaled = [float(x) / temperature for x in logits]
    assume(not on_the_edge(scaled, top_k, top_p))
    params = SamplingParams(1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    weights = draw_weights(logits.astype(np.float64), params)
    expected = textbook_kept(scaled, top_k, top_p, min_p)
    assert np.flatnonzero(weights).tolist() == sorted(expected)
    found = [weights[i] / weights.sum() for i in expected]
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-12)


def textbook_kept(scaled: list[float], top_k: int, top_p: float, min_p: float) -> dict[int, float]:
    """Probabilities of the tokens that survive, one filter after the other, each renormalized."""
    order = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))
    alive = normalized({i: math.exp(scaled[i]) for i in order[: top_k or None]})
    reached, nucleus = 0.0, {}
    for i, probability in alive.items():
        if top_p < 1 and reached >= top_p:
            break
        nucleus[i] = probability
        reached += probability
    alive = normalized(nucleus)
    floor = min_p * max(alive.values())
    return normalized({i: p for i, p in alive.items() if p >= floor * (1 - 1e-12)})


def on_the_edge(scaled: list[float], top_k: int, top_p: float) -> bool:
    """Whether rounding decides if a token is still in the nucleus."""
    reached = np.cumsum(list(textbook_kept(scaled, top_k, 1.0, 0.0).values()))
    return bool(np.any(np.abs(reached - top_p) < 1e-9)) and top_p < 1


def normalized(weights: dict[int, float]) -> dict[int, float]:
    total = math.fsum(weights.values())
    return {i: weight / total for i, weight in weights.items()}


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    assert draw_weights(np.zeros(5), SamplingParams(1, top_k=1000)).tolist() == [1.0] * 5


def test_top_k_and_top_p_break_ties_by_id() -> None:
    values = np.array([1.0, 5.0, 5.0, 5.0])
    assert draw_weights(values, SamplingParams(1, top_k=2)).tolist() == [0, 1, 1, 0]
    assert draw_weights(values, SamplingParams(1, top_p=0.5)).tolist() == [0, 1, 1, 0]


def test_top_p_on_a_long_tail_equals_a_full_sort() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(50_000) * 3
    for top_p in (0.1, 0.5, 0.9, 0.99, 0.9999):
        weights = draw_weights(values, SamplingParams(1, top_p=top_p))
        order = np.argsort(-values, kind="stable")
        probabilities = np.exp(values[order]) / np.exp(values).sum()
        count = int(np.flatnonzero(np.cumsum(probabilities) >= top_p)[0]) + 1
        assert np.flatnonzero(weights).tolist() == sorted(order[:count].tolist())


@pytest.mark.parametrize("temperature", [1e-300, 1e-5, 1e5, 1e300])
def test_extreme_temperatures_are_finite(temperature: float) -> None:
    values = np.array([-9.0, 30.0, 30.0])
    weights = draw_weights(values, SamplingParams(1, temperature=temperature))
    assert weights[1:].tolist() == [1.0, 1.0]
    assert 0.0 <= weights[0] <= 1.0


# -- bias, bans, penalties ------------------------------------------------------------------------


@given(
    rows,
    st.lists(st.integers(0, 45), max_size=12),
    st.lists(st.integers(0, 45), max_size=12),
    st.dictionaries(st.integers(0, 45), st.sampled_from([-100.0, -1.5, 2.0, 100.0]), max_size=4),
    st.sampled_from([0.5, 1.0, 1.3]),
    st.sampled_from([-2.0, 0.0, 0.7]),
    st.sampled_from([-2.0, 0.0, 0.4]),
)
def test_processing_follows_the_documented_order(
    logits: Row,
    prompt: list[int],
    output: list[int],
    bias: dict[int, float],
    repetition: float,
    presence: float,
    frequency: float,
) -> None:
    size = len(logits)
    prompt, output = [i for i in prompt if i < size], [i for i in output if i < size]
    expected = []
    for i in range(size):
        value = float(logits[i]) + bias.get(i, 0.0)
        if i in prompt or i in output:
            value = value / repetition if value > 0 else value * repetition
        if i in output:
            value -= presence + frequency * output.count(i)
        expected.append(value)
    found = processed_logits(
        logits,
        spec(
            prompt=prompt,
            output=output,
            logit_bias=bias,
            repetition_penalty=repetition,
            presence_penalty=presence,
            frequency_penalty=frequency,
        ),
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_presence_and_frequency_do_not_count_the_prompt() -> None:
    logits = np.zeros(3, np.float32)
    penalized = spec(prompt=(0, 0), output=(1, 1), presence_penalty=1, frequency_penalty=0.5)
    assert processed_logits(logits, penalized).tolist() == [0.0, -2.0, 0.0]


def test_repetition_counts_the_prompt_once() -> None:
    logits = np.array([4, -4, 4], np.float32)
    penalized = spec(prompt=(0, 0), output=(0, 1), repetition_penalty=2.0)
    assert processed_logits(logits, penalized).tolist() == [2.0, -8.0, 4.0]


@pytest.mark.parametrize("penalty", [1e-308, 1e308])
def test_an_extreme_repetition_penalty_stays_comparable(penalty: float) -> None:
    logits = np.array([5, -5, 1], np.float32)
    token = sample(logits, spec(prompt=(0, 1), repetition_penalty=penalty, temperature=0.5))
    assert token.token_id in (0, 1, 2)


@given(st.integers(0, 2**64 - 1))
def test_a_banned_token_is_never_drawn(seed: int) -> None:
    logits = np.array([0, 40, 0], np.float32)
    assert sample(logits, spec(seed, banned=(1,), logit_bias={1: 100})).token_id != 1


@given(st.integers(0, 2**64 - 1))
def test_a_bias_of_100_decides(seed: int) -> None:
    logits = np.array([0, 9, 0], np.float32)
    assert sample(logits, spec(seed, logit_bias={2: 100})).token_id == 2
    assert sample(logits, spec(seed, logit_bias={1: -100, 0: -100})).token_id == 2


def test_ids_outside_the_vocabulary_are_passed_over() -> None:
    logits = np.array([1, 2], np.float32)
    odd = spec(banned=(-1, 2, 10**12), output=(7,), presence_penalty=1, logit_bias={-1: 5, 9: 9})
    assert processed_logits(logits, odd).tolist() == [1.0, 2.0]


def test_banning_everything_is_an_error_with_its_rule() -> None:
    with pytest.raises(BackendError) as caught:
        sample(np.zeros(3, np.float32), spec(banned=(0, 1, 2)))
    assert caught.value.rule == "sampling.some_token_allowed"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_logit_that_is_not_finite_is_an_error(bad: float, temperature: float) -> None:
    logits = np.array([1, bad, 2], np.float32)
    with pytest.raises(BackendError) as caught:
        sample(logits, spec(temperature=temperature))
    assert caught.value.rule == "sampling.finite_logits"
    with pytest.raises(BackendError):
        token_logprobs(logits, 0, 1)


# -- the draw -------------------------------------------------------------------------------------


def test_splitmix64_gives_the_published_numbers() -> None:
    """The first outputs of the reference generator from state 1234567."""
    golden_gamma = 0x9E3779B97F4A7C15
    found = [splitmix64((1234567 + step * golden_gamma) % 2**64) for step in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_uniform_is_a_function_into_the_unit_interval(seed: int, index: int) -> None:
    assert 0.0 <= uniform(seed, index) < 1.0
    assert uniform(seed, index) == uniform(seed, index)


@given(rows, st.integers(0, 2**64 - 1), st.lists(st.integers(0, 3), max_size=5))
def test_a_draw_depends_on_seed_and_length_alone(logits: Row, seed: int, output: list[int]) -> None:
    other = [3 - token for token in output]
    assert sample(logits, spec(seed, output=output)) == sample(logits, spec(seed, (1,), other))


def test_draws_differ_by_seed_and_by_length() -> None:
    by_seed = {uniform(seed, 0) for seed in range(1000)}
    by_length = {uniform(7, index) for index in range(1000)}
    assert len(by_seed) == len(by_length) == 1000


def test_a_draw_rounded_up_to_the_end_stays_on_a_kept_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("salver.engine.sampling.uniform", lambda seed, index: 1.0)
    logits = np.array([0, 1, 0, 0], np.float32)
    assert sample(logits, spec(banned=(3,))).token_id == 2


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 1.7},
        {"top_p": 0.8},
        {"top_k": 3},
        {"min_p": 0.2},
        {"temperature": 1.3, "top_k": 5, "top_p": 0.9, "min_p": 0.05},
    ],
)
@pytest.mark.parametrize("along", ["seeds", "lengths"])
def test_draws_have_the_declared_distribution(params: dict[str, Any], along: str) -> None:
    """Chi-square over 2,000 draws, at a level that a correct sampler misses once in 10^6."""
    logits = np.array([2.0, 0.1, 1.4, -0.7, 0.9, 1.1, -2.5, 0.0], np.float32)
    draws = 2000
    counts = np.zeros(len(logits))
    for i in range(draws):
        seed, output = (i, ()) if along == "seeds" else (11, range(i))
        counts[sample(logits, spec(seed, output=output, **params)).token_id] += 1
    scaled = [float(x) / params.get("temperature", 1.0) for x in logits]
    expected = textbook_kept(
        scaled, params.get("top_k", 0), params.get("top_p", 1.0), params.get("min_p", 0.0)
    )
    assert set(np.flatnonzero(counts).tolist()) <= set(expected)
    chi_square = sum((counts[i] - draws * p) ** 2 / (draws * p) for i, p in expected.items())
    assert chi_square < chi_square_bound(len(expected) - 1)


def chi_square_bound(freedom: int) -> float:
    """The 1 - 10^-6 quantile, by Wilson and Hilferty's approximation."""
    spread = 2 / (9 * max(freedom, 1))
    return max(freedom, 1) * (1 - spread + 4.7534 * math.sqrt(spread)) ** 3


# -- log-probabilities ----------------------------------------------------------------------------


@given(rows, st.integers(0, 50))
def test_logprobs_are_raw_and_alternatives_ordered(logits: Row, num_top: int) -> None:
    total = math.log(math.fsum(math.exp(float(x)) for x in logits))
    found = token_logprobs(logits, len(logits) - 1, num_top)
    assert found.logprob == pytest.approx(float(logits[-1]) - total, abs=1e-12)
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:num_top]
    assert [i for i, _ in found.top] == order
    assert [p for _, p in found.top] == pytest.approx([float(logits[i]) - total for i in order])


def test_logprobs_do_not_see_the_parameters() -> None:
    logits = np.array([1, 2, 3], np.float32)
    changed: dict[str, Any] = {
        "temperature": 0.3,
        "logit_bias": {0: 100.0},
        "top_k": 1,
        "presence_penalty": 2.0,
    }
    found = sample(logits, spec(output=(1,), logprobs=3, **changed))
    assert found == token_logprobs(logits, 0, 3)


def test_logprobs_are_left_out_unless_asked_for() -> None:
    logits = np.array([1, 2, 3], np.float32)
    assert sample(logits, spec(temperature=0)).top == ()
    assert sample(logits, spec(temperature=0)).logprob == 0.0
    only = sample(logits, spec(temperature=0, logprobs=0))
    assert only.top == ()
    assert only.logprob < 0


def test_log_softmax_of_large_logits_is_finite() -> None:
    assert log_softmax(np.array([3e38, -3e38], np.float32)).tolist() == pytest.approx([0, -6e38])


def test_likeliest_of_none() -> None:
    assert likeliest(np.zeros(3), 0).tolist() == []
