"""Reports as one HTML file: no script, font or image from anywhere else."""

from collections.abc import Iterable, Sequence
from html import escape

from salver.bench.plots import Chart, Series, distribution, svg
from salver.bench.record import Record
from salver.bench.report import Report
from salver.bench.summary import waited
from salver.bench.table import report_text
from salver.telemetry import Ending, is_good

SECONDS_PER_BAR = 1.0

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --paper: #fff; --faint: #8b98a5;
  --c0: #2563eb; --c1: #d9480f; --c2: #0f9d58; --c3: #9333ea; --c4: #b8860b; --c5: #db2777; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0f1419; --c0: #6ea8fe; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
pre { font-size: 13px; overflow-x: auto; } .invalid { color: #d9480f; font-weight: bold; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
svg text { font-size: 11px; fill: currentColor; } .mid { text-anchor: middle; }
.end { text-anchor: end; } .grid { stroke: var(--faint); stroke-opacity: .25; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; } svg path { fill: none; stroke-width: 1.6; }
button { border: 0; background: none; font: inherit; cursor: pointer; } .off { opacity: .12; }
""" + "".join(
    f"path.c{n} {{ stroke: var(--c{n}); }} .c{n} circle {{ fill: var(--c{n}); fill-opacity: .55; }} "
    f"button.c{n} {{ color: var(--c{n}); }}\n"
    for n in range(6)
)
_SCRIPT = """
document.querySelectorAll("button[data-series]").forEach(button => button.onclick = () => {
  const chosen = `[data-series="${button.dataset.series}"]`;
  button.closest("figure").querySelectorAll(chosen).forEach(e => e.classList.toggle("off"));
});
"""


def page(title: str, text: str, charts: Iterable[Chart], *, warning: str = "") -> str:
    """A whole page: a text as it stands in the terminal, then charts."""
    warned = f'<p class="invalid">{escape(warning)}</p>' if warning else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{warned}<pre>{escape(text)}</pre>"
        f"<main>{''.join(map(svg, charts))}</main><script>{_SCRIPT}</script></html>"
    )


def run_page(report: Report, records: Sequence[Record]) -> str:
    """One run as a page."""
    warning = "" if report.valid else "INVALID: " + "; ".join(report.client.problems)
    charts = run_charts(report, report.window.judged(records))
    return page(f"{report.mix} against {report.url}", report_text(report), charts, warning=warning)


def run_charts(report: Report, judged: Sequence[Record]) -> list[Chart]:
    """Distributions, latencies over time and goodput over time, by tenant where there are several."""
    ttft, tpot = report.objectives.ttft, report.objectives.tpot
    bound = [("SLO", ttft)] if ttft else []
    groups = _groups(report, judged)
    gaps = [
        distribution(name, [gap for record in records for gap in record.latencies().gaps])
        for name, records in groups
    ]
    firsts = [distribution(name, _waits(records)) for name, records in groups]
    return [
        Chart("Time to first token", "s", "share", firsts, True, 1.0, bound),
        Chart("Gaps between tokens (ITL)", "s", "share", gaps, True, 1.0,
              [("SLO (TPOT)", tpot)] if tpot else []),
        Chart("Time to first token, by arrival", "s of the schedule", "s", _over_time(judged),
              y_marks=bound),
        Chart("Goodput over time", "s of the schedule", "per second", _by_second(report, judged)),
        Chart("The client's lag", "s of the schedule", "s",
              [Series("lag", [(record.at, record.lag) for record in judged], "dots")],
              y_marks=[("allowed", report.client.lag_allowed)]),
    ]  # fmt: skip


def _groups(report: Report, judged: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    names = list(report.tenants)
    return [(name, [record for record in judged if record.tenant == name]) for name in names]


def _waits(records: Iterable[Record]) -> list[float]:
    return [wait for record in records if (wait := waited(record)) is not None]


def _over_time(judged: Sequence[Record]) -> list[Series]:
    """A dot per arrival, by how it ended; one without a token at the time until it ended."""
    present = [ending for ending in Ending if any(r.ending == ending for r in judged)]
    return [
        Series(str(ending), [(r.at, _wait(r)) for r in judged if r.ending == ending], "dots")
        for ending in present
    ]


def _wait(record: Record) -> float:
    return (record.events[0] if record.events else record.ended) - record.at


def _by_second(report: Report, judged: Sequence[Record]) -> list[Series]:
    bars = max(1, int(report.window.seconds / SECONDS_PER_BAR))
    arrived, good = [0] * bars, [0] * bars
    for record in judged:
        bar = min(int((record.at - report.window.begin) / SECONDS_PER_BAR), bars - 1)
        arrived[bar] += 1
        good[bar] += is_good(record.ending, record.latencies(), report.objectives)
    at = [report.window.begin + bar * SECONDS_PER_BAR for bar in range(bars)]
    return [
        Series("arrived", list(zip(at, map(float, arrived), strict=True))),
        Series("good", list(zip(at, map(float, good), strict=True))),
    ]
