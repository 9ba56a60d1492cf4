"""The core's sampler draws what `engine/sampling.py`, its definition, draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec
from salver.engine.sampling import sample, uniform

native = pytest.importorskip("salver._native")

ISAS = native.available_isas()


@pytest.mark.parametrize("isa", ISAS)
@given(
    size=st.sampled_from([1, 7, 61, 600]),
    levels=st.sampled_from([3, 50, 0]),
    temperature=st.sampled_from([0.0, 1e-6, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 60, 10_000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-3]),
    min_p=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_a_draw_is_the_definitions(
    isa: str,
    size: int,
    levels: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
) -> None:
    """`levels` of 3 and 50 make many equal logits, 0 makes none."""
    rng = np.random.default_rng(seed % 2**32)
    drawn = rng.integers(-levels, levels, size) / 4 if levels else rng.normal(0, 3, size)
    logits = drawn.astype(np.float32)
    params = SamplingParams(1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = sample(logits, SampleSpec(params, seed, [], [4, 5])).token_id
    found = native.draw(
        isa,
        logits,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        uniform=uniform(seed, 2),
    )
    assert found == expected


@pytest.mark.parametrize("isa", ISAS)
def test_the_top_of_the_range_draws_the_last_token_with_a_weight(isa: str) -> None:
    logits = np.array([1.0, 2.0, -2000.0], np.float32)
    rest = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert native.draw(isa, logits, uniform=0.0, **rest) == 0
    assert native.draw(isa, logits, uniform=1 - 2.0**-53, **rest) == 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_draw_nothing(isa: str, temperature: float) -> None:
    logits = np.zeros(40, np.float32)
    logits[33] = np.nan
    rest = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "uniform": 0.5}
    assert native.draw(isa, logits, temperature=temperature, **rest) == -1
