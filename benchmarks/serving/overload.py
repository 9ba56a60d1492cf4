"""What is left of goodput at several times a server's capacity.

    python benchmarks/serving/overload.py [MIX.yaml] --data DIRECTORY [--only salver vllm-bf16]
        [--capacity salver=12 vllm-bf16=1.5] [--factors 0.5,1,2,3,5] [--seconds 280]

Capacity is each server's own: the highest rate at which 95% of arrivals are good, looked for as
`bench.py` does unless it is given; where no rate holds, the rate of the closed loop. Each factor is
then one run of the mix at that many times the capacity, against a server that goes on running: what
one run leaves behind, the next one meets. Goodput counts good arrivals per second over all arrivals,
refused ones included. What has to hold of Salver: at the last factor at least 90% of the best.

Runs are kept and gone on from as in `bench.py`, whose kept runs count here too under one --output:
--seconds bounds one piece, and the command ends with code 3 while something is left to do, and
with 1 when what is left is of servers that failed.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from bench import CONTRACT, HERE, MIXES, in_turn, leave
from cells import Asked, Bench, OutOfTime
from servers import Server, ServerFailed, salver_before_vllm, select, servers
from tables import Swept, head, notes, overload_table

from salver.bench.search import sweep
from salver.workload import Workload, load_mix

from peers import Place, default_root, locate  # isort: skip - beside servers' own path

GOOD = 0.95  # of arrivals, at capacity
BY_DEFAULT = ("salver", "llamacpp-4bit", "vllm-bf16", "salver-vllm-bf16")


@dataclass(frozen=True)
class Task:
    """What is asked of every server, and where its runs are kept."""

    workload: Workload
    data: Sequence[Path]
    capacities: Mapping[str, float]  # those that were given
    factors: Sequence[float]
    seeds: Sequence[int]
    output: Path

    def kept(self, server: Server) -> Swept | None:
        """What is found already, if nothing is left to do."""
        try:
            return uvloop.run(self.make(server, "", float("-inf")))
        except (OutOfTime, ServerFailed):
            return None

    async def make(self, server: Server, url: str, deadline: float) -> Swept:
        """Find the capacity, then go over it. Raises OutOfTime, ServerFailed."""
        directory = self.output / f"{self.workload.mix.name}-{server.name}"
        bench = Bench(url, directory, self.data, deadline, server.claims)
        capacity, held = self.capacities.get(server.name), True
        if capacity is None:
            asked = Asked(GOOD, self.seeds, beyond=0)
            cell = await bench.search(self.workload, asked, server.name, server.weights)
            held = cell.found.highest > 0
            capacity = cell.found.highest if held else cell.capacity
        rates = [capacity * factor for factor in self.factors]
        points = await sweep(bench.runs(self.workload), rates, self.seeds)
        foreign = bench.most_foreign(rates)
        return Swept(server.name, server.weights, capacity, held, self.factors, points, foreign)


def main() -> int:
    options = parse()
    task = task_of(options)
    try:
        chosen = choose(locate(options.peers, options.contract), options)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 2
    deadline = time.monotonic() + options.seconds
    failed = in_turn(chosen, lambda server: serve(task, server, deadline))
    left = [server.name for server in chosen if task.kept(server) is None]
    return leave(task.output, report(task, chosen, failed), left, failed)


def choose(place: Place, options: argparse.Namespace) -> list[Server]:
    """The servers asked for, by default those that are installed. Raises ServerFailed."""
    found, missing = servers(place, options.contract)
    found += [salver_before_vllm(each) for each in found if each.name.startswith("vllm")]
    names = [each.name for each in found]
    return select(found, missing, options.only or [name for name in BY_DEFAULT if name in names])


def task_of(options: argparse.Namespace) -> Task:
    options.output.mkdir(parents=True, exist_ok=True)
    data = [options.mix.parent, *options.data]
    return Task(
        Workload(load_mix(options.mix), data),
        data,
        dict(options.capacity),
        options.factors,
        range(options.seeds),
        options.output,
    )


def serve(task: Task, server: Server, deadline: float) -> None:
    """Do what is left for one server. Raises OutOfTime, ServerFailed."""
    if task.kept(server) is not None:
        return
    if time.monotonic() + server.starts_within > deadline:
        raise OutOfTime
    with server.running(task.output) as url:
        print(f"{datetime.now(UTC):%H:%M:%S} {server.name}", flush=True)
        uvloop.run(task.make(server, url, deadline))


def report(task: Task, chosen: Sequence[Server], failures: dict[str, str]) -> str:
    """The tables of what is complete."""
    swept = [found for found in map(task.kept, chosen) if found]
    tables = [overload_table(task.workload, swept)] if swept else []
    return "\n\n".join([head("Overload"), *tables, notes(failures)]) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("mix", type=Path, nargs="?", default=MIXES / "azure-conv.yaml")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    parser.add_argument("--peers", type=Path, default=default_root(), help="where setup put them")
    parser.add_argument("--only", nargs="+", help="servers by name")
    parser.add_argument(
        "--capacity", type=given, nargs="+", default=[], help="SERVER=REQUESTS_PER_SECOND"
    )
    parser.add_argument(
        "--factors",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.5, 1.0, 2.0, 3.0, 5.0],
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="bounds this piece")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "overload")
    return parser.parse_args()


def given(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    return name, float(rate)


if __name__ == "__main__":
    sys.exit(main())
