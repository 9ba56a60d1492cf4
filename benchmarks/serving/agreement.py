"""Whether `salver bench` and other load generators say the same of the same load.

    python benchmarks/serving/agreement.py [--paced] [--rounds 2] [--seconds 30] [--only guidellm]

Every tool puts a fresh `salver serve` under the same prompts, at the same constant rate, for the
same tokens out; odd rounds go through the tools forwards, even ones backwards. A client takes part
of the machine that it measures, so two tools can both be right and differ; hence every run is held
against the server's own count of it. With --paced the server only waits (`serve_paced.py`): what a
tool adds to it is the tool's alone, and so is the machine's time. The same command goes on where an
earlier one with the same --output stopped; with --piece it stops after so many seconds.
"""

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import uvloop
from agreement_report import OURS, Line, Served, report
from servers import NAME, Server, ServerFailed, salver_server
from tools import TOOLS, Figures, Load, Tool, ToolFailed

from salver.bench.report import Report, report_on, write_records
from salver.bench.run import Progress, Run, open_loop, prepare
from salver.bench.target import Target
from salver.models import Tokenizer, open_model
from salver.workload import open_workload

from peers import CONTRACT, GGUF, HUGGING_FACE, Place, default_root, locate  # isort: skip

HERE = Path(__file__).resolve().parent
PROMPT_TOKENS = 128
OVERHEAD_SECONDS = 45.0  # of a run beside its load: the server's start and the tool's
SOMETHING_LEFT = 3
MIX = """\
apiVersion: salver/v1
kind: TrafficMix
name: agreement
duration: {seconds}s
slo: {{ttft: 1s}}
flows:
  - name: steady
    trace: {{file: instants.jsonl, format: salver}}
    arrivals: {{trace: {{}}}}
    prompts: {{jsonl: {{file: prompts.jsonl, field: prompt, send: text}}}}
    output: {{fixed: {output}}}
    timeout: 60s
"""


def main() -> int:
    options = parse()
    place = locate(options.peers, options.contract)
    tools = chosen(options.only, place.root)
    options.output.mkdir(parents=True, exist_ok=True)
    load = write_load(place, options)
    server = paced_server() if options.paced else salver_server(options.contract)
    deadline = time.monotonic() + options.piece
    lines, failures, left = [], [], 0
    for number in range(1, options.rounds + 1):
        contenders: list[Tool | None] = [None, *tools]
        for tool in contenders if number % 2 else reversed(contenders):
            directory = options.output / f"{number}-{tool.name if tool else OURS}"
            line = kept(directory)
            if line is None and time.monotonic() + load.seconds + OVERHEAD_SECONDS > deadline:
                left += 1
                continue
            try:
                line = line or measured(server, tool, place.root, load, directory, number)
                lines.append(line)
                print(f"{number} {line.tool}: {line.figures}", flush=True)
            except (ServerFailed, ToolFailed) as failed:
                failures.append(str(failed))
    text = report(lines, failures, load, server.name)
    (options.output / "agreement.md").write_text(text)
    print(text)
    print(f"left to do: {left} runs")
    return 1 if failures or not lines else SOMETHING_LEFT if left else 0


def kept(directory: Path) -> Line | None:
    """The run that is in a directory already."""
    path = directory / "line.json"
    return msgspec.json.decode(path.read_bytes(), type=Line) if path.exists() else None


def paced_server() -> Server:
    """One that only waits."""
    command = (sys.executable, str(HERE / "serve_paced.py"), "{port}")
    return Server("a server that only waits", "", command, "/metrics")


def chosen(only: Sequence[str] | None, root: Path) -> list[Tool]:
    """The tools asked for, all that are installed if none is."""
    known = {tool.name: tool for tool in TOOLS}
    for name in only or ():
        if name not in known:
            sys.exit(f"no tool is called {name}; there are {', '.join(known)}")
        if not known[name].found(root):
            sys.exit(f"{name} is not installed in {root}; see {HERE / 'README.md'}")
    return [tool for tool in TOOLS if (tool.name in only if only else tool.found(root))]


def write_load(place: Place, options: argparse.Namespace) -> Load:
    """The load as files that each tool can read."""
    requests = round(options.rate * options.seconds)
    tokenizer = open_model(place.model(GGUF)).tokenizer
    prompts = made_prompts(tokenizer, requests)
    output, directory = options.output_tokens, options.output.resolve()
    instants = [
        {"at": number / options.rate, "input_tokens": PROMPT_TOKENS, "output_tokens": output}
        for number in range(requests + 1)  # the last is where the schedule ends
    ]
    rows = [{"prompt": prompt, "output_tokens_count": output} for prompt in prompts]
    _write_lines(directory / "prompts.jsonl", rows)
    _write_lines(directory / "texts.jsonl", [{"text": prompt} for prompt in prompts])
    _write_lines(directory / "instants.jsonl", instants)
    (directory / "mix.yaml").write_text(MIX.format(seconds=options.seconds, output=output))
    return Load(
        directory / "prompts.jsonl",
        directory / "texts.jsonl",
        place.model(HUGGING_FACE),
        options.rate,
        requests,
        PROMPT_TOKENS,
        output,
    )


def made_prompts(tokenizer: Tokenizer, count: int) -> list[str]:
    """Different texts of exactly PROMPT_TOKENS tokens: words that are one token each."""
    random = np.random.default_rng(7)
    texts = (tokenizer.decode([token]) for token in range(1000, 20000))
    words = [
        text for text in texts if text[:1] == " " and text[1:].isascii() and text[1:].isalpha()
    ]
    prompts: list[str] = []
    while len(prompts) < count:
        prompt = "".join(random.choice(words, PROMPT_TOKENS)).lstrip()
        encoded = tokenizer.encode(prompt, add_special_tokens=True, parse_special=False)
        if len(encoded) == PROMPT_TOKENS:
            prompts.append(prompt)
    return prompts


def measured(
    server: Server, tool: Tool | None, root: Path, load: Load, directory: Path, number: int
) -> Line:
    """One run of one tool, or of ours, against a server of its own; its directory keeps it."""
    directory.mkdir(parents=True, exist_ok=True)
    with server.running(directory) as url:
        warm_up(url, load)
        before = counted(url)
        if tool:
            figures = tool.run(root, load, url, directory)
        else:
            figures = uvloop.run(ours(load, url, directory))
        after = counted(url)
    name = tool.name if tool else OURS
    line = Line(number, name, figures, served_between(before, after))
    (directory / "line.json").write_bytes(msgspec.json.encode(line))
    return line


async def ours(load: Load, url: str, directory: Path) -> Figures:
    """`salver bench` on the load, without the warm-up of its own."""
    workload = open_workload(load.prompts.parent / "mix.yaml")
    target = Target(url, NAME)
    arrivals = list(workload.schedule(seed=1))
    prepared = prepare(arrivals, target, exact=True)
    run: Run = await open_loop(prepared, target, _unwatched)
    result: Report = report_on(run, workload, arrivals, target, seed=1, rate_factor=1.0)
    write_records(run.records, directory / "requests.jsonl")
    if not result.valid:
        raise ToolFailed(f"salver: invalid: {'; '.join(result.client.problems)}")
    total = result.total
    return Figures(
        requests=total.endings.get("complete", 0),
        ttft=total.ttft.mean or 0.0,
        ttft_p50=total.ttft.p50 or 0.0,
        ttft_p95=total.ttft.p95 or 0.0,
        gaps=total.itl.mean or 0.0,
        gaps_p50=total.itl.p50 or 0.0,
        output_rate=total.output_rate,
    )


def _unwatched(progress: Progress) -> None:
    return


def warm_up(url: str, load: Load) -> None:
    """A few requests with prompts that nobody sends."""
    for number in range(4):
        prompt = [number + 1] * PROMPT_TOKENS
        body = {"model": NAME, "prompt": prompt, "max_tokens": load.output_tokens}
        request = urllib.request.Request(
            f"{url}/v1/completions",
            json.dumps(body | {"ignore_eos": True}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


def counted(url: str) -> dict[str, float]:
    """The server's counters, after the last request has been counted."""
    time.sleep(0.5)
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("vllm:"))
    return {name.partition("{")[0].removeprefix("vllm:"): float(value) for name, value in pairs}


def served_between(before: dict[str, float], after: dict[str, float]) -> Served:
    def grown(name: str) -> float:
        return after[name] - before[name]

    def mean(name: str) -> float:
        count = grown(f"{name}_count")
        return grown(f"{name}_sum") / count if count else 0.0

    requests = "time_to_first_token_seconds_count"
    others = None
    if "span_seconds" in after:
        others = (after["busy_seconds"] - after["own_seconds"]) / after["span_seconds"]
    return Served(
        ttft=mean("time_to_first_token_seconds"),
        gaps=mean("inter_token_latency_seconds"),
        requests=round(grown(requests)),
        tokens=round(grown("generation_tokens_total")),
        client_cores=others,
    )


def _write_lines(path: Path, rows: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Do load generators agree on the same load?")
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    parser.add_argument("--peers", type=Path, default=default_root(), help="where the tools are")
    parser.add_argument("--only", nargs="+", help="tools beside ours, by name")
    parser.add_argument("--paced", action="store_true", help="a server that only waits")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--piece", type=float, default=float("inf"), help="seconds of this piece")
    parser.add_argument("--output-tokens", type=int, default=64)
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parser.add_argument("--output", type=Path, default=HERE / "results" / f"agreement-{stamp}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
