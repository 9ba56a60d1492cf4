"""What a command found, in the three forms people and programs read: text, JSON, one HTML page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from salver.bench.measure import Measurement
from salver.bench.page import page, run_page
from salver.bench.plots import Chart, Series
from salver.bench.report import as_record, write_records
from salver.bench.run_charts import run_charts
from salver.bench.search import Comparison, Found, Point, Ratio
from salver.bench.several import common_text, pooled, tenants_text
from salver.bench.statistics import Interval
from salver.bench.table import goodput_text, lines, report_text, seconds


@dataclass(frozen=True, slots=True)
class Results:
    """`runs` are all measurements by a name that can be a file's."""

    title: str
    text: str
    record: dict[str, Any]
    html: str
    runs: dict[str, Measurement] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        return all(run.report.valid for run in self.runs.values())

    def write(self, directory: Path) -> None:
        """report.txt, report.json, report.html, and the raw records of every run."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.txt").write_text(self.text + "\n")
        (directory / "report.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(self.record), indent=2)
        )
        (directory / "report.html").write_text(self.html)
        for name, run in self.runs.items():
            write_records(run.records, directory / f"{name}.jsonl")


def of_run(run: Measurement) -> Results:
    """One run."""
    report = run.report
    html = run_page(report, run_charts(report, run.records))
    return Results(report.mix, report_text(report), as_record(report), html, {"requests": run})


def of_points(title: str, points: Sequence[Point], found: Found | None = None) -> Results:
    """A sweep, or a search with what it found."""
    text = "\n\n".join([title, _points_text(points), *_of_all_points(points)])
    record: dict[str, Any] = {"points": [_point_record(point) for point in points]}
    if found:
        text += f"\n\n{_found_text(found)}"
        record |= {"highest_rate": found.highest, "failed_rate": found.failed}
        record["wanted_share"] = found.wanted_share
    charts = _point_charts(points, found)
    if points:
        run = points[-1].runs[0]
        charts += run_charts(run.report, run.records)
    runs = {f"rate-{p.rate:g}-seed-{run.report.seed}": run for p in points for run in p.runs}
    return Results(title, text, record, page(title, text, charts), runs)


def of_comparison(title: str, comparison: Comparison) -> Results:
    """Two servers side by side."""
    rows: list[tuple[str, ...]] = [
        ("round", "", "goodput", "TTFT p50", "TTFT p95", "TPOT p50", "TPOT p95")
    ]
    for number, pair in enumerate(comparison.runs):
        rows += [_side(number, name, run) for name, run in zip("AB", pair, strict=True)]
    ratios = [("A / B", "", "95% interval")]
    ratios += [(name, *_ratio(ratio)) for name, ratio in comparison.ratios.items()]
    a, b = comparison.runs[0]
    heads = f"A: {a.report.url}\nB: {b.report.url}"
    sides = list(zip("AB", zip(*comparison.runs, strict=True), strict=True))
    parts = [f"{title}\n{heads}", lines(rows), lines(ratios), tenants_text(sides)]
    parts.append(common_text([run for pair in comparison.runs for run in pair]))
    text = "\n\n".join(part for part in parts if part)
    record = {
        "runs": [[as_record(run.report) for run in pair] for pair in comparison.runs],
        "ratios": {name: _ratio_record(ratio) for name, ratio in comparison.ratios.items()},
    }
    runs = {
        f"round-{number}-{name}": run
        for number, pair in enumerate(comparison.runs)
        for name, run in zip("AB", pair, strict=True)
    }
    return Results(title, text, record, page(title, text, _side_charts(comparison)), runs)


def _points_text(points: Sequence[Point]) -> str:
    rows = [
        (
            "rate",
            "drawn",
            "goodput",
            "95% interval",
            "good/s",
            "TTFT p50",
            "p95",
            "TPOT p50",
            "out/s",
            "",
        )
    ]
    for point in points:
        total = pooled(point.runs)
        rows.append(
            (
                f"{point.rate:.2f}/s",
                "-" if point.drawn_rate is None else f"{point.drawn_rate:.2f}/s",
                *_interval(point.share),
                f"{point.goodput_rate:.2f}",
                seconds(total.ttft.p50),
                seconds(total.ttft.p95),
                seconds(total.tpot.p50),
                f"{total.output_rate / len(point.runs):.0f}",
                "" if point.valid else "INVALID",
            )
        )
    return lines(rows)


def _of_all_points(points: Sequence[Point]) -> list[str]:
    tenants = tenants_text([(f"{point.rate:.2f}/s", point.runs) for point in points])
    runs = [run for point in points for run in point.runs]
    return [part for part in (tenants, common_text(runs) if runs else "") if part]


def _found_text(found: Found) -> str:
    if not found.highest:
        return f"No rate that was tried kept {found.wanted_share:.0%} goodput."
    failed = f"{found.failed:.2f}/s did not" if found.failed else "none that was tried did not"
    return f"Highest rate with {found.wanted_share:.0%} goodput: {found.highest:.2f}/s; {failed}."


def _point_record(point: Point) -> dict[str, Any]:
    return {
        "rate": point.rate,
        "drawn_rate": point.drawn_rate,
        "share": asdict(point.share),
        "goodput_rate": point.goodput_rate,
        "valid": point.valid,
        "runs": [as_record(run.report) for run in point.runs],
    }


def _point_charts(points: Sequence[Point], found: Found | None) -> list[Chart]:
    if len(points) < 2:
        return []
    ordered = sorted(points, key=lambda point: point.rate)
    rates = [point.rate for point in ordered]
    good = [(point.rate, point.goodput_rate) for point in ordered]
    ideal = Series("offered", [(0.0, 0.0), (rates[-1], rates[-1])], colour="grey")
    shares = [(point.rate, point.share.value) for point in ordered]
    wanted = [(f"{found.wanted_share:.0%}", found.wanted_share)] if found else []
    offered = "requests/s offered"
    return [
        Chart("Goodput against rate", offered, "good/s",
              [ideal, Series("good", good, colour="green"), Series("", good, "dots", "green")]),
        Chart("Share that is good", offered, "",
              [Series("share", shares, colour="green"), Series("", shares, "dots", "green")],
              y="share", y_max=1.0, y_marks=wanted),
    ]  # fmt: skip


def _side(number: int, name: str, run: Measurement) -> tuple[str, ...]:
    total = run.report.total
    times = (total.ttft.p50, total.ttft.p95, total.tpot.p50, total.tpot.p95)
    shown = map(seconds, times)
    return (str(number + 1), name, goodput_text(total).partition(",")[0], *shown)


def _side_charts(comparison: Comparison) -> list[Chart]:
    pair = comparison.runs[-1]
    charts: list[Chart] = []
    for name, run in zip("AB", pair, strict=True):
        made = run_charts(run.report, run.records)
        charts += [replace(chart, title=f"{name}: {chart.title}") for chart in made]
    return charts


def _ratio_record(ratio: Ratio | None) -> dict[str, float | None] | None:
    if ratio is None:
        return None
    low, high = (ratio.interval.low, ratio.interval.high) if ratio.interval else (None, None)
    return {"value": ratio.value, "low": low, "high": high}


def _ratio(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return "-", "-"
    return f"{ratio.value:.3f}", _interval(ratio.interval)[1] if ratio.interval else "-"


def _interval(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"
