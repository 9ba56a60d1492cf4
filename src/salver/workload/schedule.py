"""From a mix to its schedule: a pure value, the same for the same seed, byte for byte.

Each flow is drawn session by session in order of their beginnings; a request on its own is a session
of one turn. Turns of overlapping sessions, and then the flows, are merged by time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush, merge
from itertools import count
from pathlib import Path

from salver.workload.arrival import Arrival
from salver.workload.files import digest_of, find_file
from salver.workload.flow import FlowSource
from salver.workload.mix import ClosedLoop, Mix

FURTHEST = 2.0**20  # how far from 1 a rate factor is looked for


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one flow's trace was changed to fit: 1 is as recorded, None is not from the trace."""

    flow: str
    trace: str
    speed: float | None
    input: float | None
    output: float | None


class Workload:
    """A mix with its files read.

    Raises:
        MixError: a file is missing or has faults.
    """

    def __init__(self, mix: Mix, roots: Sequence[Path] = ()) -> None:
        self.mix = mix
        self._roots = roots
        self._sources = [FlowSource(flow, roots) for flow in mix.flows]

    @property
    def closed_loop(self) -> ClosedLoop | None:
        """The users, if the mix is a closed loop instead of a schedule."""
        return self.mix.flows[0].arrivals.closed_loop

    def digests(self) -> dict[str, str]:
        """The SHA-256 of every file that the mix names, by its name there."""
        traces = [flow.trace.file for flow in self.mix.flows if flow.trace]
        prompts = [flow.prompts.jsonl.file for flow in self.mix.flows if flow.prompts.jsonl]
        return {name: digest_of(find_file(name, self._roots)) for name in (*traces, *prompts)}

    @property
    def rate(self) -> float:
        """Requests per second that the mix asks for on average; 0 for a closed loop."""
        return self._rate_at(1.0)

    def factor_for(self, rate: float) -> float:
        """The least factor at which at least this many requests come per second, on average.

        The faster a trace is played, the further the mix's duration reaches into it. Where its end
        is reached first, the factor is one that `schedule` refuses. With exact instants the count
        rises by whole requests, and is had with every seed; of a step of a grid some requests fall
        behind the duration, and how many depends on the seed.
        """
        low, high = 1 / FURTHEST, 1.0
        while self._rate_at(high) < rate and high < FURTHEST:
            low, high = high, high * 2
        while low < (middle := (low + high) / 2) < high:
            low, high = (low, middle) if self._rate_at(middle) >= rate else (middle, high)
        return high

    def _rate_at(self, rate_factor: float) -> float:
        return sum(source.rate(self.mix.duration, rate_factor) for source in self._sources)

    def scalings(self, rate_factor: float = 1.0) -> list[Scaling]:
        """What was done to every trace in use; belongs in every report."""
        return [
            Scaling(
                flow.name,
                flow.trace.file,
                flow.arrivals.trace.speed * rate_factor if flow.arrivals.trace else None,
                flow.input.trace if flow.input else None,
                flow.output.trace,
            )
            for flow in self.mix.flows
            if flow.trace
        ]

    def schedule(self, *, seed: int | None = None, rate_factor: float = 1.0) -> Iterator[Arrival]:
        """The arrivals of an open loop in order of time, numbered from 0.

        Raises:
            MixError: a trace is shorter than the mix at this rate.
        """
        until = self.mix.duration
        drawn = (source.sessions(self._seed(seed), rate_factor, until) for source in self._sources)
        flows = [_in_time(sessions, until) for sessions in drawn]
        for number, arrival in enumerate(merge(*flows, key=lambda arrival: arrival.at)):
            yield replace(arrival, number=number)

    def users(self, *, seed: int | None = None) -> list[Iterator[Arrival]]:
        """What each user of a closed loop asks, without end; `at` is the pause before it."""
        loop = self.closed_loop
        if loop is None:
            return []
        source, numbers = self._sources[0], count()
        return [
            _numbered(source.user(self._seed(seed), user, loop), numbers)
            for user in range(loop.users)
        ]

    def _seed(self, seed: int | None) -> int:
        return self.mix.seed if seed is None else seed


def _in_time(sessions: Iterator[Iterator[Arrival]], until: float) -> Iterator[Arrival]:
    """The turns before `until` of sessions that come in order of their first turns, in order."""
    waiting: list[tuple[float, int, Arrival]] = []
    order = count()
    for turns in sessions:
        for turn in turns:
            if turn.turn == 0:
                while waiting and waiting[0][0] <= turn.at:
                    yield heappop(waiting)[2]
            if turn.at < until:
                heappush(waiting, (turn.at, next(order), turn))
    while waiting:
        yield heappop(waiting)[2]


def _numbered(arrivals: Iterator[Arrival], numbers: Iterator[int]) -> Iterator[Arrival]:
    for arrival in arrivals:
        yield replace(arrival, number=next(numbers))
