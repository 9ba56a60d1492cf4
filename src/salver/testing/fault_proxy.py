"""A TCP proxy that breaks what passes through it, as networks and dying servers do.

It stands between a client and a server on real sockets. The fault is read anew by each connection;
`after_bytes` of the server's answer pass before it strikes.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

PIECE = 64 * 1024


class FaultKind(StrEnum):
    """What happens to a connection."""

    NONE = "none"
    DELAY = "delay"  # every piece of the answer comes `seconds` late
    DROP = "drop"  # the connection is closed in order, in the middle of the answer
    RESET = "reset"  # it is torn down
    SERVER_ERROR = "server_error"  # 503 in place of the answer
    HANG = "hang"  # nothing more comes, and the connection stays


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `seconds` is for DELAY."""

    kind: FaultKind = FaultKind.NONE
    after_bytes: int = 0
    seconds: float = 0.0


class FaultProxy:
    """Forwards to `port` on loopback, with the present `fault`.

    `connections` counts those that were made, `open` those that are.
    """

    def __init__(self, port: int) -> None:
        self.fault = Fault()
        self.connections = 0
        self.open = 0
        self.port = 0  # where it listens, once it runs
        self._server_port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        """Listen on a free port of loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass(reader, writer))
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            asking = asyncio.create_task(_forward(reader, back))
            answering = asyncio.create_task(self._answer(there, writer))
            try:
                await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asking.cancel()
                answering.cancel()
                await asyncio.gather(asking, answering, return_exceptions=True)
        finally:
            back.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(PIECE):
            fault = self.fault
            allowed = max(0, fault.after_bytes - passed)
            if fault.kind is FaultKind.DELAY:
                await asyncio.sleep(fault.seconds)
            elif fault.kind is not FaultKind.NONE and len(data) > allowed:
                writer.write(data[:allowed])
                await writer.drain()
                await _strike(fault.kind, writer)
                return
            passed += len(data)
            writer.write(data)
            await writer.drain()


async def _strike(kind: FaultKind, writer: asyncio.StreamWriter) -> None:
    if kind is FaultKind.SERVER_ERROR:
        writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
    if kind is FaultKind.HANG:
        await asyncio.get_running_loop().create_future()
    if kind is FaultKind.RESET:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
