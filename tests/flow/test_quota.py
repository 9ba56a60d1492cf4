"""What a tenant may spend, on plain numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import Action, Cause
from salver.flow.quota import Quota, Spent, Use, charged, oldest_second, refusal, standing


def rule(quota: Quota, use: Use, tokens: int = 10, now: float = 100.5) -> str | None:
    refused = refusal("dec-1", quota, use, tokens, now)
    return refused.rule if refused else None


@pytest.mark.parametrize(
    ("quota", "use", "broken"),
    [
        (Quota(), Use(10**6, 10**9, [Spent(100, 10**6, 10**9)]), None),
        (Quota(max_in_flight=2), Use(in_flight=1), None),
        (Quota(max_in_flight=2), Use(in_flight=2), "tenants.max_in_flight"),
        (Quota(max_tokens_in_flight=30), Use(tokens_in_flight=20), None),
        (Quota(max_tokens_in_flight=29), Use(tokens_in_flight=20), "tenants.max_tokens_in_flight"),
        (Quota(requests_per_minute=3), Use(minute=[Spent(50, 2, 0)]), None),
        (
            Quota(requests_per_minute=2),
            Use(minute=[Spent(50, 2, 0)]),
            "tenants.requests_per_minute",
        ),
        (Quota(tokens_per_minute=30), Use(minute=[Spent(50, 1, 5), Spent(60, 1, 15)]), None),
        (Quota(tokens_per_minute=29), Use(minute=[Spent(50, 1, 20)]), "tenants.tokens_per_minute"),
    ],
)
def test_a_bound_is_reached_and_not_passed(quota: Quota, use: Use, broken: str | None) -> None:
    assert rule(quota, use) == broken


def test_the_decision_says_value_limit_and_when_to_come_back() -> None:
    use = Use(minute=[Spent(50, 1, 20), Spent(60, 1, 5)])
    refused = refusal("dec-1", Quota(tokens_per_minute=30), use, 10, 100.5)
    assert refused is not None
    assert (refused.id, refused.value, refused.limit) == ("dec-1", 35, 30)
    assert (refused.action, refused.cause) == (Action.REFUSE, Cause.CALLER)
    assert refused.retry_after == 50 + 61 - 100.5, "when second 50 has left the window"


def test_what_can_never_be_admitted_is_not_told_to_come_back() -> None:
    refused = refusal("dec-1", Quota(tokens_per_minute=30), Use(), 31, 100.5)
    assert refused is not None
    assert refused.retry_after is None
    assert "lower max_tokens" in refused.reason


def test_how_a_tenant_stands() -> None:
    use = Use(minute=[Spent(50, 2, 20), Spent(60, 1, 0)])
    told = standing(Quota(requests_per_minute=5, tokens_per_minute=30), use, 100.5)
    assert told.requests is not None
    assert told.tokens is not None
    assert (told.requests.limit, told.requests.remaining) == (5, 2)
    assert (told.tokens.remaining, told.tokens.reset_s) == (10, 50 + 61 - 100.5)
    assert standing(Quota(), use, 100.5).tokens is None
    assert Quota(max_in_flight=1, tokens_per_minute=2).limiters == (
        "tokens_per_minute",
        "max_in_flight",
    )


@pytest.mark.parametrize(("later", "admitted"), [(59.99, False), (60.2, True)])
def test_a_second_counts_until_sixty_seconds_after_its_end(later: float, admitted: bool) -> None:
    charged_at = 1000.9
    use = charged(Use(), int(charged_at), 10)
    now = charged_at + later
    left = [spent for spent in use.minute if spent.second >= oldest_second(now)]
    assert (rule(Quota(tokens_per_minute=10), Use(minute=left), 10, now) is None) is admitted


arrivals = st.lists(
    st.tuples(st.floats(0, 30, allow_nan=False), st.integers(1, 40)), min_size=1, max_size=60
)


@given(arrivals, st.integers(1, 100), st.integers(1, 8))
def test_no_sixty_seconds_admit_more_than_the_quota(
    gaps: list[tuple[float, int]], tokens_limit: int, requests_limit: int
) -> None:
    """Law 14, and that a caller who waits as told is admitted then and not before."""
    quota = Quota(requests_per_minute=requests_limit, tokens_per_minute=tokens_limit)
    now, use = 1000.0, Use()
    admitted: list[tuple[float, int]] = []
    for gap, tokens in gaps:
        now += gap
        use = Use(minute=[s for s in use.minute if s.second >= oldest_second(now)])
        refused = refusal("dec", quota, use, tokens, now)
        if refused is None:
            use = charged(use, int(now), tokens)
            admitted.append((now, tokens))
        elif refused.retry_after is not None:
            later = now + refused.retry_after
            then = Use(minute=[s for s in use.minute if s.second >= oldest_second(later)])
            again = refusal("dec", quota, then, tokens, later)
            assert again is None or again.rule != refused.rule
    for end, _ in admitted:
        inside = [tokens for at, tokens in admitted if end - 60 < at <= end]
        assert sum(inside) <= tokens_limit
        assert len(inside) <= requests_limit
