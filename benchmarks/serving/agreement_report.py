"""What load generators said of the same load, as Markdown: how far apart they are, and why.

A tool's figure differs from ours for three reasons, and the report tells them apart: it measures
from or to another instant (its words, and what it adds on a server whose answers are known), its
client takes more of the machine (the server itself is then slower), or the machine drifted (rounds
in both orders, compared within each round).
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from tools import TOOLS, Figures, Load

AGREED = 0.05
OURS = "salver"
_OUR_WORDS = (
    "TTFT from the intended instant to the first event with text; ITL pooled over events with "
    "text; tokens over the seconds of the schedule"
)


@dataclass(frozen=True)
class Served:
    """The server's own means of the same run, in seconds, and what it generated.

    `client_cores` is the processor time that all but the server took, in cores, while requests were
    in flight; None where the server does not tell.
    """

    ttft: float
    gaps: float
    requests: int
    tokens: int
    client_cores: float | None = None


@dataclass(frozen=True)
class Line:
    """One run: what the tool said, and what the server did."""

    round: int
    tool: str
    figures: Figures
    served: Served


def report(lines: Sequence[Line], failures: Sequence[str], load: Load, server: str) -> str:
    """Every run, how far each tool is from ours, and what each means by its words."""
    columns = (
        "round",
        "tool",
        "answered",
        "TTFT mean (p50, p95), ms",
        "server's own",
        "ITL mean (p50), ms",
        "server's own",
        "tokens/s",
        "client, cores",
    )
    return "\n".join(
        [
            f"# Agreement of load generators, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n",
            f"`{shlex.join(['python', *sys.argv])}`\n",
            f"{load.requests} requests at a constant {load.rate:g}/s, {load.input_tokens} tokens in, "
            f"{load.output_tokens} out, end of sequence ignored; {server}, a fresh one each run.\n",
            *_heading(columns),
            *map(_run_row, sorted(lines, key=lambda line: (line.round, line.tool))),
            "",
            *verdicts(lines),
            "",
            f"- {OURS}: {_OUR_WORDS}.",
            *(f"- {tool.name}: {tool.definitions}." for tool in TOOLS),
            *(f"- FAILED {failure}" for failure in failures),
            "",
        ]
    )


def verdicts(lines: Sequence[Line]) -> list[str]:
    """Each tool's means against ours, round by round: as said, how much slower the server itself
    was, and what is left of the difference without that, which is how the tool measures."""
    rounds = {line.round: line for line in lines if line.tool == OURS}
    names = dict.fromkeys(line.tool for line in lines if line.tool != OURS)
    rows = []
    for name in names:
        pairs = [
            (line, rounds[line.round])
            for line in lines
            if line.tool == name and line.round in rounds
        ]
        if pairs:
            rows.append(_row((name, *_verdict_cells(pairs))))
    if not rows:
        return []
    columns = ("against salver bench", "TTFT", "ITL", "tokens/s")
    return [*_heading(columns), *rows]


def _verdict_cells(pairs: Sequence[tuple[Line, Line]]) -> tuple[str, str, str]:
    rates = [theirs.figures.output_rate / ours.figures.output_rate for theirs, ours in pairs]
    return (
        _explained(pairs, lambda line: line.figures.ttft, lambda line: line.served.ttft),
        _explained(pairs, lambda line: line.figures.gaps, lambda line: line.served.gaps),
        _verdict(fmean(rates) - 1),
    )


def _explained(
    pairs: Sequence[tuple[Line, Line]],
    said: Callable[[Line], float],
    served: Callable[[Line], float],
) -> str:
    as_said = [said(theirs) / said(ours) - 1 for theirs, ours in pairs]
    server = [served(theirs) / served(ours) - 1 for theirs, ours in pairs]
    tool = [(1 + a) / (1 + b) - 1 for a, b in zip(as_said, server, strict=True)]
    spread = f" ({min(as_said):+.1%} to {max(as_said):+.1%})" if len(pairs) > 1 else ""
    return (
        f"{fmean(as_said):+.1%}{spread}: the server itself {fmean(server):+.1%}, "
        f"the tool {_verdict(fmean(tool))}"
    )


def _verdict(difference: float) -> str:
    return f"{difference:+.1%}, {'agrees' if abs(difference) <= AGREED else 'DIFFERS'}"


def _run_row(line: Line) -> str:
    figures, served = line.figures, line.served
    cells = (
        str(line.round),
        line.tool,
        f"{figures.requests} of {served.requests}",
        f"{_ms(figures.ttft)} ({_ms(figures.ttft_p50)}, {_ms(figures.ttft_p95)})",
        _ms(served.ttft),
        f"{_ms(figures.gaps)} ({_ms(figures.gaps_p50)})",
        _ms(served.gaps),
        f"{figures.output_rate:.1f}",
        "-" if served.client_cores is None else f"{served.client_cores:.2f}",
    )
    return _row(cells)


def _heading(columns: Sequence[str]) -> tuple[str, str]:
    return _row(columns), "|" + " --- |" * len(columns)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
