"""What HTTP leaves of the engine's speed: 32 SSE streams, their client on the same cores.

    python benchmarks/engine/http_share.py [--rounds 5] [--streams 32] [--contract CONTRACT]

A is the engine in a process of its own, as `bench.py` measures it; B is `salver serve` with the same
runner, under a load generator that counts events. Same prompts, A B A B; the one that does not run is
stopped by signal. `decode` is tokens/s while every stream decodes, `whole` is all output tokens over
the time from sending to the last one, prefill included. Ratios are paired by round, then medians.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from adapter_http import SILENT
from contender import Contender, Run, Running
from ours import salver_contenders
from peers import CONTRACT
from workload import Point, decode_rate, prompts

from salver.cli.fit import runner_kind
from salver.contract import load_deployment
from salver.registry import Digest

PATIENCE = 300.0


@dataclass(frozen=True)
class Rates:
    """Tokens/s, and the share of the tokens that had an event of their own."""

    decode: float
    whole: float
    told: float

    @classmethod
    def of(cls, run: Run) -> "Rates":
        decode = decode_rate(run.times)
        assert decode is not None, "the streams never decoded together"
        tokens = [token for stream in run.tokens for token in stream]
        told = 1 - tokens.count(SILENT) / len(tokens)
        return cls(decode, len(tokens) / run.seconds, told)


def contenders(contract: Path) -> list[Contender]:
    """The engine alone, and the server under a client."""
    release = load_deployment(contract).release
    kind = runner_kind(release.runtime)
    known, _ = salver_contenders(Digest.parse(release.digest))
    engine = next(each for each in known if each.options["runner"] == kind)
    server = Contender(
        "salver-http",
        engine.weights,
        Path(sys.executable),
        "adapter_http.py",
        engine.model,
        options={"contract": str(contract.resolve())},
    )
    return [engine, server]


def measure(contract: Path, point: Point, rounds: int) -> Iterator[tuple[Rates, Rates]]:
    """One pair (engine, HTTP) a round, after a warm-up of both."""
    limits = {
        "threads": len(os.sched_getaffinity(0)),
        "max_running": point.streams,
        "max_context_tokens": point.prompt_tokens + point.new_tokens + 64,
        "max_batch_tokens": 512,
    }
    with ExitStack() as stack, tempfile.TemporaryDirectory() as logs:
        running = []
        for contender in contenders(contract):
            each = stack.enter_context(Running(contender, limits, Path(logs), PATIENCE))
            each.generate(prompts(point, "warm-up"), point.new_tokens)
            each.sleep()
            running.append(each)
        for number in range(rounds):
            found = []
            for each in running:
                with each.awake():
                    run = each.generate(prompts(point, str(number)), point.new_tokens)
                found.append(Rates.of(run))
            yield found[0], found[1]


def report(pairs: list[tuple[Rates, Rates]], point: Point) -> str:
    def row(name: str, read: str) -> str:
        engine = [getattr(a, read) for a, _ in pairs]
        http = [getattr(b, read) for _, b in pairs]
        shares = [b / a for a, b in zip(engine, http, strict=True)]
        middle = [statistics.median(values) for values in (engine, http, shares)]
        return (
            f"| {name} | {middle[0]:,.0f} | {middle[1]:,.0f} | {middle[2]:.1%} "
            f"({min(shares):.1%} to {max(shares):.1%}) |"
        )

    told = statistics.median(http.told for _, http in pairs)
    return "\n".join(
        [
            f"{point.streams} streams, {point.prompt_tokens} tokens in, {point.new_tokens} out, "
            f"{len(pairs)} rounds; {told:.1%} of the tokens had an event of their own",
            "",
            "| tokens/s | engine | over HTTP | share |",
            "|---|---|---|---|",
            row("decode", "decode"),
            row("whole", "whole"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine's speed, and what HTTP leaves of it.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    options = parser.parse_args()
    point = Point("http", "HTTP", "decode", options.streams, 128, options.new_tokens)
    pairs = list(measure(options.contract, point, options.rounds))
    print(report(pairs, point))


if __name__ == "__main__":
    main()
