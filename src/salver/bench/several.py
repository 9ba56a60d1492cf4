"""What reports of several runs say of all of them together."""

from collections.abc import Sequence

from salver.bench.measure import Measurement
from salver.bench.report import Report
from salver.bench.summary import Summary
from salver.bench.table import (
    CLOSED_LOOP,
    columns,
    lines,
    objectives_text,
    scaling_text,
    seconds,
    tenant_row,
)


def pooled(runs: Sequence[Measurement], tenant: str | None = None) -> Summary:
    """All judged arrivals of runs of one mix, or one tenant's, as if of one run: latencies and
    endings are of all of them, and what is per second adds up over the runs."""
    records = [
        record
        for run in runs
        for record in run.records
        if tenant is None or record.tenant == tenant
    ]
    return Summary.of(records, runs[0].report.objectives, runs[0].report.window)


def common_text(runs: Sequence[Measurement]) -> str:
    """What was asked in all runs of one mix, how their client did at worst, and why runs are
    invalid."""
    reports = [run.report for run in runs]
    first, clients = reports[0], [report.client for report in reports]
    rows = [
        ("objectives", objectives_text(first.objectives)),
        ("seeds", ", ".join(map(str, dict.fromkeys(report.seed for report in reports)))),
        *_scaled(reports),
        (
            "client at worst",
            f"lag p99 {seconds(max(client.lag_p99 for client in clients))} "
            f"(allowed {seconds(first.client.lag_allowed)}), "
            f"standstill {seconds(max(client.beat_max for client in clients))} "
            f"(allowed {seconds(first.client.beat_allowed)}), "
            f"{max(client.cpu_share for client in clients):.0%} of a core",
        ),
    ]
    rows += [CLOSED_LOOP] if first.closed_loop else []
    rows += [("INVALID", why) for why in dict.fromkeys(map(_why, reports)) if why]
    return columns(rows)


def tenants_text(groups: Sequence[tuple[str, Sequence[Measurement]]]) -> str:
    """Each tenant in each named group of runs; empty where there is one."""
    names = sorted({name for _, runs in groups for run in runs for name in run.report.tenants})
    if len(names) < 2:
        return ""
    rows = [("", "tenant", "arrivals", "goodput", "TTFT p50", "p95", "TPOT p50", "p95")]
    rows += [
        (group, *tenant_row(name, pooled(runs, name))) for group, runs in groups for name in names
    ]
    return lines(rows)


def _scaled(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """What was done to each trace, from its slowest to its fastest run."""
    rows = []
    for scalings in zip(*(report.scalings for report in reports), strict=True):
        slowest = min(scalings, key=lambda scaling: scaling.speed or 0.0)
        fastest = max(scalings, key=lambda scaling: scaling.speed or 0.0)
        rows.append(("scaled", scaling_text(slowest, fastest=fastest.speed)))
    return rows


def _why(report: Report) -> str:
    """Why a run is no measurement; empty if it is one."""
    if report.valid:
        return ""
    return f"at factor {report.rate_factor:.3g}, seed {report.seed}: " + "; ".join(
        report.client.problems
    )
