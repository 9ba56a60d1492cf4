"""Several runs: over rates, for the highest rate that still keeps its goodput, and of two servers.

The highest rate is found by bisection on a share of goodput pooled over seeds. Each probe is as
many runs as there are seeds; the interval around its share is a bootstrap over arrivals. Goodput
falls with the rate only on average, so the answer is a bracket: the highest rate that held and the
lowest that did not. (Rejected: rising until it breaks, which stops at the first unlucky burst.)
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from salver.bench.measure import Measurement
from salver.bench.statistics import Floats, Interval, bootstrap
from salver.telemetry import is_good

MAX_DOUBLINGS = 12

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
    share = bootstrap([judged], lambda groups: float(groups[0].mean()) if judged else 1.0)
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
    precision: float = 0.05,
) -> Found:
    """The highest rate whose goodput is at least `share`, to a relative `precision`.

    Doubles (or halves) from `start` until the answer is between two rates, then bisects. A probe
    that the client spoiled counts as failed: no rate is found that could not be measured.
    """
    points: list[Point] = []

    async def holds(rate: float) -> bool:
        points.append(await probe(measure, rate, seeds))
        return points[-1].valid and points[-1].share.value >= share

    good_rate, bad_rate = 0.0, None
    rate = start
    for _ in range(MAX_DOUBLINGS):
        if await holds(rate):
            good_rate, rate = rate, rate * 2
        else:
            bad_rate, rate = rate, rate / 2
        if good_rate and bad_rate:
            break
    while good_rate and bad_rate and bad_rate - good_rate > precision * bad_rate:
        middle = (good_rate + bad_rate) / 2
        if await holds(middle):
            good_rate = middle
        else:
            bad_rate = middle
    return Found(good_rate, bad_rate, share, tuple(sorted(points, key=lambda p: p.rate)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two servers under the same schedules, alternating. Ratios are of A to B.

    A latency's ratio is of medians, with every run's samples resampled by themselves.
    """

    runs: tuple[tuple[Measurement, Measurement], ...]
    ratios: dict[str, Interval | None]

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


def ratios_of(pairs: Sequence[tuple[Measurement, Measurement]]) -> dict[str, Interval | None]:
    """What A has for each of B's: goodput, TTFT, TPOT; None where either has no samples."""
    samples: dict[str, Callable[[Measurement], list[float]]] = {
        "goodput": good,
        "TTFT": lambda run: _latency(run, "ttft"),
        "TPOT": lambda run: _latency(run, "tpot"),
    }
    ratios: dict[str, Interval | None] = {}
    for name, of in samples.items():
        a = [value for pair in pairs for value in of(pair[0])]
        b = [value for pair in pairs for value in of(pair[1])]
        middle = np.mean if name == "goodput" else np.median
        ratios[name] = bootstrap([a, b], _ratio_of(middle)) if a and b else None
    return ratios


def good(run: Measurement) -> list[float]:
    """1 for each good arrival of the window and 0 for each other."""
    report = run.report
    judged = report.window.judged(run.records)
    return [float(is_good(r.ending, r.latencies(), report.objectives)) for r in judged]


def _latency(run: Measurement, name: str) -> list[float]:
    judged = run.report.window.judged(run.records)
    values = (getattr(record.latencies(), name) for record in judged)
    return [value for value in values if value is not None]


def _ratio_of(middle: Callable[[Floats], float]) -> Callable[[Sequence[Floats]], float]:
    def ratio(groups: Sequence[Floats]) -> float:
        a, b = middle(groups[0]), middle(groups[1])
        return float(a / b) if b else float("nan")

    return ratio
