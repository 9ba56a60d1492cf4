"""The gateway's side of the socket to one worker process, from its start to its end."""

import asyncio
from contextlib import suppress

from salver.contract import GenerateRequest, LoadSnapshot
from salver.errors import BackendUnavailable, InvalidValue, MalformedFrame
from salver.worker.frames import (
    MAX_COMMAND_BYTES,
    Cancel,
    ErrorReport,
    Fatal,
    Generate,
    Ready,
    Refusal,
    Rejected,
    Report,
    StepFrame,
    encode,
    report_reader,
)
from salver.worker.streams import Stream, Streams

RECEIVE_BYTES = 65536


class Connection:
    """Sends commands, and reads reports into the streams that wait for them.

    Whoever owns it runs `read` and, once that has returned, calls `lose` with what became of the
    process.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.fatal: ErrorReport | None = None
        self.malformed: MalformedFrame | None = None
        self.load = LoadSnapshot()
        self.num_reports = 0
        self._reader = reader
        self._writer = writer
        self._streams = Streams()
        self._open = True

    @property
    def in_flight(self) -> int:
        """Requests whose end has not come from the worker."""
        return len(self._streams)

    async def read(self) -> None:
        """Deliver reports until the worker closes the socket or sends what is not a report.

        Sets `malformed` in the second case. The connection takes no request afterwards.
        """
        reports = report_reader()
        try:
            while data := await self._receive():
                for report in reports.feed(data):
                    self._take(report)
        except MalformedFrame as error:
            self.malformed = error
        finally:
            self.hang_up()

    def generate(self, request: GenerateRequest) -> Stream:
        """Send a request; `finish` must be called with the stream of its answer.

        Raises:
            BackendUnavailable: the worker has gone.
            InvalidValue: the id is taken, or the request holds what no frame can carry.
        """
        if not self._open:
            raise BackendUnavailable("the worker has just gone", rule="worker.alive")
        try:
            frame = encode(Generate(request), MAX_COMMAND_BYTES)
        except MalformedFrame as error:
            raise InvalidValue(error.problem, rule=error.rule, fix="shorten or mend it") from error
        stream = self._streams.open(request)
        self._writer.write(frame)
        return stream

    async def drain(self) -> None:
        """Wait while the worker takes no more commands."""
        with suppress(ConnectionError):  # the stream itself tells of the loss
            await self._writer.drain()

    def finish(self, stream: Stream) -> None:
        """Nobody reads this stream any more; cancels what is not computed yet."""
        stream.abandon()
        if stream.uncomputed and self._open:
            self._writer.write(encode(Cancel(stream.request_id), MAX_COMMAND_BYTES))

    def hang_up(self) -> None:
        """Close the socket, which tells the worker to end. What was not sent yet never will be."""
        self._open = False
        self._writer.transport.abort()

    def lose(self, problem: str) -> None:
        """Fail every stream with BackendLost, saying what happened to the worker."""
        self._streams.fail_all(problem)

    async def _receive(self) -> bytes:
        try:
            return await self._reader.read(RECEIVE_BYTES)
        except ConnectionError:
            return b""

    def _take(self, report: Report) -> None:
        self.num_reports += 1
        match report:
            case Ready() if self.ready.done():
                raise MalformedFrame("a worker became ready twice", rule="worker.frame")
            case Ready():
                self.load = LoadSnapshot(latency=report.model.latency)
                self.ready.set_result(report)
            case Fatal(error=error):
                self.fatal = error
            case StepFrame(load=load):
                self.load = load
                self._streams.deliver(report)
            case Refusal() | Rejected():
                self._streams.deliver(report)

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return f"<Connection {state}, {self.in_flight} in flight, {self.num_reports} reports>"
