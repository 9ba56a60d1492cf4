"""A lean HTTP/1.1 client: bytes out, a status and body bytes back, each with the instant it came.

Written because a load generator on the machine that it measures must cost next to nothing; the
figures for libraries beside it are in docs/bench.md. One call at a time per connection, connections
kept alive between calls.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

Clock = Callable[[], float]

MAX_IDLE_SECONDS = 2.0  # less than any server keeps one, so that none is used as it closes


class Listener(Protocol):
    """Who waits for an answer. Instants are on the pool's clock."""

    def on_status(self, status: int, now: float) -> None: ...

    def on_body(self, data: bytes, now: float) -> None: ...

    def on_end(self, now: float) -> None: ...

    def on_lost(self, reason: str, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is; `tls` is None for plain HTTP. Of several hosts the first that can be
    connected to is taken, as a name may stand for addresses at which nobody listens."""

    hosts: tuple[str, ...]
    port: int
    tls: ssl.SSLContext | None = None


class Connection(asyncio.Protocol):
    """One socket. Created by a `Pool`."""

    def __init__(self, pool: "Pool", clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self.listener: Listener | None = None
        self._now = 0.0
        self.idle_since = 0.0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, listener: Listener) -> None:
        """Write a whole request; the listener hears of its answer until its end or loss."""
        self.listener = listener
        self._transport.write(request)

    def abort(self) -> None:
        """Hang up; nobody hears of it."""
        self.listener = None
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._now = self._clock()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"not HTTP: {error}")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._now = self._clock()
        self._lose(str(exc) if exc else "the server closed the connection")

    def on_headers_complete(self) -> None:
        if self.listener:
            self.listener.on_status(self._parser.get_status_code(), self._now)

    def on_body(self, data: bytes) -> None:
        if self.listener:
            self.listener.on_body(data, self._now)

    def on_message_complete(self) -> None:
        listener, self.listener = self.listener, None
        if not self._parser.should_keep_alive():
            self.closed = True
            self._transport.close()
        self._pool.give_back(self)
        if listener:
            listener.on_end(self._now)

    def _lose(self, reason: str) -> None:
        listener, self.listener = self.listener, None
        if listener:
            listener.on_lost(reason, self._now)


class Pool:
    """Connections to one server, as many as are needed at once."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self.now = clock
        self._address = address
        self._hosts = list(address.hosts)  # the one that was connected to last is the first
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        """An idle connection, or a new one. Raises OSError."""
        while self._idle:
            connection = self._idle.pop()
            fresh = self.now() - connection.idle_since < MAX_IDLE_SECONDS
            if fresh and not connection.closed:
                return connection
            connection.abort()
        return await self.connect()

    async def connect(self) -> Connection:
        """A new connection. Raises OSError."""
        for host in self._hosts[:-1]:
            try:
                connection = await self._connected(host)
            except OSError:
                continue
            self._hosts.sort(key=host.__ne__)
            return connection
        return await self._connected(self._hosts[-1])

    async def _connected(self, host: str) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self, self.now), host, self._address.port, ssl=self._address.tls
        )
        return connection

    def give_back(self, connection: Connection) -> None:
        if not connection.closed:
            connection.idle_since = self.now()
            self._idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
