"""What is refused had no chance: the rule by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import Action, Cause, LatencyModel, LoadSnapshot, SamplingParams
from salver.flow import (
    certain_output,
    drained,
    least_own_seconds,
    optimistic,
    own_seconds,
    unreachable,
)

MODEL = LatencyModel(base=0.010, per_token=0.001, per_attended=0.0, per_logit_row=0.0)


def test_a_request_alone_takes_its_prompt_and_a_step_per_token() -> None:
    assert own_seconds(MODEL, prompt=100) == pytest.approx(0.110)
    assert own_seconds(MODEL, prompt=100, cached=96) == pytest.approx(0.014)
    assert own_seconds(MODEL, prompt=100, output=11) == pytest.approx(0.110 + 10 * 0.011)
    assert own_seconds(MODEL, prompt=100, output=11, choices=3) == pytest.approx(0.210 + 0.030)


queues = st.lists(st.tuples(st.floats(0, 10), st.floats(-5, 50)))


@given(st.floats(-1e3, 1e3), queues)
def test_a_queue_drains_no_later_than_its_work_is_done(
    at: float, work: list[tuple[float, float]]
) -> None:
    whole = sum(seconds for seconds, _ in work)
    assert at <= drained(at, work) <= at + whole + 1e-9
    patient = [(seconds, float("inf")) for seconds, _ in work]
    assert drained(at, patient) == pytest.approx(at + whole)


@given(st.floats(-1e3, 1e3), queues, queues)
def test_a_queue_drained_in_pieces_is_through_at_the_same_instant(
    at: float, work: list[tuple[float, float]], more: list[tuple[float, float]]
) -> None:
    assert drained(drained(at, work), more) == drained(at, work + more)


def test_what_expires_in_the_queue_takes_no_more_time() -> None:
    assert drained(5.0, [(10.0, 6.0), (10.0, 6.0), (2.0, 60.0)]) == 8.0


@pytest.mark.parametrize(
    ("params", "tokens"),
    [
        (SamplingParams(max_tokens=9), 1),
        (SamplingParams(max_tokens=9, min_tokens=4), 4),
        (SamplingParams(max_tokens=9, ignore_eos=True), 9),
        (SamplingParams(max_tokens=9, ignore_eos=True, stop=("x",)), 1),
        (SamplingParams(max_tokens=9, ignore_eos=True, stop_token_ids=(3,), min_tokens=2), 2),
    ],
)
def test_only_output_that_is_certain_counts(params: SamplingParams, tokens: int) -> None:
    assert certain_output(params) == tokens


def test_a_model_is_believed_as_far_as_it_was_right() -> None:
    assert optimistic(MODEL).base == pytest.approx(0.008)
    vague = LatencyModel(0.010, 0.001, 0.0, 0.0, error=0.3)
    assert optimistic(vague).per_token == pytest.approx(0.0004)
    hopeless = LatencyModel(0.010, 0.001, 0.0, 0.0, error=0.7)
    assert own_seconds(optimistic(hopeless), prompt=10_000) == 0.0


def test_a_load_that_keeps_tokens_may_keep_these() -> None:
    def least(load: LoadSnapshot) -> float:
        return least_own_seconds(load, prompt=100, output=1, choices=1)

    assert least(LoadSnapshot()) == 0.0
    assert least(LoadSnapshot(latency=MODEL)) == pytest.approx(0.8 * 0.110)
    some = LoadSnapshot(latency=MODEL, kv_blocks_owned=1, kv_blocks_cached=2, kv_block_tokens=16)
    assert least(some) == pytest.approx(0.8 * (0.010 + 0.052))
    coming = LoadSnapshot(latency=MODEL, tokens_waiting=30, tokens_running=18)
    assert least(coming) == least(some)
    many = LoadSnapshot(latency=MODEL, kv_blocks_cached=99, kv_block_tokens=16)
    assert least(many) == pytest.approx(0.8 * 0.011)


def test_a_refusal_says_whether_coming_back_helps() -> None:
    busy = unreachable("r", queue=3.0, own=1.0, deadline=12.0, now=10.0)
    assert busy is not None
    assert (busy.cause, busy.action) == (Cause.DEADLINE, Action.REFUSE)
    assert (busy.value, busy.limit, busy.retry_after) == (4.0, 2.0, 2.0)
    never = unreachable("r", queue=0.0, own=3.0, deadline=12.0, now=10.0)
    assert never is not None
    assert never.retry_after is None
    assert unreachable("r", queue=1.0, own=1.0, deadline=12.0, now=10.0) is None
    assert unreachable("r", queue=1e9, own=1.0, deadline=None, now=10.0) is None
