"""What a gateway adds: latency and requests/s in front of a server that computes nothing.

    python benchmarks/gateway.py [--rounds 3] [--peers DIRECTORY]

The null server answers a chat at once with a stream of 16 events, in one piece. It is asked directly,
through Salver (`salver serve` with `engine: upstream`) and through each peer whose virtual environment
lies in DIRECTORY: gw_litellm (`pip install litellm[proxy]`, Python), gw_vllmrouter (`vllm-router`,
Rust) and gw_sglrouter (`sglang-router`, Rust). Every gateway is one process with its defaults; client,
gateway and null server share the machine. Salver writes what came in one piece as one event, as it
does with what a server sends while it is busy; the others pass 16 on.

Rounds alternate. `alone`: one request after the other, the median latency; `added` is what is over that
of asking directly. `at 16`: requests/s of 16 closed loops.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

ROOT = Path(__file__).parents[1]
TOKENS = 16
NULL_PORT, FIRST_PORT = 18700, 18701
BODY = (
    b'{"model":"%s","stream":true,"max_tokens":16,"temperature":0,'
    b'"messages":[{"role":"user","content":"What is the capital of France?"}]}'
)
EVENT = (
    b'data: {"id":"c","object":"%s","created":1,"model":"null","choices":[{"index":0,%s,'
    b'"logprobs":null,"finish_reason":%s}]}\n\n'
)
PATIENCE = 90.0
PEERS_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is looked up elsewhere
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no key, as for the others
}


def answer(chat: bytes, content: bytes, nothing: bytes) -> bytes:
    """The whole response of the null server."""
    events = [EVENT % (chat, content, b"null")] * TOKENS + [EVENT % (chat, nothing, b'"length"')]
    body = b"".join(events) + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


CHAT = answer(b"chat.completion.chunk", b'"delta":{"content":" word"}', b'"delta":{}')
COMPLETION = answer(b"text_completion", b'"text":" word"', b'"text":""')
OTHER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def null_server(port: int) -> None:
    """Answers until it is killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"\r\ncontent-length:" in head:
                    size = head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]
                    await reader.readexactly(int(size))
                path = head.split(b" ")[1]
                reply = CHAT if path.endswith(b"chat/completions") else COMPLETION
                writer.write(reply if path.endswith(b"completions") else OTHER)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> float:
    """Seconds until the last byte of the answer."""
    start = time.perf_counter()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    if b"\r\ncontent-length:" in head:
        body = await reader.readexactly(
            int(head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        )
    else:
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
    seconds = time.perf_counter() - start
    assert body.count(b" word") == TOKENS, body
    return seconds


async def loop(port: int, model: str, until: float) -> list[float]:
    """One request after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = BODY % model.encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request = (
        head + b"authorization: Bearer sk-none\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
    latencies = []
    while time.perf_counter() < until:
        latencies.append(await ask(reader, writer, request))
    writer.close()
    return latencies


async def measure(port: int, model: str, seconds: float) -> tuple[float, float]:
    """The median latency alone, and requests/s of 16 loops."""
    await loop(port, model, time.perf_counter() + 0.5)
    alone = await loop(port, model, time.perf_counter() + seconds)
    start = time.perf_counter()
    many = await asyncio.gather(*(loop(port, model, start + seconds) for _ in range(16)))
    return statistics.median(alone), sum(map(len, many)) / (time.perf_counter() - start)


@dataclass
class Contender:
    """A gateway, how it is started, and what it measured."""

    name: str
    model: str
    port: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    rounds: list[tuple[float, float]] = field(default_factory=list)


def contenders(peers: Path, scratch: Path) -> Iterator[Contender]:
    """Those that are installed, Salver first."""
    contract = scratch / "contract.yaml"
    example = (ROOT / "examples/upstream-salver.yaml").read_text()
    contract.write_text(example.replace(":8000/", f":{NULL_PORT}/"))
    salver = [str(Path(sys.executable).with_name("salver")), "serve", str(contract), "--port"]
    yield Contender("Salver", "front", FIRST_PORT, [*salver, str(FIRST_PORT)])
    config = scratch / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: 'null'\n    litellm_params: {model: openai/null, api_key: none, "
        f"api_base: 'http://127.0.0.1:{NULL_PORT}/v1'}}\n"
    )
    worker = ["--worker-urls", f"http://127.0.0.1:{NULL_PORT}", "--host", "127.0.0.1", "--port"]
    known = [
        ("LiteLLM", "gw_litellm/bin/litellm", ["--config", str(config), "--port"]),
        ("vllm-router", "gw_vllmrouter/bin/vllm-router", worker),
        ("sglang-router", "gw_sglrouter/bin/sglang-router", ["launch", *worker]),
    ]
    for index, (name, program, options) in enumerate(known, start=FIRST_PORT + 1):
        if (peers / program).exists():
            command = [str(peers / program), *options, str(index)]
            if "router" in name:  # of one origin, with the same port for metrics
                command += ["--prometheus-port", str(index + 100)]
            yield Contender(name, "null", index, command, PEERS_ENVIRONMENT)


@contextmanager
def running(contender: Contender, log: Path) -> Iterator[None]:
    """Start it and wait for its first answer."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            contender.command, stdout=out, stderr=out, env={**os.environ, **contender.environment}
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                asyncio.run(loop(contender.port, contender.model, time.perf_counter() + 0.01))
                break
            except (OSError, AssertionError, asyncio.IncompleteReadError) as error:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{contender.name}: {error!r}; {log.read_text()}") from None
                time.sleep(0.25)
        yield
    finally:
        process.terminate()
        process.wait(20)


def report(direct: Contender, through: list[Contender]) -> None:
    """A table, and what Salver is over each peer."""
    null = statistics.median(each[0] for each in direct.rounds)
    print("| | p50 alone | added | requests/s at 16 |\n|---|---|---|---|")
    for each in (direct, *through):
        alone = statistics.median(seconds for seconds, _ in each.rounds)
        rate = statistics.median(rate for _, rate in each.rounds)
        print(
            f"| {each.name} | {alone * 1e3:.2f} ms | {(alone - null) * 1e3:.2f} ms | {rate:,.0f} |"
        )
    ours = through[0]
    for peer in through[1:]:
        pairs = list(zip(ours.rounds, peer.rounds, direct.rounds, strict=True))
        added = statistics.median(
            (theirs[0] - n[0]) / (mine[0] - n[0]) for mine, theirs, n in pairs
        )
        rates = statistics.median(mine[1] / theirs[1] for mine, theirs, _ in pairs)
        print(
            f"{peer.name}: adds {added:.2f} x what Salver adds; Salver has {rates:.2f} x its rate"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--peers", type=Path, default=Path("peers"))
    parser.add_argument("--null", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.null:
        uvloop.run(null_server(NULL_PORT))
        return
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        null = [sys.executable, __file__, "--null"]
        direct = Contender("directly", "null", NULL_PORT, null)
        through = list(contenders(given.peers, scratch))
        for each in (direct, *through):
            stack.enter_context(running(each, scratch / f"{each.name}.log"))
        for _ in range(given.rounds):
            for each in (direct, *through):
                each.rounds.append(uvloop.run(measure(each.port, each.model, given.seconds)))
        report(direct, through)


if __name__ == "__main__":
    main()
