"""A server that only waits: PORT. Its first token comes after 50 ms, each later one 6.5 ms after.

What it tells a load generator is known beforehand and costs next to nothing, so that what a tool
says beyond it is the tool's own. `/metrics` has the names of `salver serve`, with the instants at
which it wrote; `busy_seconds` and `own_seconds` are the processor time of the whole machine and of
this server from the first request since they were last read to the last token: the rest is the
client's.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

FIRST_SECONDS, GAP_SECONDS = 0.05, 0.0065
_TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Processor time that the machine has spent on anything, since it started."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / _TICKS


@dataclass
class Counters:
    """What `/metrics` tells, by its names there."""

    time_to_first_token_seconds_sum: float = 0.0
    time_to_first_token_seconds_count: int = 0
    inter_token_latency_seconds_sum: float = 0.0
    inter_token_latency_seconds_count: int = 0
    generation_tokens_total: int = 0
    busy_seconds: float = 0.0
    own_seconds: float = 0.0
    span_seconds: float = 0.0


class Server:
    """Answers completions with words, on time."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._began: tuple[float, float, float] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await self._answer(line, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        arrived, length = time.perf_counter(), 0
        while header := (await reader.readline()).strip().lower():
            if header.startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        body = await reader.readexactly(length)
        if b"POST" in line:
            await self._stream(json.loads(body), arrived, writer)
        elif b"/metrics" in line:
            _whole(writer, "".join(f"vllm:{k} {v}\n" for k, v in vars(self._counters).items()))
            self._began = None
        else:
            _whole(writer, json.dumps({"object": "list", "data": [{"id": "smollm2"}]}))

    async def _stream(
        self, body: dict[str, object], arrived: float, writer: asyncio.StreamWriter
    ) -> None:
        tokens, counters = int(str(body["max_tokens"])), self._counters
        self._began = self._began or (busy_seconds(), time.process_time(), arrived)
        kind = b"text/event-stream" if body.get("stream") else b"application/json"
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
        )
        due, before = arrived + FIRST_SECONDS, arrived
        for number in range(tokens):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            _chunk(writer, [{"index": 0, "text": " word", "finish_reason": None}])
            now = time.perf_counter()
            if number:
                counters.inter_token_latency_seconds_sum += now - before
                counters.inter_token_latency_seconds_count += 1
            else:
                counters.time_to_first_token_seconds_sum += now - arrived
                counters.time_to_first_token_seconds_count += 1
            before, due = now, due + GAP_SECONDS
        usage = {"prompt_tokens": 128, "completion_tokens": tokens, "total_tokens": 128 + tokens}
        _chunk(writer, [{"index": 0, "text": "", "finish_reason": "length"}])
        _chunk(writer, [], usage)
        _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        counters.generation_tokens_total += tokens
        self._note_span()

    def _note_span(self) -> None:
        if self._began:
            busy, own, began = self._began
            self._counters.busy_seconds = busy_seconds() - busy
            self._counters.own_seconds = time.process_time() - own
            self._counters.span_seconds = time.perf_counter() - began


def _whole(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data))


def _chunk(
    writer: asyncio.StreamWriter, choices: list[object], usage: dict[str, int] | None = None
) -> None:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": "smollm2"}
    _event(writer, json.dumps({**head, "choices": choices, "usage": usage}))


def _event(writer: asyncio.StreamWriter, text: str) -> None:
    data = f"data: {text}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def main(port: str) -> None:
    server = await asyncio.start_server(Server().serve, "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
