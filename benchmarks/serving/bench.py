"""Salver and its installed peers as servers, in turn, under the same traffic mixes.

    python benchmarks/serving/bench.py [MIX.yaml ...] --data DIRECTORY [--rates 2,4,8 | --find 95%]

Starts each server by itself on the same model, runs every mix against it with the same schedules and
the client of `salver bench`, and stops it. Writes report.md, and beside it for every server and mix
what `salver bench` writes: HTML, JSON and the raw record of every arrival.
"""

import argparse
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from servers import NAME, Server, ServerFailed, select, servers

from salver.bench.measure import Measurement, measure
from salver.bench.results import Results, of_points
from salver.bench.search import Found, Measure, Point, highest_rate, sweep
from salver.bench.table import objectives_text, scaling_text, seconds
from salver.bench.target import Target
from salver.workload import Workload, open_workload

from peers import CONTRACT, default_root, locate  # isort: skip - beside servers' own path

HERE = Path(__file__).resolve().parent
MIXES = HERE.parent / "mixes"


def main() -> int:
    options = parse()
    place = locate(options.peers, options.contract)
    found, missing = servers(place, options.contract)
    try:
        chosen = select(found, missing, options.only)
    except ServerFailed as failed:
        print(failed, file=sys.stderr)
        return 2
    failures = (
        [] if options.only else [f"{name} was skipped: {why}" for name, why in missing.items()]
    )
    mixes = options.mixes or sorted(MIXES.glob("*.yaml"))
    workloads = [open_workload(path, options.data) for path in mixes]
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for server in chosen:
        try:
            with server.running(options.output) as url:
                for workload in workloads:
                    results, row = uvloop.run(run(workload, Target(url, NAME), server, options))
                    results.write(options.output / f"{workload.mix.name}-{server.name}")
                    rows.append(row)
                    print(results.text, flush=True)
        except ServerFailed as failed:
            failures.append(str(failed))
    text = report(rows, workloads, failures)
    (options.output / "report.md").write_text(text)
    print(text)
    return 0


async def run(
    workload: Workload, target: Target, server: Server, options: argparse.Namespace
) -> tuple[Results, str]:
    """One mix against one server: its results, and its row in the report."""
    seeds = range(options.seeds)
    title = f"{workload.mix.name} against {server.name}"
    found: Found | None = None
    if options.find:
        start = options.rates[0] if options.rates else workload.rate
        found = await highest_rate(
            on(workload, target), start=start, share=options.find, seeds=seeds
        )
        points = list(found.points)
    else:
        points = await sweep(on(workload, target), options.rates or [workload.rate], seeds)
    row = "".join(row_of(workload, server, point) for point in points)
    if found:
        best = f"**{found.highest:.2f}/s**"
        row += f"| {workload.mix.name} | {server.name} | highest at {options.find:.0%} | {best} |||||\n"
    return of_points(title, points, found), row


def on(workload: Workload, target: Target) -> Measure:
    async def at(rate: float, seed: int) -> Measurement:
        factor = rate / workload.rate
        return await measure(workload, target, seed=seed, rate_factor=factor)

    return at


def row_of(workload: Workload, server: Server, point: Point) -> str:
    total = point.runs[0].report.total
    cells = (
        workload.mix.name,
        f"{server.name} ({server.weights})",
        f"{point.rate:.2f}/s",
        f"{point.share.value:.1%} ({point.share.low:.1%} to {point.share.high:.1%})"
        + ("" if point.valid else " INVALID"),
        f"{seconds(total.ttft.p50)}, {seconds(total.ttft.p95)}",
        f"{seconds(total.tpot.p50)}, {seconds(total.tpot.p95)}",
        f"{total.output_rate:.0f}",
        ", ".join(f"{count} {name}" for name, count in total.endings.items()),
    )
    return f"| {' | '.join(cells)} |\n"


def report(rows: list[str], workloads: list[Workload], failures: list[str]) -> str:
    head = "| mix | server | offered | goodput (95% interval) | TTFT p50, p95 | TPOT p50, p95 | tokens/s | endings |\n"
    lines = [
        f"# Serving, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n",
        f"`{shlex.join(['python', *sys.argv])}`\n",
        head + "|" + " --- |" * 8 + "\n" + "".join(rows),
    ]
    lines += [f"- {one.mix.name}: {_about(one)}" for one in workloads]
    lines += [f"- {line}" for line in failures]
    return "\n".join(lines) + "\n"


def _about(workload: Workload) -> str:
    from salver.bench.report import objectives_of

    scaled = "; ".join(map(scaling_text, workload.scalings()))
    return f"{objectives_text(objectives_of(workload.mix))}" + (f"; {scaled}" if scaled else "")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Salver and its peers under the same traffic.")
    parser.add_argument("mixes", type=Path, nargs="*", help="default: benchmarks/mixes")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    parser.add_argument("--peers", type=Path, default=default_root(), help="where setup put them")
    parser.add_argument("--only", nargs="+", help="servers by name")
    parser.add_argument("--rates", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--find", type=lambda text: float(text.rstrip("%")) / 100)
    parser.add_argument("--seeds", type=int, default=1)
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parser.add_argument("--output", type=Path, default=HERE / "results" / stamp)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
