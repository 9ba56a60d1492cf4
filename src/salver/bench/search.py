"""Several runs: over rates, for the highest rate that still keeps its goodput, and of two servers.

The highest rate is found by bisection on a share of goodput pooled over seeds. Each probe is as
many runs as there are seeds; the interval around its share is Wilson's over all their arrivals. A
rate at which hardly anything comes tells nothing, so nothing is looked for below it. Goodput
falls with the rate only on average, so the answer is a bracket: the highest rate that held and the
lowest that did not. (Rejected: rising until it breaks, which stops at the first unlucky burst.)
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from salver.bench.measure import Measurement
from salver.bench.statistics import Floats, Interval, bootstrap, wilson
from salver.bench.summary import waited
from salver.telemetry import is_good

FURTHEST = 4096.0  # how far from its start, as a factor, a search goes
FEWEST = 10  # judged arrivals of a failed probe, below which no lower rate is looked for

Measure = Callable[[float, int], Awaitable[Measurement]]
"""Runs the mix at a rate (requests per second) with a seed."""


@dataclass(frozen=True, slots=True)
class Point:
    """All runs at one rate. `share` is goodput's, over the arrivals of all seeds."""

    rate: float
    share: Interval
    goodput_rate: float  # good arrivals per second, mean over seeds
    runs: tuple[Measurement, ...]

    @property
    def valid(self) -> bool:
        return all(run.report.valid for run in self.runs)

    @property
    def judged(self) -> int:
        """How many arrivals its share rests on."""
        return sum(run.report.total.arrivals for run in self.runs)

    @property
    def drawn_rate(self) -> float | None:
        """Requests per second of the schedules drawn for this rate; None for a closed loop."""
        drawn = [run.report.client.intended_rate for run in self.runs]
        return float(np.mean(drawn)) if any(drawn) else None


@dataclass(frozen=True, slots=True)
class Bracket:
    """What probes have told: `held` is the highest rate that held (0: none yet), `failed` the
    lowest that did not."""

    held: float = 0.0
    failed: float | None = None

    def after(self, rate: float, *, held: bool) -> "Bracket":
        """With one more probe, at a rate that lies between the two."""
        return Bracket(rate, self.failed) if held else Bracket(self.held, rate)

    def next_rate(self, start: float, *, growth: float, precision: float) -> float | None:
        """The rate to probe next: away from `start` until the answer is between two rates, then
        their middle; None once these are within a relative `precision`, or as far as it goes."""
        if self.failed is None:
            grown = self.held * growth if self.held else start
            return grown if grown <= start * FURTHEST else None
        if not self.held:
            shrunk = self.failed / growth
            return shrunk if shrunk >= start / FURTHEST else None
        if self.failed - self.held <= precision * self.failed:
            return None
        return (self.held + self.failed) / 2


@dataclass(frozen=True, slots=True)
class Found:
    """`highest` kept the goodput, `failed` (None if none did) was the lowest rate that did not."""

    highest: float
    failed: float | None
    wanted_share: float
    points: tuple[Point, ...]


async def probe(measure: Measure, rate: float, seeds: Sequence[int]) -> Point:
    """Run at one rate with every seed."""
    runs = [await measure(rate, seed) for seed in seeds]
    judged = [verdict for run in runs for verdict in good(run)]
    share = wilson(round(sum(judged)), len(judged))
    rates = [run.report.total.goodput.rate for run in runs]
    return Point(rate, share, float(np.mean(rates)), tuple(runs))


async def sweep(measure: Measure, rates: Sequence[float], seeds: Sequence[int]) -> list[Point]:
    """Run at each of these rates, in the order given."""
    return [await probe(measure, rate, seeds) for rate in rates]


async def highest_rate(
    measure: Measure,
    *,
    start: float,
    share: float,
    seeds: Sequence[int],
    growth: float = 2.0,
    precision: float = 0.05,
) -> Found:
    """The highest rate whose goodput is at least `share`, to a relative `precision`.

    A probe that the client spoiled counts as failed: no rate is found that could not be measured.
    Where none has held and a probe failed with under `FEWEST` judged arrivals, none is found.
    """
    points: list[Point] = []
    bracket = Bracket()
    while rate := bracket.next_rate(start, growth=growth, precision=precision):
        point = await probe(measure, rate, seeds)
        points.append(point)
        bracket = bracket.after(rate, held=point.valid and point.share.value >= share)
        if not bracket.held and point.judged < FEWEST:
            break
    in_order = sorted(points, key=lambda point: point.rate)
    return Found(bracket.held, bracket.failed, share, tuple(in_order))


@dataclass(frozen=True, slots=True)
class Ratio:
    """`interval` is None for a single round, which tells nothing of how rounds differ."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two servers under the same schedules, alternating. Ratios are of A to B, over all rounds.

    A latency's ratio is of medians; that of TTFT includes who waited in vain.
    """

    runs: tuple[tuple[Measurement, Measurement], ...]
    ratios: dict[str, Ratio | None]

    @property
    def valid(self) -> bool:
        return all(run.report.valid for pair in self.runs for run in pair)


async def compare(
    measure_a: Measure, measure_b: Measure, *, rate: float, seeds: Sequence[int]
) -> Comparison:
    """Run A and B in turn, A first in even rounds and B first in odd ones, with one seed a round."""
    pairs: list[tuple[Measurement, Measurement]] = []
    for round_, seed in enumerate(seeds):
        if round_ % 2:
            b, a = await measure_b(rate, seed), await measure_a(rate, seed)
        else:
            a, b = await measure_a(rate, seed), await measure_b(rate, seed)
        pairs.append((a, b))
    return Comparison(tuple(pairs), ratios_of(pairs))


def ratios_of(pairs: Sequence[tuple[Measurement, Measurement]]) -> dict[str, Ratio | None]:
    """What A has for each of B's: goodput, TTFT, TPOT; None where either has no samples."""
    return {
        "goodput": _ratio(pairs, good, np.mean),
        "TTFT": _ratio(pairs, _waits, np.median),
        "TPOT": _ratio(pairs, _gaps, np.median),
    }


def good(run: Measurement) -> list[float]:
    """1 for each good arrival of the window and 0 for each other."""
    report = run.report
    judged = report.window.judged(run.records)
    return [float(is_good(r.ending, r.latencies(), report.objectives)) for r in judged]


def _waits(run: Measurement) -> list[float]:
    """To the first token, or in vain: without those, who answers fewest would look fastest."""
    waits = (waited(record) for record in run.report.window.judged(run.records))
    return [wait for wait in waits if wait is not None]


def _gaps(run: Measurement) -> list[float]:
    judged = run.report.window.judged(run.records)
    gaps = (record.latencies().tpot for record in judged)
    return [gap for gap in gaps if gap is not None]


def _ratio(
    pairs: Sequence[tuple[Measurement, Measurement]],
    samples: Callable[[Measurement], list[float]],
    middle: Callable[[Floats], float],
) -> Ratio | None:
    """Of A's middle to B's; None where that is no number."""

    def ratio(groups: Sequence[Floats]) -> float:
        a, b = groups
        below = middle(b) if len(a) and len(b) else 0.0
        return float(middle(a) / below) if below else float("nan")

    rounds = [[samples(a), samples(b)] for a, b in pairs]
    value = ratio([np.concatenate(group) for group in zip(*rounds, strict=True)])
    if np.isnan(value):
        return None
    return Ratio(value, bootstrap(rounds, ratio) if len(rounds) > 1 else None)
