"""Whether the time to a first token tells what another tenant has asked (law 7).

    python benchmarks/serving/isolation.py URL --model NAME --keys KEY_OF_A KEY_OF_B [--pairs 40]

For each pair, tenant A sends a prompt and then B times three: one that A sent (`primed`), one that
nobody sent (`fresh`), and that one again (`own`). `own` is what a hit looks like from outside. Were
anything shared, `primed` would look like it; the answer is the share of pairs of (primed, fresh)
in which primed was the faster, which is a half where the times tell nothing, with its 95% interval
(Wilson). The order within a pair alternates.
"""

import argparse
import statistics
import time

import httpx

from salver.bench.statistics import wilson

WORDS = "a sentence of some length that everybody could have sent to this server before. " * 24


class Tenant:
    """Sends prompts with one key, one at a time."""

    def __init__(self, url: str, model: str, key: str) -> None:
        self._model = model
        self._client = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60.0
        )

    def seconds(self, prompt: str) -> float:
        """Until the first event of the answer."""
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "stream": True}
        started = time.perf_counter()
        with self._client.stream("POST", "/v1/completions", json=body) as answer:
            answer.raise_for_status()
            next(answer.iter_raw())
            return time.perf_counter() - started


def measure(a: Tenant, b: Tenant, pairs: int) -> dict[str, list[float]]:
    """The times of B, by what it sent."""
    times: dict[str, list[float]] = {"primed": [], "fresh": [], "own": []}
    for number in range(-3, pairs):  # the first three warm up
        primed, fresh = f"{time.time_ns()} one {WORDS}", f"{time.time_ns()} two {WORDS}"
        a.seconds(primed)
        turns = [("primed", primed), ("fresh", fresh)][:: 1 if number % 2 else -1]
        for name, prompt in [*turns, ("own", fresh)]:
            took = b.seconds(prompt)
            if number >= 0:
                times[name].append(took)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="Do times tell what another tenant asked?")
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--keys", nargs=2, required=True)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    a, b = (Tenant(options.url, options.model, key) for key in options.keys)
    times = measure(a, b, options.pairs)
    for name, found in times.items():
        print(f"{name:7} {1000 * statistics.median(found):7.1f} ms to the first token, median")
    pairs = list(zip(times["primed"], times["fresh"], strict=True))
    faster = sum(primed < fresh for primed, fresh in pairs)
    share = wilson(faster, len(pairs))
    print(
        f"primed was faster than fresh in {faster} of {len(pairs)} pairs: "
        f"{share.low:.0%} to {share.high:.0%}, where 50% tells nothing"
    )


if __name__ == "__main__":
    main()
