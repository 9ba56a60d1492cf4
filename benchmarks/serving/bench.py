"""Salver and its installed peers as servers, in turn, under the same traffic mixes.

    python benchmarks/serving/bench.py [MIX.yaml ...] --data DIRECTORY [--rates 2,4,8] [--seconds 280]

Looks for the highest rate that each server keeps at 95% goodput, or runs at the rates given. Every
run is kept under --output as it ends, and the same command goes on where an earlier one stopped:
--seconds bounds one piece, and the command ends with code 3 while something is left to do, and with 1
when what is left is of servers that failed. The table of what is complete is written each time.
"""

import argparse
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvloop
from cells import Asked, Bench, Cell, OutOfTime
from servers import Server, ServerFailed, select, servers
from tables import capacity_table, head, notes, sweep_table

from salver.bench.search import Point, sweep
from salver.workload import Workload, load_mix

from peers import default_root, locate  # isort: skip - beside servers' own path

HERE = Path(__file__).resolve().parent
MIXES = HERE.parent / "mixes"
CONTRACT = HERE / "contract.yaml"
SOMETHING_FAILED, SOMETHING_LEFT = 1, 3


@dataclass(frozen=True)
class Task:
    """What is asked of every server under every mix, and where its runs are kept."""

    workloads: Sequence[Workload]
    data: Sequence[Path]
    rates: Sequence[float]  # none: look for the highest
    asked: Asked
    output: Path
    deadline: float

    def kept(self, server: Server, workload: Workload) -> "Cell | list[Point] | None":
        """What is found already, if nothing is left to do."""
        try:
            return self.make(server, workload, "", float("-inf"))
        except (OutOfTime, ServerFailed):
            return None

    def make(
        self, server: Server, workload: Workload, url: str, deadline: float
    ) -> "Cell | list[Point]":
        """Do what is left under one mix. Raises OutOfTime, ServerFailed."""
        directory = self.output / f"{workload.mix.name}-{server.name}"
        bench = Bench(url, directory, self.data, deadline, server.claims)
        if self.rates:
            return uvloop.run(sweep(bench.runs(workload), self.rates, self.asked.seeds))
        return uvloop.run(bench.search(workload, self.asked, server.name, server.weights))

    def left(self, server: Server) -> list[Workload]:
        return [one for one in self.workloads if self.kept(server, one) is None]


def main() -> int:
    options = parse()
    found, missing = servers(locate(options.peers, options.contract), options.contract)
    try:
        chosen = select(found, missing, options.only)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 2
    task = task_of(options)
    absent = {} if options.only else dict(missing)
    failed = in_turn(chosen, partial(serve, task))
    left = [server.name for server in chosen if task.left(server)]
    return leave(task.output, report(task, chosen, absent | failed), left, failed)


def in_turn(chosen: Sequence[Server], serve: Callable[[Server], None]) -> dict[str, str]:
    """Serve one after the other until the time is out: why those failed that did, by name."""
    failures = {}
    for server in chosen:
        try:
            serve(server)
        except OutOfTime:
            break
        except ServerFailed as failed:
            failures[server.name] = str(failed)
    return failures


def leave(output: Path, text: str, left: Sequence[str], failed: Collection[str]) -> int:
    """Write and print the report; the command's exit code, by whether a server is left to do.

    One that failed is not: the same command would meet the same end for ever.
    """
    (output / "report.md").write_text(text)
    print(text)
    left = [name for name in left if name not in failed]
    print(f"left to do: {', '.join(left) or 'nothing'}")
    if left:
        return SOMETHING_LEFT
    return SOMETHING_FAILED if failed else 0


def task_of(options: argparse.Namespace) -> Task:
    deadline = time.monotonic() + options.seconds
    paths = options.mixes or sorted(MIXES.glob("*.yaml"))
    options.output.mkdir(parents=True, exist_ok=True)
    data = [*{path.parent for path in paths}, *options.data]
    return Task(
        [Workload(load_mix(path), data) for path in paths],
        data,
        options.rates,
        Asked(options.find, range(options.seeds), options.beyond),
        options.output,
        deadline,
    )


def serve(task: Task, server: Server) -> None:
    """Do what is left for one server. Raises OutOfTime, ServerFailed."""
    left = task.left(server)
    if not left:
        return
    if time.monotonic() + server.starts_within > task.deadline:
        raise OutOfTime
    with server.running(task.output) as url:
        for workload in left:
            print(f"{datetime.now(UTC):%H:%M:%S} {workload.mix.name}, {server.name}", flush=True)
            task.make(server, workload, url, task.deadline)


def report(task: Task, chosen: Sequence[Server], failures: dict[str, str]) -> str:
    """The table of what is complete."""
    lines = [head()]
    for workload in task.workloads:
        made = [(server, task.kept(server, workload)) for server in chosen]
        cells = [cell for _, cell in made if isinstance(cell, Cell)]
        swept = [(server, points) for server, points in made if isinstance(points, list)]
        if cells:
            lines.append(capacity_table(workload, cells, task.asked))
        if swept:
            lines.append(sweep_table(workload, swept))
    return "\n\n".join([*lines, notes(failures)]) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Salver and its peers under the same traffic.")
    parser.add_argument("mixes", type=Path, nargs="*", help="default: benchmarks/mixes")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    parser.add_argument("--peers", type=Path, default=default_root(), help="where setup put them")
    parser.add_argument("--only", nargs="+", help="servers by name")
    parser.add_argument(
        "--rates",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[],
        help="run at these rates instead of looking for the highest",
    )
    parser.add_argument("--find", type=lambda text: float(text.rstrip("%")) / 100, default=0.95)
    parser.add_argument("--beyond", type=float, default=2.0, help="and run at this multiple of it")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="bounds this piece")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "serving")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
