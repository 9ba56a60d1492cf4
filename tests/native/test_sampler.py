"""The core draws and scores what `engine/sampling.py`, its definition, draws and scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salver.contract import SamplingParams, TokenLogprobs
from salver.engine.plan import SampleSpec
from salver.engine.runners.read_out import LogitRow, PromptTarget, settle
from salver.errors import BackendError

native = pytest.importorskip("salver._native")
native_rows = pytest.importorskip("salver.engine.runners.native_rows")

Purpose = SampleSpec | PromptTarget
Logits = NDArray[np.float32]
ISAS = native.available_isas()
SIZES = [1, 7, 61, 600]


def draw(isa: str, logits: Logits, purposes: list[Purpose]) -> list[TokenLogprobs | None]:
    """What the core makes of rows of logits, all in one batch."""
    wanted = [LogitRow(i, str(i), purpose) for i, purpose in enumerate(purposes)]
    rows = native_rows.NativeRows(wanted, logits.shape[1])
    native.draw(isa, logits, rows.arrays())
    return [found for _, found in rows.found()]


# Ids up to 20 repeat often and are sometimes outside the vocabulary.
ids = st.integers(0, 20)
params = st.builds(
    SamplingParams,
    max_tokens=st.just(9),
    temperature=st.sampled_from([0.0, 0.0, 1e-6, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 60, 10_000]),
    top_p=st.sampled_from([1.0, 1.0, 0.95, 0.5, 1e-3]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.9, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, -2.0, 0.7, 2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, -0.3, 1.1]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 0.01, 1.3, 5.0]),
    logit_bias=st.dictionaries(ids, st.sampled_from([-100.0, -1.0, 0.25, 3.0, 100.0]), max_size=6),
    logprobs=st.sampled_from([None, None, 0, 1, 5, 20]),
)
specs = st.builds(
    SampleSpec,
    params,
    seed=st.integers(0, 2**64 - 1),
    prompt=st.lists(ids, max_size=12),
    output=st.lists(ids, max_size=12),
    banned=st.lists(ids, max_size=5).map(tuple),
)
targets = st.builds(PromptTarget, st.just(0), st.sampled_from([0, 1, 4]))


@pytest.mark.parametrize("isa", ISAS)
@given(
    size=st.sampled_from(SIZES),
    levels=st.sampled_from([3, 50, 0]),
    purposes=st.lists(st.one_of(specs, specs, targets), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300)
def test_a_batch_of_every_parameter_mixed_is_the_definitions(
    isa: str, size: int, levels: int, purposes: list[Purpose], seed: int
) -> None:
    """`levels` of 3 and 50 make many equal logits, 0 makes none."""
    rng = np.random.default_rng(seed)
    shape = (len(purposes), size)
    drawn = rng.integers(-levels, levels, shape) / 4 if levels else rng.normal(0, 3, shape)
    logits = drawn.astype(np.float32)
    for row, purpose, found in zip(logits, purposes, draw(isa, logits, purposes), strict=True):
        expected = settle(LogitRow(0, "", purpose), row)
        if isinstance(expected, BackendError):
            assert found is None
            continue
        assert found is not None
        assert found.token_id == expected.token_id
        assert [token for token, _ in found.top] == [token for token, _ in expected.top]
        assert found.logprob == pytest.approx(expected.logprob, abs=1e-12)
        best = [logprob for _, logprob in expected.top]
        assert [logprob for _, logprob in found.top] == pytest.approx(best, abs=1e-12)


def spec(prompt: list[int], banned: tuple[int, ...] = (), **fields: float) -> SampleSpec:
    return SampleSpec(SamplingParams(1, **fields), 0, prompt, [], banned)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", ISAS)
def test_the_range_of_the_draw_is_the_tokens_with_a_weight(isa: str) -> None:
    logits = np.array([[1.0, 2.0, -2000.0]] * 2, np.float32)
    rows = native_rows.NativeRows([LogitRow(i, "", spec([])) for i in range(2)], 3)
    rows.draws[:, 4] = [0.0, 1 - 2.0**-53]
    native.draw(isa, logits, rows.arrays())
    assert rows.tokens.tolist() == [0, 1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("purpose", [spec([]), spec([], temperature=0.0), PromptTarget(3, 1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_give_nothing(isa: str, purpose: Purpose, bad: float) -> None:
    logits = np.zeros((2, 40), np.float32)
    logits[0, 33] = bad
    assert draw(isa, logits, [purpose, spec([])])[0] is None
    edited = spec([33], repetition_penalty=2.0, logit_bias={33: -5.0})  # type: ignore[arg-type]
    assert draw(isa, logits, [edited, spec([])])[0] is None


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_every_token_is_banned_nothing_is_drawn(isa: str, temperature: float) -> None:
    logits = np.zeros((1, 5), np.float32)
    assert draw(isa, logits, [spec([], (0, 1, 2, 3, 4, 99), temperature=temperature)]) == [None]
    (found,) = draw(isa, logits, [spec([], (0, 1, 2, 4), temperature=temperature)])
    assert found is not None
    assert found.token_id == 3


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("draws", [[-1.0, 0, 1, 0, 0]]),
        ("draws", [[1.0, 0, 0, 0, 0]]),
        ("edits", [[9.0, 0, 1, 0]]),
        ("edits", [[0.0, np.inf, 1, 0]]),
        ("edits", [[0.0, np.nan, 1, 0]]),
        ("edits", [[0.0, 0, 0, 0]]),
        ("edits", [[0.0, 0, 1, np.nan]]),
        ("edit_starts", [0, 2]),
        ("given", [5]),
        ("tops", [6]),
        ("tops", [2]),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_read(name: str, values: list[object]) -> None:
    asked = spec([], logit_bias={0: 1.0})  # type: ignore[arg-type]
    rows = native_rows.NativeRows([LogitRow(0, "", asked)], 5)
    setattr(rows, name, np.array(values, getattr(rows, name).dtype))
    with pytest.raises(ValueError, match=" "):
        native.draw(ISAS[0], np.zeros((1, 5), np.float32), rows.arrays())
