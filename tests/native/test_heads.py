"""One token's heads, normed, turned and written, on each path of this machine, against double
precision. The layouts are read here as `native/kv_block.h` tells them, by other arithmetic."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

native = pytest.importorskip("salver._native")

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
KV_CACHES = ["bf16", "int8", "f32"]
SEEDS = st.integers(0, 2**32 - 1)
HEADS = st.sampled_from([(1, 1), (4, 4), (6, 2), (7, 1)])
HEAD_DIMS = st.sampled_from([2, 8, 10, 32, 64, 80, 128, 256])
SLOTS, EPSILON = 32, 1e-5
# of each number, what its format's rounding may take of the largest of its head, and of itself
OF_THE_LARGEST = {"bf16": 0.0, "int8": 0.51 / 127, "f32": 0.0}
OF_ITSELF = {"bf16": 2**-8, "int8": 0.0, "f32": 2**-16}

pytestmark = [
    pytest.mark.parametrize("isa", native.available_isas()),
    pytest.mark.parametrize("kv_cache", KV_CACHES),
]


@dataclass(frozen=True)
class Token:
    """`projections` [heads + 2 * kv_heads, head_dim], and what turns and norms them."""

    projections: Floats
    kv_heads: int
    cosines: Floats
    sines: Floats
    q_norm: Floats | None
    k_norm: Floats | None

    @classmethod
    def drawn(cls, seed: int, heads: tuple[int, int], dim: int, *, normed: bool) -> "Token":
        rng = np.random.default_rng(seed)
        angles = rng.uniform(0, 2 * np.pi, dim // 2)
        norms = [rng.standard_normal(dim, np.float32) if normed else None for _ in "qk"]
        projections = 3 * rng.standard_normal((heads[0] + 2 * heads[1], dim), np.float32)
        cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return cls(projections, heads[1], cosines, sines, *norms)

    @property
    def heads(self) -> int:
        return len(self.projections) - 2 * self.kv_heads

    def expected(self) -> tuple[Doubles, Doubles, Doubles]:
        """Queries, keys and values in double precision."""
        wide = self.projections.astype(np.float64)
        queries, keys, values = np.split(wide, [self.heads, self.heads + self.kv_heads])
        return self._turned(queries, self.q_norm), self._turned(keys, self.k_norm), values

    def _turned(self, heads: Doubles, norm: Floats | None) -> Doubles:
        if norm is not None:
            root = np.sqrt(np.square(heads).mean(axis=1, keepdims=True) + EPSILON)
            heads = heads / root * norm
        first, second = np.split(heads, 2, axis=1)
        turned = (
            first * self.cosines - second * self.sines,
            second * self.cosines + first * self.sines,
        )
        return np.concatenate(turned, axis=1)

    def written(self, isa: str, kv_cache: str, slot: int) -> "Written":
        queries, block = native.heads(
            isa,
            kv_cache,
            self.projections,
            kv_heads=self.kv_heads,
            cosines=self.cosines,
            sines=self.sines,
            q_norm=self.q_norm,
            k_norm=self.k_norm,
            epsilon=EPSILON,
            slot=slot,
            clear_from=1 if slot == 0 else SLOTS,
        )
        return Written(kv_cache, queries, block, self.projections.shape[1])


@dataclass(frozen=True)
class Written:
    """Bytes of queries [heads, ...] and of a block's heads [kv_heads, ...]."""

    kv_cache: str
    query_bytes: Bytes
    block_bytes: Bytes
    dim: int

    @property
    def padded(self) -> int:
        unit = 64 if self.kv_cache == "int8" else 32
        return -(-self.dim // unit) * unit

    def queries(self) -> Doubles:
        """[heads, head_dim]"""
        if self.kv_cache != "int8":
            rows = _from_bf16(self.query_bytes).reshape(len(self.query_bytes), -1, self.padded)
            return np.asarray(rows.sum(axis=1)[:, : self.dim])
        digits = self.query_bytes[:, : 2 * self.padded].view(np.int8).astype(np.int64)
        whole = 256 * digits[:, : self.padded] + digits[:, self.padded :]
        last = np.ascontiguousarray(self.query_bytes[:, 2 * self.padded :])
        np.testing.assert_array_equal(last.view(np.int32)[:, 1], whole.sum(axis=1))
        return np.asarray((whole * last.view(np.float32)[:, :1].astype(np.float64))[:, : self.dim])

    def keys(self) -> Doubles:
        """[kv_heads, slots, head_dim]"""
        if self.kv_cache == "int8":
            whole = self._raw_keys()[0].astype(np.float64) - 128
            return np.asarray((whole * self._scales(0))[:, :, : self.dim])
        return _sum_of(self._raw_keys())[:, :, : self.dim]

    def values(self) -> Doubles:
        """[kv_heads, slots, head_dim]"""
        if self.kv_cache == "int8":
            whole = self._raw_values()[0].view(np.int8).astype(np.float64)
            return np.asarray((whole * self._scales(1))[:, :, : self.dim])
        return _sum_of(self._raw_values())[:, :, : self.dim]

    def slots_touched(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of keys and of values, which slots are no longer bytes of 0xff."""
        both = []
        for parts in (self._raw_keys(), self._raw_values()):
            rows = np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], 2)
            both.append((rows != 0xFF).any(axis=(0, 2)))
        return both[0], both[1]

    def _raw_keys(self) -> list[NDArray[np.generic]]:
        """As they are stored, [kv_heads, slots, padded]; in f32 the rounded and the rest."""
        if self.kv_cache == "int8":
            tiles = self.block_bytes[:, : SLOTS * self.padded].reshape(
                -1, 2, self.padded // 4, 16, 4
            )
            return [tiles.transpose(0, 1, 3, 2, 4).reshape(-1, SLOTS, self.padded)]
        both = self._halves()[:, :, 0].reshape(
            len(self.block_bytes), -1, 2, self.padded // 2, 16, 2
        )
        parts = both.transpose(1, 0, 2, 4, 3, 5)
        return [np.ascontiguousarray(part).reshape(-1, SLOTS, self.padded) for part in parts]

    def _raw_values(self) -> list[NDArray[np.generic]]:
        if self.kv_cache == "int8":
            tiles = self.block_bytes[:, SLOTS * self.padded : 2 * SLOTS * self.padded]
            fours = tiles.reshape(-1, self.padded // 16, 8, 16, 4).transpose(0, 2, 4, 1, 3)
            return [np.ascontiguousarray(fours).reshape(-1, SLOTS, self.padded)]
        both = self._halves()[:, :, 1].reshape(
            len(self.block_bytes), -1, self.padded // 16, 16, 16, 2
        )
        parts = both.transpose(1, 0, 3, 5, 2, 4)
        return [np.ascontiguousarray(part).reshape(-1, SLOTS, self.padded) for part in parts]

    def _halves(self) -> NDArray[np.uint16]:
        """[kv_heads, 1 or 2 blocks of bf16, keys and values, numbers]"""
        return self.block_bytes.view(np.uint16).reshape(
            len(self.block_bytes), -1, 2, SLOTS * self.padded
        )

    def _scales(self, of: int) -> Doubles:
        """Of keys (0) or values (1): [kv_heads, slots, 1]"""
        last = np.ascontiguousarray(self.block_bytes[:, 2 * SLOTS * self.padded :]).view(np.float32)
        return last.reshape(-1, 2, SLOTS, 1)[:, of].astype(np.float64)


def _sum_of(parts: list[NDArray[np.generic]]) -> Doubles:
    both: Doubles = np.sum([_from_bf16(part) for part in parts], axis=0)
    return both


def _from_bf16(x: NDArray[np.generic]) -> Doubles:
    halves = np.ascontiguousarray(x).view(np.uint16)
    return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def assert_near(found: Doubles, expected: Doubles, of_the_largest: float, of_itself: float) -> None:
    """Besides what its format takes, a number errs by sums in float32 over its head."""
    most = np.abs(expected).max(axis=-1, keepdims=True)
    bound = (of_the_largest + 1e-5) * most + of_itself * np.abs(expected)
    assert (np.abs(found - expected) <= bound).all()


@given(heads=HEADS, dim=HEAD_DIMS, normed=st.booleans(), slot=st.integers(0, SLOTS - 1), seed=SEEDS)
@settings(max_examples=40)
def test_heads_are_normed_turned_and_written(
    isa: str,
    kv_cache: str,
    heads: tuple[int, int],
    dim: int,
    normed: bool,
    slot: int,
    seed: int,
) -> None:
    token = Token.drawn(seed, heads, dim, normed=normed)
    written = token.written(isa, kv_cache, slot)
    queries, keys, values = token.expected()
    of_the_largest, of_itself = OF_THE_LARGEST[kv_cache], OF_ITSELF[kv_cache]
    of_a_query = 1e-4 if kv_cache == "int8" else 0.0  # 32639 levels
    assert_near(written.queries(), queries, of_a_query, of_itself)
    assert_near(written.keys()[:, slot], keys, of_the_largest, of_itself)
    assert_near(written.values()[:, slot], values, of_the_largest, of_itself)


@given(heads=HEADS, dim=HEAD_DIMS, slot=st.integers(0, SLOTS - 1), seed=SEEDS)
@settings(max_examples=20)
def test_only_its_own_slot_is_written(
    isa: str, kv_cache: str, heads: tuple[int, int], dim: int, slot: int, seed: int
) -> None:
    """But for a block's first token, which zeroes the values that another sequence left behind."""
    written = Token.drawn(seed, heads, dim, normed=False).written(isa, kv_cache, slot)
    own = np.arange(SLOTS) == slot
    keys, values = written.slots_touched()
    np.testing.assert_array_equal(keys, own)
    cleared = kv_cache != "int8" and slot == 0
    np.testing.assert_array_equal(values, own | cleared)
    if cleared:
        assert not written.values()[:, 1:].any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_told_by_its_key(
    isa: str, kv_cache: str, wrong: float
) -> None:
    """Zeros for it, since rows that do not see it weigh it with zero; in int8 its scale is NaN."""
    token = Token.drawn(1, (6, 2), 80, normed=True)
    clean = token.written(isa, kv_cache, 5)
    token.projections[-1, 70] = wrong  # of the second KV head
    found = token.written(isa, kv_cache, 5)
    if kv_cache == "int8":
        assert np.isnan(found.values()[1, 5]).all()
    else:
        assert not found.values()[1, 5].any()
        assert np.isnan(found.keys()[1, 5]).all()
    np.testing.assert_array_equal(found.query_bytes, clean.query_bytes)
    np.testing.assert_array_equal(found.block_bytes[0], clean.block_bytes[0])


def test_what_does_not_fit_is_refused(isa: str, kv_cache: str) -> None:
    halves = {"cosines": np.ones(4, np.float32), "sines": np.zeros(4, np.float32)}
    for shape, rule in [((5, 8), "kv_heads divides"), ((4, 8), "kv_heads"), ((6, 6), r"cosines")]:
        kv_heads = 2 if shape != (5, 8) else 3
        with pytest.raises(ValueError, match=rule):
            native.heads(isa, kv_cache, np.ones(shape, np.float32), kv_heads=kv_heads, **halves)
    with pytest.raises(ValueError, match="slot"):
        native.heads(isa, kv_cache, np.ones((3, 8), np.float32), kv_heads=1, slot=32, **halves)
