"""The charts of one run: distributions, and what happened when."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from salver.bench.plots import Chart, Colour, Series, distribution
from salver.bench.record import Record
from salver.bench.report import Report
from salver.bench.summary import Window, waited
from salver.telemetry import Ending, is_good

SECONDS_PER_BAR = 1.0
_SCHEDULE = "of the schedule"
_ENDINGS: dict[Ending, Colour] = {
    Ending.COMPLETE: "blue",
    Ending.WRONG: "purple",
    Ending.REFUSED: "gold",
    Ending.EXPIRED: "orange",
    Ending.FAILED: "red",
    Ending.ABANDONED: "grey",
}


def run_charts(report: Report, records: Sequence[Record]) -> list[Chart]:
    """Latencies by tenant, where there are several; then latency, goodput and client over time."""
    judged = report.window.judged(records)
    return [*_distributions(report, judged), *_over_time(report, judged)]


def _distributions(report: Report, judged: Sequence[Record]) -> list[Chart]:
    by_tenant = {name: [r for r in judged if r.tenant == name] for name in report.tenants}
    firsts = [distribution(name, _waits(of), len(of)) for name, of in by_tenant.items()]
    all_gaps = {name: _gaps(of) for name, of in by_tenant.items()}
    gaps = [distribution(name, of, len(of)) for name, of in all_gaps.items()]
    return [
        Chart("Time to first token: share of arrivals that waited at most so long", "", "", firsts,
              "seconds", "share", True, 1.0, _mark("SLO", report.objectives.ttft)),
        Chart("Gaps between tokens (ITL): share of gaps at most so long", "", "", gaps,
              "seconds", "share", True, 1.0, _mark("SLO for the mean", report.objectives.tpot)),
    ]  # fmt: skip


def _over_time(report: Report, judged: Sequence[Record]) -> list[Chart]:
    allowed = _mark("allowed at p99", report.client.lag_allowed)
    lags = Series("lag", [(record.at, max(record.lag, 0.0)) for record in judged], "dots", "grey")
    return [
        Chart("Time to first token, by arrival", _SCHEDULE, "", _by_ending(judged), "seconds",
              "seconds", y_marks=_mark("SLO", report.objectives.ttft)),
        Chart("Arrivals: good, and all others", _SCHEDULE, "per second", _by_second(report, judged),
              "seconds"),
        Chart("In flight", _SCHEDULE, "requests", [_in_flight(judged, report.window)], "seconds"),
        Chart("The client's lag", _SCHEDULE, "", [lags], "seconds", "seconds", y_marks=allowed),
    ]  # fmt: skip


def _mark(name: str, value: float | None) -> list[tuple[str, float]]:
    return [] if value is None else [(name, value)]


def _waits(records: Iterable[Record]) -> list[float]:
    return [wait for record in records if (wait := waited(record)) is not None]


def _gaps(records: Iterable[Record]) -> list[float]:
    return [gap for record in records for gap in record.latencies().gaps]


def _by_ending(judged: Sequence[Record]) -> list[Series]:
    """A dot per arrival, by how it ended; one without a token at the time until it ended."""
    series = []
    for ending, colour in _ENDINGS.items():
        dots = [(record.at, _until_first(record)) for record in judged if record.ending is ending]
        if dots:
            series.append(Series(str(ending), dots, "dots", colour))
    return series


def _until_first(record: Record) -> float:
    return (record.events[0] if record.events else record.ended) - record.at


def _by_second(report: Report, judged: Sequence[Record]) -> list[Series]:
    """Bars of all arrivals, the good ones drawn over them: what is left to see are the others."""
    begin = report.window.begin
    bars = max(1, int(report.window.seconds / SECONDS_PER_BAR))
    arrived, good = [0.0] * bars, [0.0] * bars
    for record in judged:
        bar = min(int((record.at - begin) / SECONDS_PER_BAR), bars - 1)
        arrived[bar] += 1
        good[bar] += is_good(record.ending, record.latencies(), report.objectives)
    at = [begin + bar * SECONDS_PER_BAR for bar in range(bars)]
    named: list[tuple[str, list[float], Colour]] = [
        ("late, refused or failed", arrived, "orange"),
        ("good", good, "green"),
    ]
    return [
        Series(name, list(zip(at, counts, strict=True)), "bars", colour, SECONDS_PER_BAR)
        for name, counts, colour in named
    ]


def _in_flight(judged: Sequence[Record], window: Window) -> Series:
    """How many judged arrivals were sent and not ended, as a step line until the last has ended."""
    changes = [(record.sent, 1.0) for record in judged]
    changes += [(record.ended, -1.0) for record in judged]
    changes.sort()
    counts = accumulate((change for _, change in changes), initial=0.0)
    steps, before = [(window.begin, 0.0)], 0.0
    for (at, _), count in zip(changes, list(counts)[1:], strict=True):
        steps += [(at, before), (at, count)]
        before = count
    return Series("in flight", steps, "line", "blue")
