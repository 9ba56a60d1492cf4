"""How much a batch gives: 32 concurrent streams against one, over HTTP, on the same server.

    python benchmarks/batching.py [--rounds 3] [--streams 32] [--contract examples/smollm2.yaml]

A is one stream, B is `--streams` at once; rounds alternate A B A B. Every stream has a prompt of
128 random token ids (no prefix is shared) and gets 96 tokens, end of sequence ignored. Decode
tokens/s counts the tokens that arrive while all streams are decoding: after the last stream's first
token and until the first stream's end. Medians over rounds, and the median of the paired ratios.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

PROMPT_TOKENS, OUTPUT_TOKENS = 128, 96
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Round:
    """One measurement: tokens/s while decoding, and the median TTFT in seconds."""

    tokens_per_second: float
    ttft: float


async def stream(client: httpx.AsyncClient, model: str, rng: random.Random) -> list[float]:
    """Send one request; the instants of its tokens, the instant of sending first."""
    body = {
        "model": model,
        "prompt": [rng.randrange(1000, 40000) for _ in range(PROMPT_TOKENS)],
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    times = [time.perf_counter()]
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        lines = response.aiter_lines()
        times += [time.perf_counter() async for line in lines if line.startswith("data: {")]
    return times


async def measure(client: httpx.AsyncClient, model: str, streams: int, seed: int) -> Round:
    rng = random.Random(seed)
    runs = await asyncio.gather(*(stream(client, model, rng) for _ in range(streams)))
    start, end = max(run[1] for run in runs), min(run[-1] for run in runs)
    tokens = sum(1 for run in runs for at in run[1:] if start < at <= end)
    return Round(tokens / (end - start), statistics.median(run[1] - run[0] for run in runs))


async def compare(url: str, model: str, streams: int, rounds: int) -> list[tuple[Round, Round]]:
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await measure(client, model, 2, seed=0)  # warm up, with prompts of its own
        return [
            (
                await measure(client, model, 1, 2 * i + 1),
                await measure(client, model, streams, 2 * i + 2),
            )
            for i in range(rounds)
        ]


def report(pairs: list[tuple[Round, Round]], streams: int) -> str:
    def median(values: list[float]) -> str:
        return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    one, many = [a for a, _ in pairs], [b for _, b in pairs]
    ratios = [b.tokens_per_second / a.tokens_per_second for a, b in pairs]
    rows = [
        ("streams", "decode tokens/s", "median TTFT, s"),
        ("---", "---", "---"),
        ("1", median([r.tokens_per_second for r in one]), median([r.ttft for r in one])),
        (str(streams), median([r.tokens_per_second for r in many]), median([r.ttft for r in many])),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nratio of decode tokens/s: {median(ratios)}, {len(pairs)} rounds"


def machine() -> str:
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cpu = names[0].split(": ")[1] if names else "unknown CPU"
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, client on the same cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--contract", type=Path, default=ROOT / "examples" / "smollm2.yaml")
    options = parser.parse_args()
    salver = [sys.executable, "-m", "salver.cli"]
    subprocess.run([*salver, "pull", str(options.contract)], check=True, stdout=subprocess.DEVNULL)
    command = [*salver, "serve", str(options.contract), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            facts = json.loads(server.stdout.readline())
            pairs = asyncio.run(
                compare(facts["url"], facts["model"], options.streams, options.rounds)
            )
        finally:
            server.terminate()
    print(f"{machine()}\n{options.contract.name}, {PROMPT_TOKENS} tokens in, {OUTPUT_TOKENS} out\n")
    print(report(pairs, options.streams))


if __name__ == "__main__":
    main()
