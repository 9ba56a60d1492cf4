"""How soon another server answers, how fast it goes on and makes room, learned from what it did.

Its steps are its own and cannot be seen. What can be seen is when a prompt was sent, what was sent
before it and not answered yet, and when its first token came: a line through the latest of these says
what one more prompt would take. Another, through the seconds per token and the requests that were in
flight meanwhile, says how many may be. Both are told high by their own error, so that what is sent
is in time; how long a queue lasts is told low, so that what is refused for it had no chance.
"""

from dataclasses import dataclass
from math import exp, inf

from salver.flow.feasibility import LEAST_DOUBT

RIDGE = 0.02  # how much a line is drawn towards one through zero, of the squared mean
STRETCH = 16  # tokens of an answer by which its pace is told
UNTRIED = 8  # requests that are sent to a server of which nothing is known
GROWTH = 2.0  # times as many as were in flight lately are sent at most, however good their pace was
DRAIN_SECONDS = 10.0  # by then a rate has lost two thirds of its weight


@dataclass(slots=True)
class Line:
    """Seconds over an amount of work, by weighted least squares; neither base nor slope is negative.

    Where the work was always about the same, which says nothing of a slope, the seconds are taken to
    be proportional to it (ridge regression towards the line through zero): who holds the work to what
    such a line allows comes to where the seconds are as wanted, and does not overshoot.
    """

    memory: float = 5.0  # seconds, by which an observation has lost two thirds of its weight
    _noted: float = 0.0  # an instant
    _weight: float = 0.0
    _x: float = 0.0
    _y: float = 0.0
    _xx: float = 0.0
    _xy: float = 0.0
    _missed: float = 0.0  # the absolute errors of what was told

    def note(self, work: float, seconds: float, now: float) -> None:
        """So much work took so long, it was found now."""
        missed = abs(self.base + self.slope * work - seconds) if self.known else 0.0
        kept = exp((self._noted - now) / self.memory)
        self._noted = now
        self._weight = kept * self._weight + 1
        self._x = kept * self._x + work
        self._y = kept * self._y + seconds
        self._xx = kept * self._xx + work * work
        self._xy = kept * self._xy + work * seconds
        self._missed = kept * self._missed + missed

    @property
    def known(self) -> bool:
        """Whether anything was seen."""
        return self._weight > 0

    @property
    def work(self) -> float:
        """What it was in the mean; 0 where nothing is known."""
        return self._x / self._weight if self._weight else 0.0

    @property
    def slope(self) -> float:
        """Seconds for one more unit of work."""
        if not self._x:
            return 0.0
        x, y = self._x / self._weight, self._y / self._weight
        spread = max(0.0, self._xx / self._weight - x * x)
        together = self._xy / self._weight - x * y
        slope = (together + RIDGE * x * y) / (spread + RIDGE * x * x)
        return min(max(0.0, slope), y / x)  # no base below zero

    @property
    def base(self) -> float:
        """Seconds for no work; 0 before the first observation."""
        return (self._y - self.slope * self._x) / self._weight if self._weight else 0.0

    @property
    def doubt(self) -> float:
        """By which share of itself what is told may be off, at the 95th percentile or so."""
        share = self._missed / self._y if self._y else 0.0
        return min(1.0, max(LEAST_DOUBT, 2 * share))

    def told_high(self, before: float, own: float) -> tuple[float, float]:
        """Seconds for the work before a request, and from then for its own."""
        high = 1 + self.doubt
        return high * self.slope * before, high * (self.base + self.slope * own)

    def most(self, seconds: float) -> float:
        """The work that takes no longer than that, told high; inf where nothing is known.

        By half the doubt: what is wanted of many stretches together need not hold of each.
        """
        left = seconds / (1 + self.doubt / 2) - self.base
        return left / self.slope if self.slope else inf

    def kept(self, seconds: float) -> bool:
        """Whether what was seen took no longer than that, in the mean and told high as in `most`."""
        return self._y <= seconds * self._weight

    def __repr__(self) -> str:
        return f"<Line {self.base:.4f} s + {self.slope * 1e3:.3f} ms each ± {self.doubt:.0%}>"


@dataclass(slots=True, eq=False)
class Flight:
    """A request at the server: the prompt tokens to compute for it and for those before it, and what
    has come of each of its `choices`."""

    fresh: int
    ahead: int
    choices: int
    sent: float
    answered: bool = False
    marked: float = 0.0  # the instant at which the stretch under way began
    flown: float = 0.0  # request-seconds at the server until then
    stretch: int = 0  # tokens since then


class ServerPace:
    """What is in flight at one server, and what it says of the server. Instants are handed in."""

    def __init__(self, now: float) -> None:
        self.requests = 0
        self.unanswered = 0  # prompt tokens of those whose first token has not come
        self.first_tokens = Line()  # over the prompt tokens to compute until then
        self.token_gaps = Line()  # over the requests in flight meanwhile
        self._flown = 0.0  # request-seconds, until `_since`
        self._since = now

    def has_place(self, token_gap: float | None) -> bool:
        """Whether one more request leaves the others that many seconds per token. One always has.

        While as many as there were lately kept it, so has one more than these: from requests that
        came one by one nothing can be told of two, and two would never be tried.
        """
        if token_gap is None:
            return True
        gaps = self.token_gaps
        tried = max(UNTRIED, GROWTH * gaps.work)
        next_ = gaps.work + 1 if gaps.kept(token_gap) else 1.0
        return self.requests + 1 <= max(next_, min(tried, gaps.most(token_gap)))

    def send(self, fresh: int, choices: int, now: float) -> Flight:
        """A request goes out."""
        flight = Flight(fresh, self.unanswered, choices, now)
        self._fly(now)
        self.requests += 1
        self.unanswered += fresh
        return flight

    def arrive(self, flight: Flight, tokens: int, now: float) -> None:
        """A part of its answer has come."""
        if not flight.answered:
            flight.answered = True
            self.unanswered -= flight.fresh
            self.first_tokens.note(flight.ahead + flight.fresh, now - flight.sent, now)
            self._mark(flight, now)
            return
        flight.stretch += tokens
        if flight.stretch >= STRETCH * flight.choices and now > flight.marked:
            began, flown, each = flight.marked, flight.flown, flight.stretch / flight.choices
            self._mark(flight, now)
            beside = (self._flown - flown) / (now - began)
            self.token_gaps.note(beside, (now - began) / each, now)

    def end(self, flight: Flight, now: float) -> None:
        """It is over, or never went out."""
        self._fly(now)
        self.requests -= 1
        if not flight.answered:
            self.unanswered -= flight.fresh

    def _mark(self, flight: Flight, now: float) -> None:
        self._fly(now)
        flight.marked, flight.flown, flight.stretch = now, self._flown, 0

    def _fly(self, now: float) -> None:
        self._flown += self.requests * (now - self._since)
        self._since = now

    def __repr__(self) -> str:
        return f"<ServerPace {self.requests} in flight, {self.first_tokens}, {self.token_gaps}>"


@dataclass(slots=True)
class Drain:
    """Tokens of room that were given back per second, over the time in which somebody waited."""

    _tokens: float = 0.0
    _seconds: float = 0.0
    _since: float | None = None  # somebody waits, and this much is taken in

    def freed(self, tokens: int, now: float) -> None:
        """Room for so many tokens was given back; counts if somebody waits."""
        if self._since is not None:
            self.look(now, waiting=True)
            self._tokens += tokens

    def look(self, now: float, *, waiting: bool) -> None:
        """Take in the time since the last look, if somebody waited."""
        if self._since is not None:
            kept = exp((self._since - now) / DRAIN_SECONDS)
            self._seconds = self._seconds * kept + now - self._since
            self._tokens *= kept
        self._since = now if waiting else None

    def seconds(self, tokens: int) -> float:
        """Until there is room for so many more tokens, at least; 0 where nothing is known."""
        if tokens <= 0 or self._tokens <= 0:
            return 0.0
        return (1 - LEAST_DOUBT) * tokens * self._seconds / self._tokens
