"""What a tenant may spend: in a minute, and at once.

A request is charged when it is admitted, with the most that it could use, and what it did not use
is given back to the second in which it was charged. A second counts until 60 s after its end. So
whatever a tenant's calls turn out to use, those admitted within any 60 s never use more than the
quota; a call that runs for minutes is charged once. (A token bucket would let twice the quota
through in the minute after a quiet one.)

This module decides on plain numbers. Where they come from, and that nobody else decides on the
same numbers meanwhile, is the state store's business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor

from salver.contract import Action, Cause, Decision

WINDOW_SECONDS = 60
LEASE_SECONDS = 60.0  # of a reservation that its gateway does not renew
RETRY_IN_FLIGHT_S = 1.0  # a floor; nothing here knows when a call in flight will end


@dataclass(frozen=True, slots=True)
class Quota:
    """One tenant's bounds; None is no bound. Tokens are those of prompts and outputs together."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    max_tokens_in_flight: int | None = None

    @property
    def limiters(self) -> tuple[str, ...]:
        """The names of the bounds there are."""
        return tuple(name for name in self.__slots__ if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was charged in [second, second + 1) of Unix time."""

    second: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Use:
    """What a tenant uses now. `minute` holds the seconds that count, oldest first."""

    in_flight: int = 0
    tokens_in_flight: int = 0
    minute: Sequence[Spent] = ()


@dataclass(frozen=True, slots=True)
class Allowance:
    """One bound per minute as callers are told it; `reset_s` is when all of it is there again."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands with its bounds per minute; None where it has none."""

    requests: Allowance | None = None
    tokens: Allowance | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """A request that would break a bound, and how its tenant stands without it."""

    decision: Decision
    standing: Standing


def oldest_second(now: float) -> int:
    """The first second that still counts at `now`."""
    return floor(now) - WINDOW_SECONDS


def refusal(decision_id: str, quota: Quota, use: Use, tokens: int, now: float) -> Decision | None:
    """Hold one more request of at most `tokens` against the quota; None admits."""
    requests, spent = _sum(use.minute, _requests), _sum(use.minute, _tokens)
    held = (
        ("max_in_flight", use.in_flight, 1, None),
        ("max_tokens_in_flight", use.tokens_in_flight, tokens, None),
        ("requests_per_minute", requests, 1, _requests),
        ("tokens_per_minute", spent, tokens, _tokens),
    )
    for name, used, asked, measure in held:
        limit = getattr(quota, name)
        if limit is not None and used + asked > limit:
            wait = RETRY_IN_FLIGHT_S
            if measure is not None:
                wait = _wait(use.minute, measure, used + asked - limit, now)
            return _refuse(decision_id, name, (used, asked, limit), wait)
    return None


def charged(use: Use, second: int, tokens: int) -> Use:
    """The use with one more request of `tokens`, charged in `second`, the latest there is."""
    earlier = [spent for spent in use.minute if spent.second != second]
    same = [spent for spent in use.minute if spent.second == second]
    now = Spent(second, _sum(same, _requests) + 1, _sum(same, _tokens) + tokens)
    return Use(use.in_flight + 1, use.tokens_in_flight + tokens, [*earlier, now])


def standing(quota: Quota, use: Use, now: float) -> Standing:
    """What is left of the minute."""
    return Standing(
        requests=_allowance(quota.requests_per_minute, use.minute, _requests, now),
        tokens=_allowance(quota.tokens_per_minute, use.minute, _tokens, now),
    )


_Measure = Callable[[Spent], int]


def _requests(spent: Spent) -> int:
    return spent.requests


def _tokens(spent: Spent) -> int:
    return spent.tokens


def _sum(minute: Sequence[Spent], measure: _Measure) -> int:
    return sum(map(measure, minute))


def _wait(minute: Sequence[Spent], measure: _Measure, excess: int, now: float) -> float:
    """Seconds until so many seconds have left the window that they gave back `excess`."""
    for spent in minute:
        excess -= measure(spent)
        if excess <= 0:
            return _leaves(spent, now)
    return float(WINDOW_SECONDS)


def _leaves(spent: Spent, now: float) -> float:
    return spent.second + 1 + WINDOW_SECONDS - now


def _allowance(
    limit: int | None, minute: Sequence[Spent], measure: _Measure, now: float
) -> Allowance | None:
    if limit is None:
        return None
    charged = [spent for spent in minute if measure(spent)]
    reset = _leaves(charged[-1], now) if charged else 0.0
    return Allowance(limit, max(0, limit - _sum(minute, measure)), reset)


def _refuse(decision_id: str, name: str, held: tuple[int, int, int], wait: float) -> Decision:
    used, asked, limit = held
    words = name.removeprefix("max_").replace("_", " ")
    if asked > limit:
        reason = f"this request alone may use {asked}, the tenant's quota of {words} is {limit}"
        reason += ": lower max_tokens"
    else:
        reason = (
            f"the tenant has used {used} of its {limit} {words}, and this request may use {asked}"
        )
    return Decision(
        id=decision_id,
        rule=f"tenants.{name}",
        value=used + asked,
        limit=limit,
        action=Action.REFUSE,
        cause=Cause.CALLER,
        reason=reason,
        retry_after=None if asked > limit else wait,
    )
