"""Salver's engine and its peers, side by side on this machine.

    python benchmarks/engine/bench.py [--peers DIRECTORY] [--only NAME ...] [--output DIRECTORY]

Every contender is a process that keeps its model loaded and is stopped while another is measured.
At each point, in each round, all are measured in turn (A B A B ...) on the same prompts; rates are
medians over rounds, ratios are paired within a round. What takes longer than --slow seconds is
measured once only, and what would take longer than --patience not at all. A run that others on the
machine disturbed is repeated with new prompts, and the least disturbed counts; what stays disturbed
is marked. Peers that are not installed are named and left out; `peers.py setup` installs them.

Writes report.md, report.json, report.svg and runs.jsonl: every instant of every token.
"""

import argparse
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import machine
from contender import Contender
from ours import salver_contenders
from peers import CONTRACT, GGUF, default_root, locate
from quiet import Quiet
from report import Report, Weights
from tournament import Options, Tournament
from workload import POINTS

from salver.models import open_checkpoint

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # through every `finally`
    place = locate(options.peers, options.contract)
    ours, notes = salver_contenders(place.digest)
    peers, missing = place.contenders()
    contenders = [
        each for each in ours + peers if options.only is None or each.name in options.only
    ]
    points = [each for each in POINTS if options.points is None or each.name in options.points]
    options.output.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    quiet = Quiet(options.wait)
    model = Weights.of(open_checkpoint(place.model(GGUF)).config)
    measured = machine.measure(quiet, model.sizes())
    settings = Options(
        rounds=options.rounds,
        starts=options.starts,
        slow=options.slow,
        patience=options.patience,
        threads=measured.machine.cores,
        retries=options.retries,
        output=options.output,
    )
    gauge = machine.Gauge(model.sizes(), model.operations)
    with Tournament(contenders, settings, quiet, gauge) as tournament:
        tournament.start()
        for point in points:
            tournament.measure(point)
    Report(
        command=shlex.join(["python", *sys.argv]),
        machine=measured,
        model=model,
        load_average=load_average,
        rounds=options.rounds,
        points=points,
        entrants=tournament.entrants,
        table=tournament.table(points),
        notes=notes + missing + left_out(ours + peers, contenders) + tournament.notes,
    ).write(options.output)
    print((options.output / "report.md").read_text())
    return 0


def left_out(known: list[Contender], chosen: list[Contender]) -> list[str]:
    return [f"{each.name} was left out on request" for each in known if each not in chosen]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure Salver's engine and its peers side by side."
    )
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parser.add_argument("--contract", type=Path, default=CONTRACT, help="whose artifact to run")
    parser.add_argument("--peers", type=Path, default=default_root(), help="where setup put them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=2, help="how often each is started")
    parser.add_argument("--slow", type=float, default=30.0, help="seconds: what is done once only")
    parser.add_argument(
        "--patience", type=float, default=300.0, help="seconds: what would take longer is left out"
    )
    parser.add_argument("--wait", type=float, default=300.0, help="seconds in all for quiet")
    parser.add_argument("--retries", type=int, default=2, help="of a run that others disturbed")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders to measure")
    parser.add_argument("--points", nargs="+", choices=[point.name for point in POINTS])
    parser.add_argument("--output", type=Path, default=RESULTS / stamp)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
