"""The fair queue before other servers, over servers that answer as they like: nobody is lost, classes
and deadlines are kept, and two tenants that both wait are served alike, within the stated bound."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count, permutations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from salver.contract import GenerateRequest, SamplingParams, TrafficClass
from salver.flow import Share
from salver.flow.fairness import DECODE_CHARGE, RANKS, Account
from salver.flow.queue_bound import QueueBound
from salver.flow.waiting import FairQueue, FirstComeQueue, Queue

SHARES = {"red": Share(1.0), "blue": Share(3.0), "green": Share(0.5)}
LIMITS = (60, 25)  # tokens in flight, of each server
LONGEST = 40  # prompt and output


@dataclass(eq=False)
class Asking:
    """One request, and what the servers have done of it."""

    request: GenerateRequest
    server: int = -1
    fresh: int = 0  # of its prompt, what was charged for
    done: int = 0  # tokens of the answer
    was_sent: bool = False
    id: int = field(default_factory=count().__next__)

    @property
    def tokens(self) -> int:
        return len(self.request.prompt_token_ids) + self.request.sampling.max_tokens

    @property
    def account(self) -> Account:
        return RANKS[self.request.traffic_class], self.request.tenant


class Servers:
    """Servers with room for so many tokens each, or for one request; charged as in `upstream`."""

    def __init__(self, queue: Queue[Asking]) -> None:
        self.queue = queue
        self.in_flight: list[Asking] = []
        self.waiting: list[Asking] = []
        self.had: defaultdict[Account, float] = defaultdict(float)
        self.worst = 0.0  # gap, as a part of its bound
        self._since: dict[tuple[Account, Account], float] = {}

    def ask(
        self, tenant: str, prompt: int, output: int, within: float | None = None, rank: int = 1
    ) -> Asking:
        asking = Asking(
            GenerateRequest(
                "r",
                (0,) * prompt,
                SamplingParams(max_tokens=output),
                tenant=tenant,
                traffic_class=tuple(TrafficClass)[rank],
                deadline=within,
            )
        )
        self.queue.push(asking)
        self.waiting.append(asking)
        self.send()
        return asking

    def send(self) -> list[Asking]:
        """All that have room, in their turns."""
        sent = []
        while (first := self.queue.first()) is not None:
            assert first in self.waiting
            server = next((i for i in range(len(LIMITS)) if self.has_room(i, first.tokens)), None)
            if server is None:
                break
            first.server, first.was_sent = server, True
            self.queue.remove(first)
            self.waiting.remove(first)
            self.in_flight.append(first)
            sent.append(first)
            first.fresh = max(1, len(first.request.prompt_token_ids) // 2)  # half a hit
            self.charge(first, first.fresh)
        self.audit()
        return sent

    def has_room(self, server: int, tokens: int) -> bool:
        used = sum(each.tokens for each in self.in_flight if each.server == server)
        return not used or used + tokens <= LIMITS[server]

    def charge(self, asking: Asking, service: float) -> None:
        self.queue.charge(asking.request, service)
        self.had[asking.account] += service / SHARES[asking.request.tenant].weight

    def answer(self, asking: Asking, tokens: int) -> None:
        tokens = min(tokens, asking.request.sampling.max_tokens - asking.done)
        asking.done += tokens
        self.charge(asking, DECODE_CHARGE * tokens)
        self.audit()

    def end(self, asking: Asking) -> list[Asking]:
        """It hit nothing after all."""
        self.charge(asking, len(asking.request.prompt_token_ids) - asking.fresh)
        self.in_flight.remove(asking)
        return self.send()

    def audit(self) -> None:
        """Law 5 before other servers, of every two accounts of a class that both wait."""
        waiting = {each.account for each in self.waiting}
        for pair in permutations(waiting, 2):
            if pair[0][0] == pair[1][0]:
                gap = self.had[pair[0]] - self.had[pair[1]]
                grown = gap - self._since.setdefault(pair, gap)
                self.worst = max(self.worst, grown / self.bound(pair))
        for pair in [pair for pair in self._since if not set(pair) <= waiting]:
            del self._since[pair]

    def bound(self, pair: tuple[Account, Account]) -> float:
        most = sum(max(limit, LONGEST) for limit in LIMITS)
        return DECODE_CHARGE * most * sum(1 / SHARES[tenant].weight for _, tenant in pair)


class TurnLaws(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Asking] = FairQueue(SHARES)
        self.servers = Servers(self.queue)

    @rule(
        tenant=st.sampled_from(list(SHARES)),
        prompt=st.integers(1, 20),
        output=st.integers(1, 20),
        within=st.sampled_from([None, 1.0, 2.0]),
        rank=st.sampled_from([0, 1, 1, 1, 2]),
        times=st.sampled_from([1, 1, 5]),
    )
    def arrive(
        self, tenant: str, prompt: int, output: int, within: float | None, rank: int, times: int
    ) -> None:
        for _ in range(times):
            asking = self.servers.ask(tenant, prompt, output, within, rank)
            if asking in self.servers.waiting:
                line = [each for each in self.servers.waiting if each.account == asking.account]
                before = [each for each in line if _urgency(each) < _urgency(asking)]
                assert self.queue.ahead(asking) == sum(each.tokens for each in before)

    @precondition(lambda self: self.servers.in_flight)
    @rule(which=st.integers(0), tokens=st.integers(1, 20))
    def answer(self, which: int, tokens: int) -> None:
        in_flight = self.servers.in_flight
        self.servers.answer(in_flight[which % len(in_flight)], tokens)

    @precondition(lambda self: self.servers.in_flight)
    @rule(which=st.integers(0))
    def end(self, which: int) -> None:
        in_flight, waited = self.servers.in_flight, list(self.servers.waiting)
        for sent in self.servers.end(in_flight[which % len(in_flight)]):
            waited.remove(sent)
            assert all(sent.account[0] <= each.account[0] for each in waited), "a lower class"
            mine = [each for each in waited if each.account == sent.account]
            assert all(_urgency(sent) < _urgency(each) for each in mine), "a later deadline"

    @precondition(lambda self: self.servers.waiting)
    @rule(which=st.integers(0))
    def give_up(self, which: int) -> None:
        gone = self.servers.waiting.pop(which % len(self.servers.waiting))
        self.queue.remove(gone)
        self.queue.remove(gone)  # nothing happens
        self.servers.send()

    @precondition(lambda self: self.servers.waiting)
    @rule(which=st.integers(0), most=st.integers(0, 8))
    def fill(self, which: int, most: int) -> None:
        """One that waits is taken for the newcomer of a queue that is full."""
        newcomer = self.servers.waiting[which % len(self.servers.waiting)]
        requests, tokens = self.queue.waiting()
        mine = len(newcomer.request.prompt_token_ids)
        bound, waiting = QueueBound(most, 10**6), (requests - 1, tokens - mine)
        groups = list(self.queue.give_way(newcomer))
        victims = bound.make_room(waiting, (1, mine), groups, lambda _: 0)
        assert newcomer not in victims
        assert [(each,) for each in victims] == groups[: len(victims)]
        assert not victims or requests - len(victims) <= most
        self.check_order([each for (each,) in groups], newcomer)

    def check_order(self, givers: list[Asking], newcomer: Asking) -> None:
        ranks = [each.account[0] for each in givers]
        assert ranks == sorted(ranks, reverse=True)
        assert all(each >= newcomer.account[0] for each in ranks)
        lower = [each for each in self.servers.waiting if each.account[0] > newcomer.account[0]]
        assert all(each in givers for each in lower)
        assert not any(each.account == newcomer.account for each in givers)

    @invariant()
    def law_5_tenants_that_wait_are_served_alike(self) -> None:
        assert self.servers.worst <= 1

    @invariant()
    def law_10_what_waits_is_what_is_counted(self) -> None:
        prompts = [len(each.request.prompt_token_ids) for each in self.servers.waiting]
        assert self.queue.waiting() == (len(prompts), sum(prompts))

    def teardown(self) -> None:
        """Nobody is lost: as the servers end what they have, all have their turns."""
        while self.servers.in_flight:
            self.servers.end(self.servers.in_flight[0])
        assert not self.servers.waiting
        assert self.queue.first() is None


TestTurnLaws = TurnLaws.TestCase
TestTurnLaws.settings = settings(max_examples=200, stateful_step_count=40)


def _urgency(asking: Asking) -> tuple[float, int]:
    deadline = asking.request.deadline
    return (float("inf") if deadline is None else deadline), asking.id


def served(queue: Queue[Asking], rounds: int) -> Servers:
    """Three tenants that always wait; each has come with all it has before the next one."""
    servers = Servers(queue)
    for tenant in SHARES:
        for _ in range(rounds):
            servers.ask(tenant, 10, 10)
    for _ in range(rounds):
        asking = servers.in_flight[0]
        servers.answer(asking, 10)
        servers.end(asking)
    return servers


def test_service_follows_the_weights() -> None:
    """Every one of 300 requests costs 30, so a bound of 340 is 11 of them at weight 1."""
    servers = served(FairQueue(SHARES), 300)
    assert servers.worst <= 1
    had = [servers.had[1, tenant] for tenant in SHARES]
    assert max(had) - min(had) <= min(had) / 2


def test_what_was_sent_before_does_not_give_way() -> None:
    servers = Servers(FairQueue(SHARES))
    for _ in range(6):
        last = servers.ask("red", 20, 20, rank=2)
    last.was_sent = True
    newcomer = servers.ask("blue", 20, 20)
    givers = [each for (each,) in servers.queue.give_way(newcomer)]
    assert givers == [each for each in reversed(servers.waiting) if each not in (last, newcomer)]


def test_the_gap_of_first_come_first_served_has_no_such_bound() -> None:
    assert served(FirstComeQueue(), 300).worst > 3


def test_who_was_idle_has_saved_up_nothing() -> None:
    """Blue had the servers to itself for long; from when red comes they take turns by weight."""
    servers = Servers(FairQueue(SHARES))
    for _ in range(500):
        servers.ask("blue", 10, 10)
        for asking in list(servers.in_flight):
            servers.answer(asking, 10)
            servers.end(asking)
    before = dict(servers.had)
    for _ in range(200):
        servers.ask("blue", 10, 10)
        servers.ask("red", 10, 10)
    for _ in range(100):
        servers.answer(servers.in_flight[0], 10)
        servers.end(servers.in_flight[0])
    assert servers.had[1, "blue"] - before[1, "blue"] > 300
