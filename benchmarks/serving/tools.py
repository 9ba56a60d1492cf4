"""Load generators beside ours: how each is told the same load, and where it writes what it saw.

    python benchmarks/serving/tools.py setup [DIRECTORY]

installs guidellm and aiperf, each in an environment of its own. vLLM's client comes with the peer
(benchmarks/engine/peers.py), and gets pandas, with which it reads prompts.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import NAME

from peers import default_root  # isort: skip - beside servers' own path

INSTALLED = ("guidellm", "aiperf")
LIMIT_SECONDS = 120.0  # for a tool's start and end, beside the load's own time


class ToolFailed(Exception):
    """A tool that ended with an error, or wrote no result."""


@dataclass(frozen=True)
class Load:
    """What every tool sends: `requests` prompts of a file in order, at a constant rate.

    `prompts` has lines for all tools: under `prompt`, and with the output length beside it.
    `texts` has the same under `text` alone. `tokenizer` is a Hugging Face directory.
    """

    prompts: Path
    texts: Path
    tokenizer: Path
    rate: float
    requests: int
    input_tokens: int
    output_tokens: int

    @property
    def seconds(self) -> float:
        return self.requests / self.rate


@dataclass(frozen=True)
class Figures:
    """What one tool says about its run, in seconds and tokens per second.

    `gaps` is its ITL as it defines it; `requests` is how many it counts as answered.
    """

    requests: int
    ttft: float
    ttft_p50: float
    ttft_p95: float
    gaps: float
    gaps_p50: float
    output_rate: float


@dataclass(frozen=True)
class Tool:
    """A load generator. `read` is given the directory that the command was told to write to."""

    name: str
    definitions: str
    command: Callable[[Path, Load, str, Path], list[str]]
    read: Callable[[Path], Figures]
    program: tuple[str, str]

    def found(self, root: Path) -> bool:
        return self._program(root).exists()

    def run(self, root: Path, load: Load, url: str, output: Path) -> Figures:
        """Put the server under the load. Raises ToolFailed."""
        output.mkdir(parents=True, exist_ok=True)
        command = self.command(self._program(root), load, url, output)
        with (output / "tool.log").open("wb") as log:
            try:
                subprocess.run(
                    command,
                    cwd=output,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                    timeout=load.seconds + LIMIT_SECONDS,
                    check=True,
                )
                return self.read(output)
            except (subprocess.SubprocessError, OSError, LookupError, ValueError) as error:
                raise ToolFailed(f"{self.name}: {_why(error)}; see {log.name}") from None

    def _program(self, root: Path) -> Path:
        environment, program = self.program
        return root / environment / "bin" / program


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"ended with {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"did not end within {error.timeout:.0f} s"
    return f"no result that can be read: {error!r}"


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    kept.pop("VIRTUAL_ENV", None)
    return kept | {"VLLM_NO_USAGE_STATS": "1"}


VLLM_BENCH_SERVE = """\
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""`vllm bench serve`; the command itself asks for the version of a package called vllm, which the
build for CPUs is not."""


def _vllm(program: Path, load: Load, url: str, output: Path) -> list[str]:
    options = {
        "backend": "openai",
        "base-url": url,
        "endpoint": "/v1/completions",
        "model": NAME,
        "tokenizer": load.tokenizer,
        "dataset-name": "custom",
        "dataset-path": load.prompts,
        "custom-output-len": load.output_tokens,
        "num-prompts": load.requests,
        "request-rate": load.rate,
        "burstiness": "inf",  # constant gaps
        "temperature": 0,
        "result-dir": output,
        "result-filename": "result.json",
        "percentile-metrics": "ttft,tpot,itl",
        "metric-percentiles": "50,95",
    }
    flags = ("skip-chat-template", "disable-shuffle", "ignore-eos", "save-result", "disable-tqdm")
    return [
        str(program),
        "-c",
        VLLM_BENCH_SERVE,
        *_written(options),
        *(f"--{flag}" for flag in flags),
    ]


def _read_vllm(output: Path) -> Figures:
    found = json.loads((output / "result.json").read_bytes())
    return Figures(
        requests=found["completed"],
        ttft=found["mean_ttft_ms"] / 1000,
        ttft_p50=found["median_ttft_ms"] / 1000,
        ttft_p95=found["p95_ttft_ms"] / 1000,
        gaps=found["mean_itl_ms"] / 1000,
        gaps_p50=found["median_itl_ms"] / 1000,
        output_rate=found["output_throughput"],
    )


def _aiperf(program: Path, load: Load, url: str, output: Path) -> list[str]:
    body = {"max_tokens": load.output_tokens, "ignore_eos": True, "temperature": 0}
    options = {
        "model": NAME,
        "url": url,
        "endpoint-type": "completions",
        "tokenizer": load.tokenizer,
        "input-file": load.texts,
        "custom-dataset-type": "single_turn",
        "dataset-sampling-strategy": "sequential",
        "extra-inputs": json.dumps(body),
        "request-rate": load.rate,
        "arrival-pattern": "constant",
        "request-count": load.requests,
        "artifact-dir": output,
        "ui": "none",
    }
    flags = ("streaming", "use-server-token-count", "no-server-metrics", "no-gpu-telemetry")
    return [str(program), "profile", *_written(options), *(f"--{flag}" for flag in flags)]


def _read_aiperf(output: Path) -> Figures:
    found = json.loads((output / "profile_export_aiperf.json").read_bytes())
    ttft, gaps = found["time_to_first_token"], found["inter_token_latency"]
    return Figures(
        requests=int(found["request_count"]["avg"]),
        ttft=ttft["avg"] / 1000,
        ttft_p50=ttft["p50"] / 1000,
        ttft_p95=ttft["p95"] / 1000,
        gaps=gaps["avg"] / 1000,
        gaps_p50=gaps["p50"] / 1000,
        output_rate=found["output_token_throughput"]["avg"],
    )


def _guidellm(program: Path, load: Load, url: str, output: Path) -> list[str]:
    backend = {"target": url, "model": NAME, "request_format": "/v1/completions"}
    spec: dict[str, Any] = {
        "backend": {"kind": "openai_http", **backend, "extras": {"body": {"temperature": 0}}},
        "profile": {"kind": "constant", "rate": [load.rate]},
        "constraints": [{"kind": "max_requests", "count": load.requests}],
        "tokenizer": {"kind": "huggingface_auto", "model": str(load.tokenizer)},
        "data": [{"kind": "json_file", "path": str(load.prompts)}],
        "outputs": [{"kind": "json", "path": str(output / "result.json")}],
    }
    scenario = output / "scenario.json"
    scenario.write_text(json.dumps({"spec": spec}))
    return [str(program), "run", "--config", str(scenario), "--disable-console"]


def _read_guidellm(output: Path) -> Figures:
    found = json.loads((output / "result.json").read_bytes())["benchmarks"][0]["metrics"]
    ttft, gaps, rate = (
        found[name]["successful"]
        for name in (
            "time_to_first_token_ms",
            "inter_token_latency_ms",
            "output_tokens_per_second",
        )
    )
    return Figures(
        requests=ttft["count"],
        ttft=ttft["mean"] / 1000,
        ttft_p50=ttft["median"] / 1000,
        ttft_p95=ttft["percentiles"]["p95"] / 1000,
        gaps=gaps["mean"] / 1000,
        gaps_p50=gaps["median"] / 1000,
        output_rate=rate["mean"],
    )


TOOLS = (
    Tool(
        "vllm",
        "TTFT from before the request is written, a connection included, to the first event with "
        "a choice; ITL pooled, events without text included; tokens over the time from the first "
        "request to the last answer",
        _vllm,
        _read_vllm,
        ("vllm", "python"),
    ),
    Tool(
        "guidellm",
        "TTFT from when the request is written; ITL is each request's (last text - first text) / "
        "(tokens - 1), about what Salver calls TPOT; tokens a second by the instants of their events",
        _guidellm,
        _read_guidellm,
        ("guidellm", "guidellm"),
    ),
    Tool(
        "aiperf",
        "TTFT from when the request is turned to; ITL is each request's (last text - first text) "
        "/ (tokens - 1), about what Salver calls TPOT; tokens over the time from the first request to "
        "the last answer",
        _aiperf,
        _read_aiperf,
        ("aiperf", "aiperf"),
    ),
)


def _written(options: dict[str, Any]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def _install(environment: Path, requirement: str) -> None:
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", requirement], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the load generators beside ours.")
    parser.add_argument("action", choices=["setup"])
    parser.add_argument("directory", type=Path, nargs="?", default=default_root())
    options = parser.parse_args()
    for name in INSTALLED:
        place = options.directory / name
        if not (place / "bin" / name).exists():
            venv.create(place, with_pip=True)
            _install(place, name)
    if (options.directory / "vllm").exists():
        _install(options.directory / "vllm", "pandas")
    return 0


if __name__ == "__main__":
    sys.exit(main())
