"""Salver over HTTP: `salver serve` as a child, and a load generator that costs next to nothing.

Events are counted, not parsed: a stream's n-th event stands for its n-th token. A token that ends
inside a character has no text and therefore no event; it is put at the end of its stream, where it
cannot raise a rate.
"""

import asyncio
import json
import subprocess
import sys
from functools import partial
from urllib.parse import urlsplit

from protocol import Engine, OnToken, Settings, serve

EVENT = b"data: {"
END = b"data: [DONE]"
SILENT = -1  # in the place of a token that had no event


class Stream(asyncio.Protocol):
    """One request on a connection of its own: `ended` is set when its last event has come."""

    def __init__(self, request: bytes, index: int, on_token: OnToken) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.events = 0
        self._request = request
        self._index = index
        self._on_token = on_token
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        whole, _, self._tail = (self._tail + data).rpartition(b"\n\n")
        for _ in range(whole.count(EVENT)):
            self.events += 1
            self._on_token(self._index, self.events)
        if END in whole and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError("the server closed a stream early"))


class Salver:
    """Settings: the contract that `options` names, served as `salver serve` serves it."""

    def __init__(self, settings: Settings) -> None:
        command = [sys.executable, "-m", "salver.cli", "serve", settings.options["contract"]]
        self._server = subprocess.Popen(
            [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None
        ready = json.loads(self._server.stdout.readline())
        self._address = urlsplit(ready["url"])
        self._model = ready["model"]
        self.facts: dict[str, str | int] = {"version": ready["release"], "settings": "HTTP, SSE"}

    def generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        asyncio.run(self._generate(prompts, max_tokens, on_token))

    async def _generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        loop = asyncio.get_running_loop()
        streams = [
            Stream(self._request(prompt, max_tokens), index, on_token)
            for index, prompt in enumerate(prompts)
        ]
        where = self._address.hostname, self._address.port
        for stream in streams:
            await loop.create_connection(partial(_itself, stream), *where)
        await asyncio.gather(*(stream.ended for stream in streams))
        for index, stream in enumerate(streams):
            for _ in range(stream.events, max_tokens):
                on_token(index, SILENT)

    def _request(self, prompt: list[int], max_tokens: int) -> bytes:
        body = json.dumps(
            {
                "model": self._model,
                "prompt": prompt,
                "max_tokens": max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
        ).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


def _itself(stream: Stream) -> Stream:
    return stream


def open_engine(settings: Settings) -> Engine:
    return Salver(settings)


if __name__ == "__main__":
    serve(open_engine)
