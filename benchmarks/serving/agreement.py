"""Whether `salver bench` and other load generators say the same of the same load.

    python benchmarks/serving/agreement.py [--rounds 1] [--seconds 60] [--only guidellm aiperf]

Every tool puts a freshly started `salver serve` under the same prompts, at the same constant rate,
for the same tokens out. A client takes part of the machine that it measures, so two tools can both
be right and differ; hence every run is also held against the server's own count of it, in which the
way to the client is missing. What is left between the tools after that is how they measure.
"""

import argparse
import json
import shlex
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import uvloop
from servers import NAME, Server, ServerFailed, salver_server
from tools import TOOLS, Figures, Load, Tool, ToolFailed

from salver.bench.report import Report, report_on, write_records
from salver.bench.run import Progress, Run, open_loop, prepare
from salver.bench.target import Target
from salver.models import Tokenizer, open_model
from salver.workload import open_workload

from peers import CONTRACT, GGUF, HUGGING_FACE, Place, default_root, locate  # isort: skip

HERE = Path(__file__).resolve().parent
AGREED = 0.05
PROMPT_TOKENS = 128
OURS = (
    "TTFT from the intended instant to the first event with text; ITL pooled over events with "
    "text; tokens over the seconds of the schedule"
)
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


@dataclass(frozen=True)
class Served:
    """The server's own means of the same run, in seconds, and what it generated."""

    ttft: float
    gaps: float
    requests: int
    tokens: int


@dataclass(frozen=True)
class Line:
    """One run: what the tool said, and what the server did."""

    tool: str
    figures: Figures
    served: Served


def main() -> int:
    options = parse()
    place = locate(options.peers, options.contract)
    tools = chosen(options.only, place.root)
    options.output.mkdir(parents=True, exist_ok=True)
    load = write_load(place, options)
    server = salver_server(options.contract)
    lines: list[Line] = []
    failures: list[str] = []
    for number in range(options.rounds):
        for name in [None, *tools, None] if number == options.rounds - 1 else [None, *tools]:
            directory = options.output / f"{number + 1}-{name.name if name else 'salver'}"
            try:
                lines.append(measured(server, name, place.root, load, directory))
                print(f"{lines[-1].tool}: {lines[-1].figures}", flush=True)
            except (ServerFailed, ToolFailed) as failed:
                failures.append(str(failed))
    text = report(lines, failures, load)
    (options.output / "agreement.md").write_text(text)
    found = [asdict(line) for line in lines]
    (options.output / "agreement.json").write_text(json.dumps(found, indent=2))
    print(text)
    return 1 if failures or not lines else 0


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


def measured(server: Server, tool: Tool | None, root: Path, load: Load, directory: Path) -> Line:
    """One run of one tool, or of ours, against a server of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    with server.running(directory) as url:
        warm_up(url, load)
        before = counted(url)
        if tool:
            figures = tool.run(root, load, url, directory)
        else:
            figures = uvloop.run(ours(load, url, directory))
        after = counted(url)
    return Line(tool.name if tool else "salver", figures, served_between(before, after))


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
    def mean(name: str) -> float:
        count = after[f"{name}_count"] - before[f"{name}_count"]
        return (after[f"{name}_sum"] - before[f"{name}_sum"]) / count if count else 0.0

    requests = "time_to_first_token_seconds_count"
    return Served(
        ttft=mean("time_to_first_token_seconds"),
        gaps=mean("inter_token_latency_seconds"),
        requests=round(after[requests] - before[requests]),
        tokens=round(after["generation_tokens_total"] - before["generation_tokens_total"]),
    )


def report(lines: Sequence[Line], failures: Sequence[str], load: Load) -> str:
    """Every run, how far each tool is from ours, and what each means by its words."""
    heads = (
        "tool",
        "answered",
        "TTFT mean (p50, p95), ms",
        "server's TTFT",
        "client adds",
        "ITL mean (p50), ms",
        "server's ITL",
        "tokens/s",
    )
    table = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads), *map(_row, lines)]
    return "\n".join(
        [
            f"# Agreement of load generators, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n",
            f"`{shlex.join(['python', *sys.argv])}`\n",
            f"{load.requests} requests at a constant {load.rate:g}/s, {PROMPT_TOKENS} tokens in, "
            f"{load.output_tokens} out, end of sequence ignored, a server of its own for each run.\n",
            *table,
            "",
            *verdicts(lines),
            "",
            f"- salver: {OURS}.",
            *(f"- {tool.name}: {tool.definitions}." for tool in TOOLS),
            *(f"- FAILED {failure}" for failure in failures),
            "",
        ]
    )


def _row(line: Line) -> str:
    figures, served = line.figures, line.served
    cells = (
        line.tool,
        f"{figures.requests} of {served.requests}",
        f"{_ms(figures.ttft)} ({_ms(figures.ttft_p50)}, {_ms(figures.ttft_p95)})",
        _ms(served.ttft),
        _ms(figures.ttft - served.ttft),
        f"{_ms(figures.gaps)} ({_ms(figures.gaps_p50)})",
        _ms(served.gaps),
        f"{figures.output_rate:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def verdicts(lines: Sequence[Line]) -> list[str]:
    """Each tool's means against ours, as said and with the server's own difference taken out."""
    ours = [line for line in lines if line.tool == "salver"]
    if not ours:
        return []
    rows = []
    for name in dict.fromkeys(line.tool for line in lines if line.tool != "salver"):
        theirs = [line for line in lines if line.tool == name]
        cells = [
            _compared(
                [line.figures.ttft for line in theirs],
                [line.figures.ttft for line in ours],
                [line.served.ttft for line in theirs],
                [line.served.ttft for line in ours],
            ),
            _compared(
                [line.figures.gaps for line in theirs],
                [line.figures.gaps for line in ours],
                [line.served.gaps for line in theirs],
                [line.served.gaps for line in ours],
            ),
            _verdict(
                fmean(line.figures.output_rate for line in theirs)
                / fmean(line.figures.output_rate for line in ours)
                - 1
            ),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    head = "| against salver bench | TTFT | ITL | tokens/s |\n| --- | --- | --- | --- |"
    return [head, *rows]


def _compared(
    theirs: Sequence[float],
    ours: Sequence[float],
    served_theirs: Sequence[float],
    served_ours: Sequence[float],
) -> str:
    as_said = fmean(theirs) / fmean(ours) - 1
    client = fmean(theirs) / fmean(served_theirs) / (fmean(ours) / fmean(served_ours)) - 1
    return f"{as_said:+.1%} as said; {_verdict(client)} against the server's own"


def _verdict(difference: float) -> str:
    return f"{difference:+.1%}, {'agrees' if abs(difference) <= AGREED else 'DIFFERS'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def _write_lines(path: Path, rows: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Do load generators agree on the same load?")
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    parser.add_argument("--peers", type=Path, default=default_root(), help="where the tools are")
    parser.add_argument("--only", nargs="+", help="tools beside ours, by name")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--output-tokens", type=int, default=64)
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parser.add_argument("--output", type=Path, default=HERE / "results" / f"agreement-{stamp}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
