from hypothesis import given
from hypothesis import strategies as st

from salver.flow.retry_budget import RetryBudget


@given(st.lists(st.sampled_from("rt")), st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_retries_are_never_more_than_their_share(events: list[str], ratio: float) -> None:
    budget, requests, retries = RetryBudget(ratio), 0, 0
    for event in events:
        if event == "r":
            budget.request()
            requests += 1
        else:
            retries += budget.take()
        assert retries <= ratio * requests


@given(st.integers(0, 500), st.integers(1, 20))
def test_what_is_saved_is_bounded_and_all_of_it_can_be_taken(requests: int, most: int) -> None:
    budget = RetryBudget(0.1, most_saved=most)
    for _ in range(requests):
        budget.request()
    taken = 0
    while budget.take():
        taken += 1
    assert taken == min(requests // 10, most)
