"""One cell of the table: one server under one mix, made of runs that are kept on disk.

A cell asks for its capacity first (a short closed loop: answers a second with 16 users), then for
the highest rate that keeps its goodput, upwards from a part of that, and last for a run at a multiple
of what it found, where servers show whether they collapse. One seed looks for the rate; more seeds,
if asked for, have to confirm it. Runs that the cell's directory holds are not made again, so that a
table can be made in pieces (`salver.bench.kept`). A run during which others took part of the machine
is made again, and which part the kept one had to do without is written beside it.
"""

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servers import NAME, ServerFailed

from salver.bench.kept import kept
from salver.bench.measure import Measurement, measure
from salver.bench.search import Found, Measure, Point, highest_rate, probe
from salver.bench.target import Target
from salver.errors import BackendUnavailable
from salver.workload import Mix, Workload
from salver.workload.mix import Arrivals, ClosedLoop

from quiet import CpuTime  # isort: skip - of benchmarks/engine, which servers has on the path

USERS = 16
CLOSED_LOOP_SECONDS = 8.0
START = 0.6  # of the closed loop's rate: what is asked for first
GROWTH = 1.4
PRECISION = 0.1
GIVEN_UP = 4.0  # how far below what one seed found all seeds look for a rate that holds
OTHERS = "others.jsonl"
OTHER_SEED = 1_000_000
ATTEMPTS = 3
DISTURBED = 0.1  # share of the machine that others may take before a run is made again
ENDING_SECONDS = 25.0  # what a run takes beside its schedule: warming up, and its last answers


class OutOfTime(Exception):
    """The next run would end after the time that is left; what was made is kept."""


@dataclass(frozen=True)
class Asked:
    """What is looked for: the highest rate at this share of goodput, and what comes beyond it."""

    share: float
    seeds: Sequence[int]
    beyond: float  # a multiple of the highest rate; 0 asks for nothing there


@dataclass(frozen=True)
class Cell:
    """What was found. `beyond` is None where no rate held, or where nothing was asked for there."""

    mix: Mix
    server: str
    weights: str
    capacity: float  # answers a second in the closed loop
    found: Found
    beyond: Point | None
    foreign: float  # the largest share of the machine that others took during one of its runs

    @property
    def best(self) -> Point | None:
        """The runs at the highest rate that held."""
        at = (point for point in self.found.points if point.rate == self.found.highest)
        return next(at, None)


async def highest_and_beyond(
    measure: Measure, start: float, asked: Asked
) -> tuple[Found, Point | None]:
    """The highest rate, and what comes beyond it.

    The first seed looks for the rate, and all seeds confirm it. What comes beyond is asked with the
    first seed: where that holds as well, an unlucky burst had ended the search, which goes on from
    there.
    """
    first = asked.seeds[:1]
    while True:
        found = await highest_rate(
            measure,
            start=start,
            share=asked.share,
            seeds=first,
            growth=GROWTH,
            precision=PRECISION,
        )
        if not found.highest or not asked.beyond:
            return await confirmed(measure, found, asked.seeds), None
        beyond = await probe(measure, found.highest * asked.beyond, first)
        if beyond.valid and beyond.share.value >= asked.share:
            start = beyond.rate
            continue
        sure = await confirmed(measure, found, asked.seeds)
        if not sure.highest:
            return sure, None
        return sure, await probe(measure, sure.highest * asked.beyond, first)


async def confirmed(measure: Measure, found: Found, seeds: Sequence[int]) -> Found:
    """What one seed found, or the highest rate below it, by steps of the search's precision, that
    holds over all seeds together."""
    rate, failed = found.highest, found.failed
    points = {point.rate: point for point in found.points}
    while rate > found.highest / GIVEN_UP:
        point = points[rate] = await probe(measure, rate, seeds)
        if point.valid and point.share.value >= found.wanted_share:
            break
        rate, failed = rate * (1 - PRECISION), rate
    else:
        rate = 0.0
    in_order = sorted(points.values(), key=lambda point: point.rate)
    return Found(rate, failed, found.wanted_share, tuple(in_order))


@dataclass(frozen=True)
class Bench:
    """Makes runs against one server until `deadline` (of `time.monotonic`), and keeps them.

    With a deadline that has passed it only reads. `data` is where files are that mixes name. Its runs
    are refused under other `claims`: the server is told by them, since its port is another each time.
    """

    url: str
    directory: Path
    data: Sequence[Path]
    deadline: float = float("-inf")
    claims: Mapping[str, str] = field(default_factory=dict)  # what the server is, wherever it is

    async def search(self, workload: Workload, asked: Asked, server: str, weights: str) -> Cell:
        """All of a cell. Raises OutOfTime, ServerFailed."""
        runs = self.runs(workload)
        capacity = await self._capacity(workload)
        found, beyond = await highest_and_beyond(runs, capacity * START, asked)
        return Cell(workload.mix, server, weights, capacity, found, beyond, self.most_foreign())

    def runs(self, workload: Workload) -> Measure:
        """The mix at a rate. A run that was spoiled is made again, with another seed: the server
        knows the prompts of the first. The best of three is kept, be it valid or not."""

        async def run(rate: float, seed: int) -> Measurement:
            factor = workload.factor_for(rate)
            tried: list[tuple[float, Measurement]] = []
            for attempt in range(ATTEMPTS):
                tried.append(await self._made(workload, seed + attempt * OTHER_SEED, factor))
                if tried[-1][1].report.valid and tried[-1][0] <= DISTURBED:
                    break
            foreign, made = min(tried, key=lambda one: (not one[1].report.valid, one[0]))
            self._note(rate, foreign)
            return made

        claims = workload.digests() | dict(self.claims)
        return kept(run, self.directory, workload.mix, claims, invalid_too=True)

    async def _capacity(self, workload: Workload) -> float:
        closed = closed_loop_of(workload.mix)

        async def run(rate: float, seed: int) -> Measurement:
            _, made = await self._made(Workload(closed, self.data), seed)
            answers_per_second(made)  # what told nothing is not kept
            return made

        return answers_per_second(
            await kept(run, self.directory / "closed-loop", closed, self.claims)(0.0, 0)
        )

    async def _made(
        self, workload: Workload, seed: int, factor: float = 1.0
    ) -> tuple[float, Measurement]:
        """A run, and the share of the machine that others took meanwhile.

        Raises OutOfTime, ServerFailed.
        """
        if time.monotonic() + workload.mix.duration + ENDING_SECONDS > self.deadline:
            raise OutOfTime
        target = Target(self.url, NAME)
        before = CpuTime.of(os.getpid())
        try:
            made = await measure(workload, target, seed=seed, rate_factor=factor)
        except BackendUnavailable as error:
            raise ServerFailed(str(error)) from None
        return CpuTime.of(os.getpid()).foreign_since(before), made

    def _note(self, rate: float, foreign: float) -> None:
        with (self.directory / OTHERS).open("a") as file:
            file.write(json.dumps({"rate": rate, "others_took": foreign}) + "\n")

    def most_foreign(self, rates: Collection[float] | None = None) -> float:
        """The largest share of the machine that others took, in runs at these rates or in all."""
        lines = (self.directory / OTHERS).read_text().splitlines()
        told = [json.loads(line) for line in lines]
        asked = (one for one in told if rates is None or one["rate"] in rates)
        return max((float(one["others_took"]) for one in asked), default=0.0)


def answers_per_second(made: Measurement) -> float:
    """Of a closed loop. Raises ServerFailed: there was none."""
    answered = [record.ended for record in made.records if record.counted]
    if not answered:
        why = "; ".join(problem for problem, _ in made.report.problems) or "and says nothing"
        raise ServerFailed(f"{made.report.url} answers nothing in a closed loop: {why}")
    return len(answered) / max(answered)


def closed_loop_of(mix: Mix) -> Mix:
    """The first flow's requests, asked by users who wait for their answers."""
    arrivals = Arrivals(closed_loop=ClosedLoop(users=USERS))
    flow = mix.flows[0].model_copy(update={"arrivals": arrivals, "sessions": None})
    changes = {"flows": (flow,), "duration": CLOSED_LOOP_SECONDS, "warmup": None, "cooldown": None}
    return mix.model_copy(update=changes)
