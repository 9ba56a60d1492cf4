"""Edits that are kept from step to step are those of a definition that begins anew."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import SamplingParams
from salver.engine.plan import SampleSpec
from salver.engine.runners.edits import EditBook, edits_of
from salver.engine.runners.read_out import LogitRow, PromptTarget

VOCAB = 12
ids = st.integers(-2, VOCAB + 2)  # some are outside the vocabulary
params = st.builds(
    SamplingParams,
    max_tokens=st.just(9),
    presence_penalty=st.sampled_from([0.0, 0.7, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 1.1, -0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    logit_bias=st.dictionaries(ids, st.sampled_from([-100.0, 0.25, 3.0]), max_size=3),
)
steps = st.lists(st.tuples(st.lists(ids, max_size=3), st.booleans(), st.booleans()), max_size=8)


def check(book: EditBook, specs: dict[str, SampleSpec]) -> None:
    rows = [LogitRow(i, key, spec) for i, (key, spec) in enumerate(specs.items())]
    rows.append(LogitRow(len(rows), "a", PromptTarget(1, 0)))
    for row, edits in zip(rows, book.of(rows), strict=True):
        assert np.array_equal(edits, edits_of(row.purpose, VOCAB))


@settings(max_examples=200)
@given(params=params, prompt=st.lists(ids, max_size=6), banned=ids, steps=steps)
def test_they_are_the_definitions_at_every_step(
    params: SamplingParams,
    prompt: list[int],
    banned: int,
    steps: list[tuple[list[int], bool, bool]],
) -> None:
    """Tokens are drawn, a ban comes and goes, and the sequence is left out of some steps."""
    book, output = EditBook(VOCAB), list[int]()
    beside = SampleSpec(replace(params, repetition_penalty=1.7), 0, [1, 2], [])
    for drawn, is_banned, is_away in steps:
        output += drawn
        spec = SampleSpec(params, 0, prompt, output, (banned,) if is_banned else ())
        check(book, {"b": beside} if is_away else {"a": spec, "b": beside})


def test_a_name_that_is_used_again_is_another_sequence() -> None:
    book, prompt, output = EditBook(VOCAB), [1], [3, 2, 4]
    penalty = SamplingParams(9, repetition_penalty=1.5, frequency_penalty=1.0)
    check(book, {"a": SampleSpec(penalty, 0, prompt, [2, 2])})
    check(book, {"a": SampleSpec(penalty, 0, prompt, output)})
    check(book, {"a": SampleSpec(penalty, 0, [5], output)})


def test_nothing_outlives_its_sequence_by_more_than_a_step() -> None:
    book = EditBook(VOCAB)
    check(book, {"a": SampleSpec(SamplingParams(9, repetition_penalty=1.5), 0, [1], [2])})
    check(book, {})
    assert not book._kept


@pytest.mark.parametrize("plain", [SamplingParams(9), SamplingParams(9, logit_bias={3: 1.0})])
def test_what_does_not_look_back_is_not_kept(plain: SamplingParams) -> None:
    book = EditBook(VOCAB)
    check(book, {"a": SampleSpec(plain, 0, [1], [2])})
    assert not book._kept
