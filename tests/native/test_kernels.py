"""Each kernel on each path of this machine, against the same sum in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

native = pytest.importorskip("salver._native")

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Held = Floats | Doubles
ISAS = native.available_isas()
KV_CACHES = ["bf16", "int8", "f32"]
SEEDS = st.integers(0, 2**32 - 1)

pytestmark = pytest.mark.parametrize("isa", ISAS)


def draw(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def int8_channels(weights: Floats) -> Doubles:
    """What int8 with one scale per output channel keeps of `weights`."""
    most = np.abs(weights).max(axis=1, keepdims=True)
    levels = np.round(
        weights * (np.float32(127) / most)
    )  # in float32, where halves fall the same way
    kept: Doubles = levels.astype(np.float64) * most / 127
    return kept


def int8_heads(x: Floats) -> Doubles:
    """What int8 with one scale per token and head keeps of `x` [tokens, heads, head_dim]."""
    return int8_channels(x.reshape(-1, x.shape[2])).reshape(x.shape)


def bf16(x: Floats) -> Doubles:
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def kept(kv_cache: str, x: Floats) -> Held:
    """What a KV cache of that format keeps of `x` [tokens, heads, head_dim]."""
    if kv_cache == "f32":
        return x
    return bf16(x) if kv_cache == "bf16" else int8_heads(x)


@given(m=st.integers(1, 70), n=st.integers(1, 100), k=st.integers(1, 300), seed=SEEDS)
@settings(max_examples=40)
@pytest.mark.parametrize(("precision", "levels"), [("w8a16", 32767), ("w8a8", 127)])
def test_int8_products_err_by_the_rounding_of_their_rows_alone(
    isa: str, precision: str, levels: int, m: int, n: int, k: int, seed: int
) -> None:
    x, weights, bias = draw(seed, m, k), draw(seed + 1, n, k), draw(seed + 2, n)
    found = native.product(isa, precision, x, weights, bias)
    kept = int8_channels(weights)
    expected = x.astype(np.float64) @ kept.T + bias
    step = np.abs(x).max(axis=1, keepdims=True) / levels
    bound = 0.51 * step * np.abs(kept).sum(axis=1) + 1e-5 * (1 + np.abs(expected))
    assert (np.abs(found - expected) <= bound).all()


@given(m=st.integers(1, 70), n=st.integers(1, 100), k=st.integers(1, 300), seed=SEEDS)
@settings(max_examples=40)
def test_bf16_products_are_those_of_the_rounded_operands(
    isa: str, m: int, n: int, k: int, seed: int
) -> None:
    x, weights, bias = draw(seed, m, k), draw(seed + 1, n, k), draw(seed + 2, n)
    found = native.product(isa, "bf16", x, weights, bias)
    expected = bf16(x) @ bf16(weights).T + bias
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5 * k**0.5)


@given(m=st.integers(1, 70), n=st.integers(1, 100), k=st.integers(1, 300), seed=SEEDS)
@settings(max_examples=40)
def test_two_term_bf16_products_keep_16_bits_of_their_rows(
    isa: str, m: int, n: int, k: int, seed: int
) -> None:
    x, weights, bias = draw(seed, m, k), draw(seed + 1, n, k), draw(seed + 2, n)
    found = native.product(isa, "two_bf16", x, weights, bias)
    kept = bf16(weights)
    expected = x.astype(np.float64) @ kept.T + bias
    bound = 2.0**-17 * np.abs(x) @ np.abs(kept).T + 2e-6 * k**0.5 + 1e-6 * np.abs(expected)
    assert (np.abs(found - expected) <= bound).all()


@given(m=st.integers(2, 70), n=st.integers(1, 80), k=st.integers(1, 200), seed=SEEDS)
@settings(max_examples=30)
@pytest.mark.parametrize("precision", ["w8a16", "w8a8", "bf16", "two_bf16"])
def test_a_row_of_a_product_does_not_know_its_neighbours(
    isa: str, precision: str, m: int, n: int, k: int, seed: int
) -> None:
    x, weights = draw(seed, m, k), draw(seed + 1, n, k)
    whole = native.product(isa, precision, x, weights)
    cut = seed % (m - 1) + 1
    parts = [native.product(isa, precision, part, weights) for part in (x[:cut], x[cut:])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@given(m=st.integers(1, 40), n=st.integers(1, 80), k=st.integers(1, 200), seed=SEEDS)
@settings(max_examples=30)
@pytest.mark.parametrize("precision", ["w8a16", "w8a8"])
def test_int8_products_have_the_same_integers_on_every_path(
    isa: str, precision: str, m: int, n: int, k: int, seed: int
) -> None:
    """The paths differ in whether the last multiplication and addition are fused, no more."""
    x, weights = draw(seed, m, k), draw(seed + 1, n, k)
    expected = native.product("scalar", precision, x, weights)
    found = native.product(isa, precision, x, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["w8a16", "w8a8", "bf16", "two_bf16"])
def test_a_row_that_is_not_finite_spoils_itself_alone(
    isa: str, precision: str, wrong: float
) -> None:
    x, weights = draw(1, 20, 64), draw(2, 48, 64)
    clean = native.product(isa, precision, x, weights)
    x[7, 3] = wrong
    found = native.product(isa, precision, x, weights)
    assert not np.isfinite(found[7]).any()
    others = np.arange(20) != 7
    np.testing.assert_array_equal(found[others], clean[others])


@pytest.mark.parametrize("precision", ["w8a16", "w8a8", "bf16", "two_bf16"])
def test_rows_and_channels_of_zeros_give_the_bias(isa: str, precision: str) -> None:
    x, weights, bias = draw(1, 3, 40), draw(2, 5, 40), draw(3, 5)
    x[1] = 0
    weights[2] = 0
    found = native.product(isa, precision, x, weights, bias)
    np.testing.assert_array_equal(found[1], bias)
    np.testing.assert_array_equal(found[:, 2], [bias[2]] * 3)


@given(
    tokens=st.integers(1, 40),
    past=st.sampled_from([0, 1, 5, 31, 32, 97, 128, 300]),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (7, 1), (20, 1)]),
    dim=st.sampled_from([2, 8, 10, 64, 80, 128]),
    window=st.sampled_from([1, 7, 40, 2**30]),
    in_parts=st.booleans(),
    seed=SEEDS,
)
@settings(max_examples=40)
@pytest.mark.parametrize("kv_cache", KV_CACHES)
def test_attention(
    isa: str,
    kv_cache: str,
    tokens: int,
    past: int,
    heads: tuple[int, int],
    dim: int,
    window: int,
    in_parts: bool,
    seed: int,
) -> None:
    """Against attention over what each format keeps of keys and values, within what rounding may do to
    the terms of a score and to a weight. bf16 has its operands exact; int8 has 15 bits of a query; f32
    takes three of the four products of sums of two bf16. What is left is for sums in float32."""
    context = past + tokens
    queries = 2 * draw(seed, tokens, heads[0], dim)
    keys, values = draw(seed + 1, context, heads[1], dim), draw(seed + 2, context, heads[1], dim)
    found = native.attention(isa, queries, keys, values, window, kv_cache, in_parts)
    asked = bf16(queries) if kv_cache == "bf16" else queries
    held = Attention(asked, kept(kv_cache, keys), kept(kv_cache, values), window)
    reach = np.abs(asked).astype(np.float64)
    if kv_cache == "int8":  # a query's digits are steps of its largest value
        reach[:] = reach.max(axis=-1, keepdims=True)
    of_score, of_weight = {
        "bf16": (2**-16, 2**-8),
        "int8": (2**-15, 2**-16),
        "f32": (2**-14, 2**-14),
    }[kv_cache]
    bound = held.error_of_scores(of_score * reach)
    bound += held.error_of_weights(of_weight, of_the_largest=kv_cache == "int8")
    assert (np.abs(found - held.mixed) <= bound).all()


@given(
    past=st.integers(0, 400),
    heads=st.sampled_from([(4, 4), (6, 2), (7, 1)]),
    tokens=st.integers(1, 20),
    window=st.sampled_from([40, 150, 2**30]),
    seed=SEEDS,
)
@settings(max_examples=30)
@pytest.mark.parametrize("kv_cache", KV_CACHES)
def test_parts_of_attention_merge_to_the_same_bits(
    isa: str,
    kv_cache: str,
    past: int,
    heads: tuple[int, int],
    tokens: int,
    window: int,
    seed: int,
) -> None:
    context = past + tokens
    queries = draw(seed, tokens, heads[0], 32)
    keys, values = draw(seed + 1, context, heads[1], 32), draw(seed + 2, context, heads[1], 32)
    found = [
        native.attention(isa, queries, keys, values, window, kv_cache, in_parts)
        for in_parts in (False, True)
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kv_cache", KV_CACHES)
@pytest.mark.parametrize("of", ["queries", "keys", "values"])
def test_what_is_not_finite_spoils_those_who_see_it_alone(
    isa: str, kv_cache: str, of: str, wrong: float
) -> None:
    """All of them, but for infinite scores, which may have no weight in bf16 and f32; int8 has a scale
    of NaN, and a value of the others is told by its key."""
    queries, keys, values = draw(1, 40, 6, 32), draw(2, 200, 2, 32), draw(3, 200, 2, 32)
    clean = native.attention(isa, queries, keys, values, 25, kv_cache)
    where = (5 if of == "queries" else 170), 1, 3
    {"queries": queries, "keys": keys, "values": values}[of][where] = wrong
    found = native.attention(isa, queries, keys, values, 25, kv_cache)
    seen = np.zeros((40, 6), bool)
    if of == "queries":
        seen[5, 1] = True
    else:
        seen[10:35, 3:] = True  # tokens 170 to 194, the second KV head's group
    spoilt = ~np.isfinite(found).all(axis=2)
    if kv_cache == "int8" or of == "values" or np.isnan(wrong):
        np.testing.assert_array_equal(spoilt, seen)
    assert not (spoilt & ~seen).any()
    np.testing.assert_array_equal(found[~seen], clean[~seen])


@pytest.mark.parametrize("of", ["queries", "keys", "values"])
def test_heads_of_zeros_and_of_extremes_stay_finite_in_int8(isa: str, of: str) -> None:
    x = {name: draw(i, 140, 1, 16) for i, name in enumerate(("queries", "keys", "values"))}
    x[of][:70] = 0
    x[of][70:] *= np.float32(1e18)
    found = native.attention(isa, x["queries"], x["keys"], x["values"], 2**30, "int8")
    assert np.isfinite(found).all()


@given(
    tokens=st.integers(2, 60),
    past=st.integers(0, 400),
    heads=st.sampled_from([(4, 4), (6, 2), (7, 1)]),
    window=st.sampled_from([40, 150, 200, 2**30]),
    seed=SEEDS,
)
@settings(max_examples=30)
@pytest.mark.parametrize("kv_cache", KV_CACHES)
def test_a_row_of_attention_does_not_know_its_neighbours(
    isa: str,
    kv_cache: str,
    tokens: int,
    past: int,
    heads: tuple[int, int],
    window: int,
    seed: int,
) -> None:
    """Windows longer than a group of keys: where a group begins must not depend on the tile."""
    context, cut = past + tokens, seed % (tokens - 1) + 1
    queries = draw(seed, tokens, heads[0], 32)
    keys, values = draw(seed + 1, context, heads[1], 32), draw(seed + 2, context, heads[1], 32)
    whole = native.attention(isa, queries, keys, values, window, kv_cache)
    seen = context - tokens + cut
    first = native.attention(isa, queries[:cut], keys[:seen], values[:seen], window, kv_cache)
    rest = native.attention(isa, queries[cut:], keys, values, window, kv_cache)
    np.testing.assert_array_equal(whole, np.concatenate((first, rest)))


class Attention:
    """Attention in double precision: `queries` [tokens, heads, head_dim] over the `keys` and `values`
    [context, kv_heads, head_dim] that they see, and how far rounding can move its result."""

    def __init__(self, queries: Held, keys: Held, values: Held, window: int) -> None:
        queries, keys, values = (x.astype(np.float64) for x in (queries, keys, values))
        group = queries.shape[1] // keys.shape[1]
        self.keys, self.values = keys.repeat(group, axis=1), values.repeat(group, axis=1)
        key = np.arange(len(keys))
        position = key[-len(queries) :, None]
        seen = (key <= position) & (key > position - window)
        scores = np.where(seen, self._products(queries, self.keys), -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        self.weights: Doubles = weights / weights.sum(
            axis=-1, keepdims=True
        )  # [heads, tokens, context]
        self.seen = seen.sum(axis=-1)
        self.mixed: Doubles = np.einsum("htk,khd->thd", self.weights, self.values)

    @staticmethod
    def _products(queries: Doubles, keys: Doubles) -> Doubles:
        return np.asarray(np.einsum("thd,khd->htk", queries, keys) / queries.shape[2] ** 0.5)

    def error_of_scores(self, reach: Doubles) -> Doubles:
        """What scores that err by |reach| |key| make of the result: with softmax's weights w, to first
        order, the sum of w_k error_k |value_k - result|; the second order is below its half."""
        errors = self.weights * self._products(reach, np.abs(self.keys))
        apart = np.abs(
            self.values[None] - self.mixed[:, None]
        )  # [tokens, context, heads, head_dim]
        return np.asarray(1.5 * np.einsum("htk,tkhd->thd", errors, apart))

    def error_of_weights(self, error: float, *, of_the_largest: bool) -> Doubles:
        """What weights make of the result that err by a share of themselves, or, with the value's scale
        in them, of the largest that the row has."""
        if not of_the_largest:
            return np.asarray(error * np.einsum("htk,khd->thd", self.weights, np.abs(self.values)))
        most = (self.weights * np.abs(self.values).max(axis=-1).T[:, None]).max(axis=-1)
        return np.asarray(error * (most * self.seen).T[..., None])


@given(size=st.integers(1, 400), seed=SEEDS)
def test_best_is_the_first_of_the_largest(isa: str, size: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-3, 3, size).astype(np.float32)
    assert native.best(isa, x) == int(x.argmax())
    x[seed % size] = [np.nan, np.inf, -np.inf][seed % 3]
    assert native.best(isa, x) == -1


def test_what_does_not_fit_is_refused(isa: str) -> None:
    with pytest.raises(ValueError, match=r"weights are \[n, k\]"):
        native.product(isa, "w8a16", draw(1, 2, 8), draw(2, 3, 9))
    with pytest.raises(ValueError, match="precision is"):
        native.product(isa, "q5", draw(1, 2, 8), draw(2, 3, 8))
    with pytest.raises(ValueError, match="kv_heads divides heads"):
        native.attention(isa, draw(1, 1, 3, 8), draw(2, 1, 2, 8), draw(3, 1, 2, 8), 1)
