"""Reports as text for a terminal."""

from collections.abc import Iterable, Sequence

from salver.bench.report import Report
from salver.bench.statistics import Percentiles
from salver.bench.summary import Summary
from salver.telemetry import Objectives
from salver.workload import Scaling

PROBLEM_COLUMNS = 100
CLOSED_LOOP = ("CLOSED LOOP", "a slow server slows its own load: no measure of overload")


def report_text(report: Report) -> str:
    """One run: what was asked, what came of it, and whether the client can be believed."""
    parts = [_head(report), _latencies(report.total), _tenants(report), _client(report)]
    return "\n\n".join(part for part in parts if part)


def lines(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left and the others to the right, indented by two."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  " + "  ".join([row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def seconds(value: float | None) -> str:
    """A duration for the eye."""
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms"


def objectives_text(objectives: Objectives) -> str:
    bounds = (("TTFT", objectives.ttft), ("TPOT", objectives.tpot), ("E2E", objectives.e2e))
    return ", ".join(f"{name} <= {seconds(bound)}" for name, bound in bounds if bound is not None)


def scaling_text(scaling: Scaling, fastest: float | None = None) -> str:
    """What was done to a trace; in several runs, up to a speed of `fastest`."""
    said = (
        ("speed", scaling.speed),
        ("input lengths", scaling.input),
        ("output lengths", scaling.output),
    )
    shown = [f"{name} x {factor:g}" for name, factor in said if factor is not None]
    if fastest is not None and fastest != scaling.speed:
        shown[0] += f" to {fastest:g}"
    factors = ", ".join(shown)
    return f"{scaling.trace}: {factors or 'nothing of it used'}"


def problem_text(problem: str, times: int) -> str:
    """What went wrong and how often, in one line."""
    return f"{times} x {' '.join(problem.split())[:PROBLEM_COLUMNS]}"


def _right(cells: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _head(report: Report) -> str:
    total = report.total
    endings = ", ".join(f"{count} {name}" for name, count in total.endings.items())
    rows = [
        ("server", f"{report.url} ({report.model})"),
        ("arrivals", f"{total.arrivals} in {report.window.seconds:g} s: {endings}"),
        ("goodput", goodput_text(total)),
        ("objectives", objectives_text(report.objectives)),
        ("tokens", f"{total.output_rate:.0f} out/s; {total.input_tokens} in, "
         f"{total.cached_tokens} of them cached"),
        ("seed, drain", f"{report.seed}, {seconds(report.drain_seconds)}"),
    ]  # fmt: skip
    if total.uncounted:
        said = f"{total.uncounted} answers, by the server: an event is taken for a token"
        rows.append(("NOT COUNTED", said))
    rows += [("scaled", scaling_text(scaling)) for scaling in report.scalings]
    rows += [("problem", problem_text(*problem)) for problem in report.problems]
    if report.closed_loop:
        rows.append(CLOSED_LOOP)
    return f"{report.mix}\n{columns(rows)}"


def columns(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what is said of them, both to the left."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {text}" for name, text in rows)


def goodput_text(summary: Summary) -> str:
    good = summary.goodput
    return f"{good.share:.1%} of all arrivals, {good.rate:.2f}/s of {summary.rate:.2f}/s"


def _latencies(summary: Summary) -> str:
    rows = [("", "p50", "p90", "p95", "p99", "worst", "samples")]
    named = (
        ("TTFT", summary.ttft),
        ("TPOT", summary.tpot),
        ("ITL", summary.itl),
        ("worst ITL", summary.worst_itl),
        ("E2E", summary.e2e),
    )
    rows += [(name, *_cells(values)) for name, values in named]
    return lines(rows)


def _cells(values: Percentiles) -> tuple[str, str, str, str, str, str]:
    shown = (values.p50, values.p90, values.p95, values.p99, values.worst)
    p50, p90, p95, p99, worst = map(seconds, shown)
    return p50, p90, p95, p99, worst, str(values.samples)


def _tenants(report: Report) -> str:
    if len(report.tenants) < 2:
        return ""
    rows = [("tenant", "arrivals", "goodput", "TTFT p50", "p95", "TPOT p50", "p95")]
    rows += [tenant_row(name, each) for name, each in report.tenants.items()]
    return lines(rows)


def tenant_row(name: str, summary: Summary) -> tuple[str, str, str, str, str, str, str]:
    """One tenant's arrivals, goodput, and TTFT and TPOT at p50 and p95."""
    return (
        name,
        str(summary.arrivals),
        f"{summary.goodput.share:.1%}",
        seconds(summary.ttft.p50),
        seconds(summary.ttft.p95),
        seconds(summary.tpot.p50),
        seconds(summary.tpot.p95),
    )


def _client(report: Report) -> str:
    client = report.client
    said = (
        f"client: lag p99 {seconds(client.lag_p99)} (allowed {seconds(client.lag_allowed)}), "
        f"longest standstill {seconds(client.beat_max)} (allowed {seconds(client.beat_allowed)}), "
        f"{client.achieved_rate:.3f}/s sent of {client.intended_rate:.3f}/s, "
        f"{client.cpu_share:.0%} of a core"
    )
    if client.valid:
        return said
    return "\n".join([said, "INVALID: this run measures the client", *client.problems])
