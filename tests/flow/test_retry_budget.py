from hypothesis import given
from hypothesis import strategies as st

from salver.flow.retry_budget import RetryBudget


@given(st.lists(st.sampled_from("rt")), st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_retries_are_never_more_than_their_share(events: list[str], ratio: float) -> None:
    budget, requests, retries = RetryBudget(ratio), 0, 0
    for event in events:
        if event == "r":
            budget.answered()
            requests += 1
        else:
            retries += budget.take()
        assert retries <= ratio * requests  # of all requests it is less: a retry is of another one


@given(st.integers(0, 500), st.integers(1, 20))
def test_what_is_saved_is_bounded_and_all_of_it_can_be_taken(requests: int, most: int) -> None:
    budget = RetryBudget(0.1, most_saved=most)
    for _ in range(requests):
        budget.answered()
    taken = 0
    while budget.take():
        taken += 1
    assert taken == min(requests // 10, most)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3)), st.sampled_from([0.1, 0.5]))
def test_calls_are_never_as_many_as_the_ratio_adds(tries: list[list[bool]], ratio: float) -> None:
    """Each request is tried until a try succeeds, or there is no retry, at most three times."""
    budget, calls = RetryBudget(ratio), 0
    for outcomes in tries:
        for number, succeeds in enumerate(outcomes):
            calls += 1
            if succeeds and not number:
                budget.answered()
            if succeeds or number == 2 or not budget.take():
                break
    retries = calls - len(tries)
    assert retries == 0 or retries < ratio * len(tries)
