"""The gateway on a socket: listen, serve until told to stop, drain."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from salver.errors import CannotListen
from salver.gateway.edge import HANG_UP

MAX_HEAD_BYTES = 64 * 1024  # of a request line and its headers
KEEP_ALIVE_SECONDS = 65  # longer than clients keep idle connections, so that none reuses a dead one
DRAIN_SECONDS = 30.0


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one, which `getsockname` tells.

    Raises:
        CannotListen: the system refuses the address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host}:{port}: {error.strerror}",
            rule="server.address",
            value=f"{host}:{port}",
            fix="choose another port, or stop what holds this one",
        ) from error
    listener.setblocking(False)
    return listener


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    drain_seconds: float = DRAIN_SECONDS,
    stop: asyncio.Event | None = None,
    handle_signals: bool = True,
) -> signal.Signals | None:
    """Serve until SIGTERM, SIGINT or `stop`; returns the signal, if one it was.

    Draining takes no new connections and lets calls in flight end for `drain_seconds`, then cancels
    them. A second signal cancels them at once. Takes ownership of `listener` and closes it.
    """
    config = uvicorn.Config(
        app,
        http=_BoundedHead,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    server = _Server(config)
    watcher = asyncio.create_task(_stop_on(stop, server)) if stop is not None else None
    try:
        if not handle_signals:
            await server.serve(sockets=[listener])
            return None
        with _signals(server) as received:
            await server.serve(sockets=[listener])
        return received[0] if received else None
    finally:
        if watcher is not None:
            watcher.cancel()
        listener.close()


async def _stop_on(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which ends the process by the signal's default."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _signals(server: uvicorn.Server) -> Iterator[list[signal.Signals]]:
    """Let the first signal drain the server and the second one end it; yields those received."""
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def note(number: signal.Signals) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, note, number)
    try:
        yield received
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class _BoundedHead(HttpToolsProtocol):
    """Refuses a request line and headers that go on and on, which the parser would keep.

    Tells each call how to hang up on its client.
    """

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        too_large = self._in_head and self._head_bytes > MAX_HEAD_BYTES
        if too_large and not self.transport.is_closing():
            self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UP: self.transport.abort}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()
