"""Reports as one HTML file: no script, font or image from anywhere else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from salver.bench.plots import COLOURS, Chart, svg
from salver.bench.report import Report
from salver.bench.table import objectives_text, report_text, scaling_text, seconds

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5f6c7b; --paper: #fff; --card: #f5f7fa;
  --line: #d9e0e7; --blue: #2f6fde; --orange: #d9761a; --green: #1f9d6b; --purple: #8250d4;
  --red: #d0384b; --pink: #c43d8f; --gold: #a6851a; --grey: #93a1af; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9ef; --soft: #9aa7b4; --paper: #11161c;
  --card: #1a2129; --line: #2d3743; --blue: #6ea3ff; --orange: #f0a04b; --green: #4cc38f;
  --purple: #b392f0; --red: #ff7b86; --pink: #f285c1; --gold: #d9b84a; --grey: #66727f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h1 + p { color: var(--soft); margin: .2rem 0 1.2rem; }
.invalid { border-left: 4px solid var(--red); background: var(--card); padding: .6rem 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8rem; }
.cards div { background: var(--card); border-radius: 8px; padding: .7rem .9rem; }
.cards b { display: block; font-size: 1.45rem; line-height: 1.3; font-weight: 600; }
.cards span { color: var(--soft); font-size: 13px; display: block; }
.good b { color: var(--green); } .bad b { color: var(--red); }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 1.8rem 2rem; margin: 1.8rem 0; }
figure { margin: 0; position: relative; } figcaption { font-weight: 600; }
nav { margin: .1rem 0; } svg { width: 100%; height: auto; }
pre { font-size: 13px; line-height: 1.45; overflow-x: auto; background: var(--card);
  border-radius: 8px; padding: .9rem 1.1rem; }
svg text { font-size: 12px; fill: var(--soft); } .mid { text-anchor: middle; }
.end { text-anchor: end; } .grid { stroke: var(--line); fill: none; }
.mark { stroke: var(--ink); stroke-dasharray: 5 4; fill: none; }
svg .name { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.line path { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dots circle { stroke: none; fill-opacity: .7; }
button { border: 0; background: none; font: inherit; font-size: 13px; cursor: pointer;
  color: inherit; padding: 0 .9rem 0 0; }
button::before { content: ""; display: inline-block; width: .7em; height: .7em; border-radius: 2px;
  margin-right: .4em; }
.off { opacity: .15; }
""" + "".join(
    f".line.{name} path {{ stroke: var(--{name}); }} "
    f".dots.{name} circle, .bars.{name} rect {{ fill: var(--{name}); }} "
    f"button.{name}::before {{ background: var(--{name}); }}\n"
    for name in COLOURS
)
_SCRIPT = """
document.querySelectorAll("button[data-series]").forEach(button => button.onclick = () => {
  const chosen = `[data-series="${button.dataset.series}"]`;
  button.closest("figure").querySelectorAll(chosen).forEach(e => e.classList.toggle("off"));
});
"""


@dataclass(frozen=True, slots=True)
class Card:
    """One figure that is seen first, with what it is and what to hold it against."""

    name: str
    value: str
    beside: str
    verdict: bool | None = None  # whether it is as it should be, where that can be said


def page(
    title: str,
    text: str,
    charts: Iterable[Chart],
    *,
    about: str = "",
    cards: Sequence[Card] = (),
    warning: str = "",
) -> str:
    """A whole page: what is seen first, charts, and all figures as they stand in the terminal."""
    warned = f'<p class="invalid">{escape(warning)}</p>' if warning else ""
    shown = f'<section class="cards">{"".join(map(_card, cards))}</section>' if cards else ""
    body, figures = f"<main>{''.join(map(svg, charts))}</main>", f"<pre>{escape(text)}</pre>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(about)}</p>{warned}"
        f"{shown + body + figures if cards else figures + body}<script>{_SCRIPT}</script></html>"
    )


def run_page(report: Report, charts: Iterable[Chart]) -> str:
    """One run as a page."""
    warning = "" if report.valid else "INVALID: " + "; ".join(report.client.problems)
    return page(
        f"{report.mix} against {report.url}",
        report_text(report),
        charts,
        about=_about(report),
        cards=cards_of(report),
        warning=warning,
    )


def cards_of(report: Report) -> list[Card]:
    """What a reader wants to know first of one run."""
    total, client, bounds = report.total, report.client, report.objectives
    endings = ", ".join(f"{count} {name}" for name, count in total.endings.items())
    return [
        Card("Goodput", f"{total.goodput.share:.1%}",
             f"{total.goodput.rate:.2f}/s of {total.rate:.2f}/s"),
        Card("Time to first token, p50", seconds(total.ttft.p50), f"p95 {seconds(total.ttft.p95)}",
             _within(total.ttft.p95, bounds.ttft)),
        Card("Time per token, p50", seconds(total.tpot.p50), f"p95 {seconds(total.tpot.p95)}",
             _within(total.tpot.p95, bounds.tpot)),
        Card("Output", f"{total.output_rate:,.0f}/s", "tokens a second"),
        Card("Arrivals", str(total.arrivals), endings),
        Card("Client's lag, p99", seconds(client.lag_p99), f"{client.cpu_share:.0%} of a core",
             client.valid),
    ]  # fmt: skip


def _about(report: Report) -> str:
    parts = [report.model, objectives_text(report.objectives), f"seed {report.seed}"]
    parts += map(scaling_text, report.scalings)
    if report.closed_loop:
        parts.append("a closed loop: no measure of overload")
    return " · ".join(parts)


def _card(card: Card) -> str:
    verdict = {True: "good", False: "bad", None: ""}[card.verdict]
    return (
        f'<div class="{verdict}"><span>{escape(card.name)}</span><b>{escape(card.value)}</b>'
        f"<span>{escape(card.beside)}</span></div>"
    )


def _within(value: float | None, bound: float | None) -> bool | None:
    return None if value is None or bound is None else value <= bound
