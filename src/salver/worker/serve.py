"""The worker's side of the socket: one thread reads commands, one steps the engine and reports.

Both block, which makes every wait explicit. The engine's thread sleeps in the inbox while it has
no work, and in `sendall` while the gateway does not read: the socket's send buffer, kept small by
the supervisor, is the only queue of step frames, so a gateway that stalls stalls the engine
instead of filling memory. The rejected alternative, an event loop beside the engine's thread, needs
a queue, a wake-up and a bound of its own for each direction.

The reader never waits for the engine, so a closed socket is noticed even in the middle of a step.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from salver.clock import Clock
from salver.engine.core import EngineCore
from salver.errors import Refused, RequestError
from salver.worker.error_report import describe
from salver.worker.frames import (
    MAX_REPORT_BYTES,
    Cancel,
    Command,
    Fatal,
    ModelFacts,
    Ready,
    Refusal,
    Rejected,
    Report,
    StepFrame,
    command_reader,
    encode,
)
from salver.worker.inbox import Inbox

RECEIVE_BYTES = 65536
LAST_STEP_SECONDS = 3.0  # how long a closing worker waits for the step that is under way


class GatewayGone(Exception):
    """The socket is closed: there is nobody left to work for."""


def serve(
    connection: socket.socket,
    open_engine: Callable[[], tuple[EngineCore, ModelFacts]],
    clock: Clock,
) -> bool:
    """Open an engine and run it until the socket closes. Call from the main thread.

    Returns:
        False when the engine failed, or did not come back from its last step.

    Raises:
        MalformedFrame: what arrived is not a command. The socket is closed.
    """
    inbox = Inbox()
    engine = EngineThread(connection, inbox, open_engine, clock)
    engine.start()
    try:
        _read_commands(connection, inbox)
    finally:
        inbox.close()
        hang_up(connection)
        engine.join(LAST_STEP_SECONDS)
    return engine.ended_well


def hang_up(connection: socket.socket) -> None:
    """End the conversation in both directions; wakes every thread that waits on the socket."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _read_commands(connection: socket.socket, inbox: Inbox) -> None:
    reader = command_reader()
    while data := _receive(connection):
        for command in reader.feed(data):
            inbox.put(command)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(RECEIVE_BYTES)
    except ConnectionError:
        return b""


class EngineThread(threading.Thread):
    """Owns the engine: opens it, steps it, and alone writes to the socket."""

    def __init__(
        self,
        connection: socket.socket,
        inbox: Inbox,
        open_engine: Callable[[], tuple[EngineCore, ModelFacts]],
        clock: Clock,
    ) -> None:
        super().__init__(name="engine", daemon=True)  # a wedged step must not keep the process
        self.ended_well = False
        self._connection = connection
        self._inbox = inbox
        self._open_engine = open_engine
        self._clock = clock

    def run(self) -> None:
        try:
            core = self._open()
            self._step_until_closed(core)
            self.ended_well = True
        except GatewayGone:
            self.ended_well = True
        except Exception as error:
            self._say_last_words(error)
            raise
        finally:
            hang_up(self._connection)

    def _open(self) -> EngineCore:
        started = self._clock.now()
        core, model = self._open_engine()
        ready = Ready(
            pid=os.getpid(),
            model=model,
            block_size=core.runner.block_size,
            num_blocks=core.runner.num_blocks,
            resident_bytes=psutil.Process().memory_info().rss,
            load_seconds=self._clock.now() - started,
        )
        self._send(ready)
        return core

    def _step_until_closed(self, core: EngineCore) -> None:
        while (commands := self._inbox.take(wait=not core.has_work)) is not None:
            for command in commands:
                self._obey(core, command)
            if core.has_work:
                chunks = core.step()
                self._send(StepFrame(tuple(chunks), core.load()))
                self._tell_shed(core)

    def _obey(self, core: EngineCore, command: Command) -> None:
        if isinstance(command, Cancel):
            core.cancel(command.request_id)
            return
        request = command.request
        try:
            core.add(request)
        except Refused as error:
            self._send(Refusal(request.id, error.decision))
        except RequestError as error:
            self._send(Rejected(request.id, describe(error)))
        self._tell_shed(core)

    def _tell_shed(self, core: EngineCore) -> None:
        for request_id, decision in core.take_shed():
            self._send(Refusal(request_id, decision))

    def _send(self, report: Report) -> None:
        frame = encode(report, MAX_REPORT_BYTES)
        try:
            self._connection.sendall(frame)
        except OSError as error:
            raise GatewayGone from error

    def _say_last_words(self, error: Exception) -> None:
        with suppress(GatewayGone):
            self._send(Fatal(describe(error)))
