"""One measurement from end to end: draw, warm up, run, judge."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from salver.bench.record import Record
from salver.bench.report import Report, report_on
from salver.bench.run import Progress, Run, Watch, closed_loop, open_loop, prepare
from salver.bench.target import Target
from salver.errors import BackendUnavailable
from salver.telemetry import Ending
from salver.workload import Arrival, Workload

WARM_UP_REQUESTS = 4
_ANSWERS = (200, 429, 503, 504)  # of a server that understood, even if it will not or cannot
_OTHER_SEED = 0x5A17  # warm-up prompts are others than those that are measured


@dataclass(frozen=True, slots=True)
class Measurement:
    """A report and the records it was made from."""

    report: Report
    records: list[Record]


def _unwatched(progress: Progress) -> None:
    return


async def measure(
    workload: Workload,
    target: Target,
    *,
    seed: int | None = None,
    rate_factor: float = 1.0,
    watch: Watch = _unwatched,
) -> Measurement:
    """Run a mix against a server once.

    Raises:
        MixError: a trace is too short for this rate.
        InvalidValue, BackendUnavailable: the server's address cannot be used, or it answers no
            request of the warm-up but with errors.
    """
    mix = workload.mix
    chosen = mix.seed if seed is None else seed
    await warm_up(workload, target, seed=chosen, rate_factor=rate_factor)
    if workload.closed_loop:
        run = await closed_loop(workload, target, watch, chosen)
        arrivals = []
    else:
        arrivals = list(workload.schedule(seed=chosen, rate_factor=rate_factor))
        prepared = prepare(arrivals, target, exact=mix.ignore_eos)
        run = await open_loop(prepared, target, watch)
    report = report_on(run, workload, arrivals, target, seed=chosen, rate_factor=rate_factor)
    return Measurement(report, run.records)


async def warm_up(workload: Workload, target: Target, *, seed: int, rate_factor: float) -> None:
    """Send a few requests with other prompts, so that what a server does once is done.

    Raises:
        BackendUnavailable: each ended with an error: what is wrong with the question would be
            reported as what is wrong with the server.
    """
    other = seed ^ _OTHER_SEED
    drawn: Iterator[Arrival] = (
        map(next, workload.users(seed=other))
        if workload.closed_loop
        else workload.schedule(seed=other, rate_factor=rate_factor)
    )
    few = islice(drawn, WARM_UP_REQUESTS)
    first = [replace(arrival, at=0.0, abandon_after=None) for arrival in few]
    prepared = prepare(first, target, exact=workload.mix.ignore_eos)
    _check_understood(await open_loop(prepared, target, _unwatched), target)


def _check_understood(run: Run, target: Target) -> None:
    """A server that is silent until the deadline may have understood: the run will say so."""
    for record in run.records:
        if record.status in _ANSWERS or record.ending is Ending.EXPIRED:
            return
    if run.records:
        problem = run.records[0].problem or f"status {run.records[0].status}"
        raise BackendUnavailable(
            f"{target.url} answers no request: {problem}",
            rule="bench.warm_up",
            fix="look at its address, --model and --keys",
        )
