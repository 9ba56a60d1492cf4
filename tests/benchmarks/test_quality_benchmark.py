"""The quality benchmark's own arithmetic."""

import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NEAR = 3e-4


@pytest.fixture(scope="module")
def quality() -> Iterator[ModuleType]:
    """The benchmark's modules as attributes of one; its directory is on the path meanwhile."""
    names = ("quality_formats", "quality_measures")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        quality = ModuleType("quality")
        for name in names:
            setattr(quality, name.removeprefix("quality_"), import_module(name))
        yield quality
    for name in names:
        del sys.modules[name]


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(2, 120))
def test_measures_are_those_of_their_definitions(
    quality: ModuleType, seed: int, tokens: int
) -> None:
    """In double precision and in one piece. Of logits within 16, a float32 log-probability is off by
    at most 4e-6, and what it weighs in a divergence, differences within 32, by at most NEAR."""
    rng = np.random.default_rng(seed)
    window = rng.integers(0, 7, tokens).tolist()
    reference, found = (rng.uniform(-16, 16, (tokens, 7)).astype(np.float32) for _ in range(2))
    tally = quality.measures.Tally()
    tally.add(window, reference, found)
    told = tally.read("name")

    p, q = (np.exp(each.astype(np.float64)) for each in (reference, found))
    p, q = (each / each.sum(axis=1, keepdims=True) for each in (p, q))
    targets = np.arange(tokens - 1), window[1:]
    perplexities = [math.exp(-np.log(each[targets]).mean()) for each in (p, q)]
    assert told.tokens == tokens
    assert told.top1 == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert told.kl == pytest.approx((p * np.log(p / q)).sum() / tokens, rel=NEAR, abs=NEAR)
    assert told.perplexity == pytest.approx(perplexities[1], rel=NEAR)
    assert 1 + told.delta == pytest.approx(perplexities[1] / perplexities[0], rel=NEAR)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_group_is_rounded_by_its_own_largest(quality: ModuleType, seed: int) -> None:
    """127 levels either side: nothing moves by more than half a level of its group of 32."""
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(3, 64)) * rng.choice([1e-3, 1, 1e3], (3, 64))).astype(np.float32)
    moved = np.abs(quality.formats.group_levels(rows) - rows).reshape(-1, 32)
    level = np.abs(rows).reshape(-1, 32).max(axis=1) / 127
    assert (moved.max(axis=1) <= level * (0.5 + 1e-4)).all()
    assert (
        quality.formats.group_levels(rows)[:, :32] == quality.formats.group_levels(rows[:, :32])
    ).all()
