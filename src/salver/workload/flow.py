"""One flow's sessions in order of their beginnings, from an arrival process or from a trace."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from math import fsum
from pathlib import Path

import numpy as np

from salver.contract import Fault
from salver.errors import MixError
from salver.workload.arrival import Arrival
from salver.workload.arrivals import (
    Floats,
    Synthetic,
    burstiness_of,
    expected_rate,
    rate_of,
    renewals,
)
from salver.workload.files import find_file
from salver.workload.mix import ClosedLoop, Flow, TraceTimes
from salver.workload.prompts import read_prompts
from salver.workload.randomness import stream
from salver.workload.sessions import NO_ROW, SessionDraws
from salver.workload.traces import Row, Trace, read_trace
from salver.workload.turns import LaterTurns


class FlowSource:
    """A flow with its files read."""

    def __init__(self, flow: Flow, roots: Sequence[Path]) -> None:
        trace, prompts = flow.trace, flow.prompts.jsonl
        self._flow = flow
        self._trace = read_trace(find_file(trace.file, roots), trace.format) if trace else None
        self._texts = read_prompts(find_file(prompts.file, roots), prompts) if prompts else []
        self._later = LaterTurns(flow.sessions, self._texts)

    def rate(self, duration: float, rate_factor: float = 1.0) -> float:
        """Requests per second, on average, over sessions and those of their turns that come before
        the duration is over; 0 in a closed loop.

        Never falls as the factor rises. Beyond a trace's end nothing more comes. Of a step of a
        trace's grid that the duration cuts, as much counts as lies before the cut: its rows are
        spread over the whole step.
        """
        match self._flow.arrivals.process:
            case ClosedLoop():
                return 0.0
            case TraceTimes() as times:
                return self._expected(times, rate_factor, duration) / duration
            case process:
                begun = expected_rate(process, duration)
                later = self._later.of_sessions(begun, duration) / duration
                return (begun.mean + later) * rate_factor

    def sessions(
        self, seed: int, rate_factor: float, duration: float
    ) -> Iterator[Iterator[Arrival]]:
        """The sessions of an open loop that begin in [0, duration), each as its turns."""
        draws = SessionDraws(self._flow, self._texts, seed, f"x{rate_factor!r}")
        for number, (at, row) in enumerate(self._beginnings(seed, rate_factor, duration)):
            yield draws.session(number, at, row)

    def user(self, seed: int, user: int, loop: ClosedLoop) -> Iterator[Arrival]:
        """What one user of a closed loop asks, without end; `at` is the pause before it."""
        draws = SessionDraws(self._flow, self._texts, seed, "loop", user)
        pauses = stream(seed, self._flow.name, user, "pauses")
        rows = self._rows_at_random(seed, user)
        for number in count():
            pause = pauses.exponential(loop.think) if loop.think else 0.0
            yield from draws.session(number, pause, next(rows))

    def _beginnings(
        self, seed: int, rate_factor: float, duration: float
    ) -> Iterable[tuple[float, Row]]:
        process = self._flow.arrivals.process
        if isinstance(process, ClosedLoop):
            raise ValueError("a closed loop has users, not a schedule")
        if isinstance(process, TraceTimes):
            self._check_reaches(process, rate_factor, duration)
            rows = self._stretch(process, rate_factor, duration)
            return zip(self._replayed(process, rate_factor, rows, seed), rows, strict=True)
        times = self._synthetic(process, seed, rate_factor, duration)
        return zip(times.tolist(), self._rows_at_random(seed), strict=False)

    def _synthetic(
        self, process: Synthetic, seed: int, rate_factor: float, duration: float
    ) -> Floats:
        rate = rate_of(process, duration, stream(seed, self._flow.name, "phases"))
        scaled = rate.scaled(rate_factor)
        gaps = stream(seed, self._flow.name, "arrivals")
        return scaled.instants(renewals(scaled.work[-1], burstiness_of(process), gaps))

    def _stretch(self, times: TraceTimes, rate_factor: float, duration: float) -> Sequence[Row]:
        """The rows that a replay of this length takes, in order, as far as there are any."""
        rows, end = self._recorded().rows, _end(times, rate_factor, duration)
        first = bisect_left(rows, times.skip or 0.0, key=_at)
        return rows[first : bisect_left(rows, end, key=_at)]

    def _expected(self, times: TraceTimes, rate_factor: float, duration: float) -> float:
        """How many requests of a replay come before its end, on average over seeds.

        A row of a grid's step comes anywhere in it; turns that follow it are counted from the
        middle of what the end leaves of its step.
        """
        rows, grid = self._stretch(times, rate_factor, duration), self._recorded().grid
        left = _end(times, rate_factor, duration) - np.array([row.at for row in rows])
        in_time = np.minimum(1.0, left / grid) if grid else np.ones(len(rows))
        later = self._later.within((left - in_time * grid / 2) / (times.speed * rate_factor))
        return fsum(in_time * (1.0 + later))

    def _replayed(
        self, times: TraceTimes, rate_factor: float, rows: Sequence[Row], seed: int
    ) -> list[float]:
        """When the rows come. Those of one step of the trace's grid are spread over the step."""
        at = np.array([row.at for row in rows]) - (times.skip or 0.0)
        jitter = stream(seed, self._flow.name, "jitter").uniform(size=len(rows))
        spread = np.sort(at + jitter * self._recorded().grid)
        replayed: list[float] = (spread / (times.speed * rate_factor)).tolist()
        return replayed

    def _rows_at_random(self, seed: int, *path: int) -> Iterator[Row]:
        """Rows to take lengths from where the trace does not say when."""
        random = stream(seed, self._flow.name, *path, "rows")
        rows = self._trace.rows if self._trace else (NO_ROW,)
        while True:
            yield rows[random.integers(len(rows))]

    def _recorded(self) -> Trace:
        if self._trace is None:
            raise ValueError("loading a mix makes sure that the trace is named")
        return self._trace

    def _check_reaches(self, times: TraceTimes, rate_factor: float, duration: float) -> None:
        trace = self._recorded()
        end = _end(times, rate_factor, duration)
        if end <= trace.seconds:
            return
        fix = "play it more slowly, skip less of it, or shorten the mix"
        value = f"{trace.seconds:.0f} s of trace where {end:.0f} s are needed"
        fault = Fault(f"{self._flow.name}.arrivals.trace", value, "mix.trace_reaches", fix)
        raise MixError(f"the trace of flow {self._flow.name} ends too early", [fault])


def _end(times: TraceTimes, rate_factor: float, duration: float) -> float:
    """How far a replay of this length reaches into its trace, in the trace's seconds."""
    return (times.skip or 0.0) + duration * times.speed * rate_factor


def _at(row: Row) -> float:
    return row.at
