"""What is left of goodput at several times a server's capacity.

    python benchmarks/serving/overload.py [MIX.yaml] --data DIRECTORY --only salver
        [--capacity 12] [--factors 0.5,1,2,3,5]

Capacity is the highest rate at which 95% of arrivals are good, found first unless it is given. Each
factor is then one run of the mix at that many times the capacity, against a server that goes on
running: what one leaves behind, the next one meets. Goodput counts good arrivals per second over all
arrivals, refused ones included. What has to hold: at the last factor at least 90% of the best.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from servers import NAME, Server, ServerFailed, select, servers

from salver.bench.search import highest_rate, sweep
from salver.bench.target import Target
from salver.workload import Workload, open_workload

from bench import on, row_of  # isort: skip - beside this file
from peers import CONTRACT, default_root, locate  # isort: skip - beside servers' own path

HERE = Path(__file__).resolve().parent
GOOD = 0.95  # of arrivals, at capacity
KEPT = 0.90  # of the best goodput, at the last factor


def main() -> int:
    options = parse()
    found, missing = servers(locate(options.peers, options.contract), options.contract)
    workload = open_workload(options.mix, options.data)
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        for server in select(found, missing, options.only):
            with server.running(options.output) as url:
                text = uvloop.run(run(workload, Target(url, NAME), server, options))
            print(text, flush=True)
            (options.output / f"{workload.mix.name}-{server.name}.md").write_text(text)
    except ServerFailed as failed:
        print(failed, file=sys.stderr)
        return 2
    return 0


async def run(
    workload: Workload, target: Target, server: Server, options: argparse.Namespace
) -> str:
    """Find the capacity, then go over it."""
    measure, capacity = on(workload, target), options.capacity
    if capacity is None:
        search = await highest_rate(measure, start=workload.rate, share=GOOD, seeds=[0])
        capacity = search.highest
    points = await sweep(measure, [capacity * factor for factor in options.factors], [0])
    good = [point.share.value * point.rate for point in points]
    rows = "".join(
        f"{factor:g}x, {rate:.2f} good/s: {row_of(workload, server, point)}"
        for factor, rate, point in zip(options.factors, good, points, strict=True)
    )
    kept = good[-1] / max(good) if max(good) else 0.0
    verdict = "holds" if kept >= KEPT else "FAILS"
    return (
        f"{server.name}, capacity {capacity:.2f}/s\n{rows}"
        f"at {options.factors[-1]:g}x {kept:.0%} of the best goodput is left: {verdict}\n"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    mix = HERE.parent / "mixes" / "azure-conv.yaml"
    parser.add_argument("mix", type=Path, nargs="?", default=mix)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    parser.add_argument("--peers", type=Path, default=default_root(), help="where setup put them")
    parser.add_argument("--only", nargs="+", help="servers by name")
    parser.add_argument("--capacity", type=float, help="requests per second")
    parser.add_argument(
        "--factors",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.5, 1.0, 2.0, 3.0, 5.0],
    )
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parser.add_argument("--output", type=Path, default=HERE / "results" / f"overload-{stamp}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
