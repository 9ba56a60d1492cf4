"""The breaker as a machine: whatever calls do, it opens by its rule and lets one trial out at a time."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from salver.flow.circuit_breaker import BreakerRule, BreakerState, CircuitBreaker, Ticket

RULE = BreakerRule(failures=3, first_wait=2.0, longest_wait=5.0)


class Breaking(RuleBasedStateMachine):
    """Calls go out when they may, and end well, badly or not at all, in any order.

    Beside the breaker runs the plainest description of it: the ends of this epoch's calls in order.
    """

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = CircuitBreaker(RULE)
        self.ends: list[bool] = []  # of this epoch, while closed
        self.trials: set[Ticket] = set()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=calls)
    def call(self) -> Ticket | None:
        if not self.breaker.lets_through(self.now):
            return None
        self.breaker, ticket = self.breaker.send(self.now)
        if ticket.trial:
            assert not self.trials, "two trials at once"
            self.trials.add(ticket)
        return ticket

    @rule(ticket=consumes(calls))
    def succeed(self, ticket: Ticket | None) -> None:
        if ticket is None:
            return
        before, self.breaker = self.breaker, self.breaker.succeed(ticket)
        if ticket.epoch != before.epoch:
            assert self.breaker == before, "a call of an earlier epoch counted"
        elif ticket.trial:
            self.begin_epoch()
            assert self.breaker.state(self.now) is BreakerState.CLOSED
        else:
            self.ends.append(True)

    @rule(ticket=consumes(calls))
    def fail(self, ticket: Ticket | None) -> None:
        if ticket is None:
            return
        before, self.breaker = self.breaker, self.breaker.fail(ticket, self.now)
        if ticket.epoch != before.epoch:
            assert self.breaker == before, "a call of an earlier epoch counted"
            return
        self.ends.append(False)
        opens = ticket.trial or self.ends[-RULE.failures :] == [False] * RULE.failures
        assert (self.breaker.epoch != before.epoch) == opens
        if opens:
            self.begin_epoch()
            assert self.breaker.state(self.now) is BreakerState.OPEN
            assert self.breaker.wait <= RULE.longest_wait
            assert self.breaker.wait >= before.wait or not ticket.trial

    @rule(ticket=consumes(calls))
    def give_up(self, ticket: Ticket | None) -> None:
        if ticket is None:
            return
        before, self.breaker = self.breaker, self.breaker.give_up(ticket)
        self.trials.discard(ticket)
        assert self.breaker.state(self.now) is before.state(self.now)

    @invariant()
    def an_open_one_lets_nothing_out_until_its_wait_is_over(self) -> None:
        opened = self.breaker.opened
        if opened is not None and self.now < opened + self.breaker.wait:
            assert not self.breaker.lets_through(self.now)
            assert self.breaker.retry_after(self.now) > 0
        elif not self.trials:
            assert self.breaker.lets_through(self.now)

    def begin_epoch(self) -> None:
        self.ends.clear()
        self.trials.clear()


TestBreaking = Breaking.TestCase


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker(RULE)
    for _ in range(RULE.failures):
        breaker, ticket = breaker.send(0.0)
        breaker = breaker.fail(ticket, 0.0)
    return breaker


def test_a_success_ends_a_run_of_failures() -> None:
    breaker = CircuitBreaker(RULE)
    for well in (False, False, True, False, False):
        breaker, ticket = breaker.send(0.0)
        breaker = breaker.succeed(ticket) if well else breaker.fail(ticket, 0.0)
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_what_was_sent_before_it_broke_says_nothing_afterwards() -> None:
    breaker, early = CircuitBreaker(RULE).send(0.0)
    for _ in range(RULE.failures):
        breaker, ticket = breaker.send(0.0)
        breaker = breaker.fail(ticket, 0.0)
    breaker, trial = breaker.send(breaker.wait)
    breaker, ticket = breaker.succeed(trial).send(breaker.wait)
    breaker = breaker.fail(ticket, breaker.wait)
    assert breaker.succeed(early) == breaker
    assert breaker.fail(early, breaker.wait) == breaker


def test_the_wait_doubles_with_each_failed_trial_up_to_its_bound() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(4):
        waits.append(breaker.wait)
        now += breaker.wait
        breaker, trial = breaker.send(now)
        breaker = breaker.fail(trial, now)
    assert waits == [2.0, 4.0, 5.0, 5.0]


def test_a_trial_that_was_given_up_lets_another_out() -> None:
    breaker, trial = opened().send(2.0)
    assert not breaker.lets_through(2.0)
    assert breaker.give_up(trial).lets_through(2.0)
