"""What the serving benchmark found, as Markdown."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cells import Asked, Cell
from servers import Server

from salver.bench.report import objectives_of
from salver.bench.search import Point
from salver.bench.several import pooled
from salver.bench.table import objectives_text, scaling_text, seconds
from salver.workload import Workload

OURS = "salver"
KEPT = 0.90  # of the best goodput, at the last factor of an overload sweep


@dataclass(frozen=True)
class Swept:
    """One server at multiples of its own capacity, which `held` at 95% or is the closed loop's."""

    server: str
    weights: str
    capacity: float
    held: bool
    factors: Sequence[float]
    points: Sequence[Point]
    foreign: float  # the largest share of the machine that others took during one of the runs

    @property
    def kept(self) -> float:
        """Good arrivals a second at the last factor, as a part of the best."""
        best = max(point.goodput_rate for point in self.points)
        return self.points[-1].goodput_rate / best if best else 0.0


def head(title: str = "Serving") -> str:
    command = shlex.join(["python", *sys.argv])
    return f"# {title}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n`{command}`"


def notes(failures: dict[str, str]) -> str:
    return "\n".join(f"- {name} has no rows: {why}" for name, why in failures.items())


def capacity_table(workload: Workload, cells: Sequence[Cell], asked: Asked) -> str:
    """The highest rate of every server that is done, what it looked like there, and beyond."""
    beyond = [f"at {asked.beyond:g} times that"] if asked.beyond else []
    columns = (
        "server",
        f"highest rate at {asked.share:.0%} (did not hold)",
        "drawn there",
        "goodput there (95% interval)",
        "arrivals",
        "TTFT p50, p95",
        "TPOT p50, p95",
        "tokens/s",
        *beyond,
        "others took at most",
    )
    rows = [_row(_capacity_cells(cell, beyond=bool(beyond))) for cell in cells]
    return "\n".join([_about(workload, asked.seeds), "", *_heading(columns), *rows, *_ratio(cells)])


def sweep_table(workload: Workload, swept: Sequence[tuple[Server, Sequence[Point]]]) -> str:
    """Every server at the same rates."""
    seeds = range(len(swept[0][1][0].runs))
    named = [(f"{server.name} ({server.weights})", points) for server, points in swept]
    return "\n".join([_about(workload, seeds), "", *_sweep_rows(named)])


def _sweep_rows(swept: Sequence[tuple[str, Sequence[Point]]]) -> list[str]:
    columns = (
        "server",
        "offered",
        "drawn",
        "goodput (95% interval)",
        "arrivals",
        "TTFT p50, p95",
        "TPOT p50, p95",
        "tokens/s",
        "endings",
    )
    rows = [
        _row((name, f"{point.rate:.4g}/s", *_point_cells(point), _endings(point)))
        for name, points in swept
        for point in points
    ]
    return [*_heading(columns), *rows]


def overload_table(workload: Workload, swept: Sequence[Swept]) -> str:
    """The shape of every server past its capacity, and below it all runs."""
    factors = [f"{factor:g}x" for factor in swept[0].factors]
    columns = (
        "server",
        "capacity",
        *(f"good/s at {factor}" for factor in factors),
        f"{factors[-1]} of the best",
        "others took at most",
    )
    seeds = range(len(swept[0].points[0].runs))
    rows = [_row(_overload_cells(one)) for one in swept]
    ours = [one for one in swept if one.server == OURS]
    verdicts = [
        f"{one.server} keeps **{one.kept:.0%}** of its best goodput at {factors[-1]}: "
        f"{'holds' if one.kept >= KEPT else 'FAILS'} ({KEPT:.0%} asked)."
        for one in ours
    ]
    runs = _sweep_rows([(f"{one.server} ({one.weights})", one.points) for one in swept])
    shapes = [_about(workload, seeds), "", *_heading(columns), *rows]
    return "\n".join([*shapes, "", *(f"{verdict}\n" for verdict in verdicts), *runs])


def _overload_cells(one: Swept) -> tuple[str, ...]:
    capacity = f"{one.capacity:.2f}/s" + ("" if one.held else " (closed loop; no rate held)")
    good = [
        f"{point.goodput_rate:.2f} ({point.share.value:.0%})" + ("" if point.valid else " INVALID")
        for point in one.points
    ]
    return (
        f"{one.server} ({one.weights})",
        capacity,
        *good,
        f"{one.kept:.0%}",
        f"{one.foreign:.0%}",
    )


def _capacity_cells(cell: Cell, *, beyond: bool) -> tuple[str, ...]:
    found, name = cell.found, f"{cell.server} ({cell.weights})"
    failed = f"{found.failed:.2f}/s" if found.failed else "none"
    if cell.best is None:
        return (name, f"none ({failed})", *["-"] * (6 + beyond), f"{cell.foreign:.0%}")
    cells = (name, f"**{found.highest:.2f}/s** ({failed})", *_point_cells(cell.best))
    return (*cells, *([_share(cell.beyond)] if beyond else []), f"{cell.foreign:.0%}")


def _point_cells(point: Point) -> tuple[str, ...]:
    """Over all seeds together."""
    total = pooled(point.runs)
    return (
        "-" if point.drawn_rate is None else f"{point.drawn_rate:.2f}/s",
        _share(point),
        str(total.arrivals),
        f"{seconds(total.ttft.p50)}, {seconds(total.ttft.p95)}",
        f"{seconds(total.tpot.p50)}, {seconds(total.tpot.p95)}",
        f"{total.output_rate / len(point.runs):.0f}",
    )


def _share(point: Point | None) -> str:
    if point is None:
        return "-"
    share = point.share
    said = f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
    return said if point.valid else f"{said} INVALID"


def _endings(point: Point) -> str:
    return ", ".join(f"{count} {name}" for name, count in pooled(point.runs).endings.items())


def _ratio(cells: Sequence[Cell]) -> list[str]:
    """Ours over the best peer's rate."""
    ours = next((cell.found.highest for cell in cells if cell.server == OURS), 0.0)
    peers = {cell.server: cell.found.highest for cell in cells if cell.server != OURS}
    best = max(peers, key=lambda name: peers[name], default="")
    if not ours or not peers.get(best):
        return []
    ratio = ours / peers[best]
    return ["", f"{OURS} keeps **{ratio:.2f} times** the rate of the best peer here ({best})."]


def _about(workload: Workload, seeds: Sequence[int]) -> str:
    mix = workload.mix
    rows = [
        f"{objectives_text(objectives_of(mix))}; {mix.duration:g} s a run, {len(seeds)} seed(s)",
        *map(scaling_text, workload.scalings()),
    ]
    return f"## {mix.name}\n\n" + "\n".join(f"- {row}" for row in rows)


def _heading(columns: Sequence[str]) -> tuple[str, str]:
    return _row(columns), "|" + " --- |" * len(columns)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
