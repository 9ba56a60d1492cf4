"""Requests that a worker is computing, and who waits for their chunks.

Nothing here does I/O: reports go in, chunks come out, and the bookkeeping is plain data. A stream
is kept until the worker has ended every choice, even when its client left long before. Its id can
therefore not be taken again while chunks of the old request may still be on their way.
"""

import asyncio

from salver.contract import GenerateRequest, TokenChunk
from salver.errors import BackendLost, InvalidValue, MalformedFrame, Refused, SalverError
from salver.worker.error_report import revive
from salver.worker.frames import Refusal, Rejected, StepFrame


class Stream:
    """The chunks of one request, in order, from the connection to one waiting generator.

    Bounded by construction: the engine makes at most `n * (max_tokens + 1)` chunks of a request, and
    the envelope bounds both factors. A client that reads slowly therefore cannot stall the others.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self.request_id = request.id
        self.undelivered = request.n  # choices whose Finish was not yet read by the generator
        self.uncomputed = request.n  # choices whose Finish has not yet come from the worker
        self._abandoned = False
        self._arrived: asyncio.Queue[TokenChunk | SalverError] = asyncio.Queue()

    def put(self, chunk: TokenChunk) -> None:
        self.uncomputed -= chunk.finish is not None
        if not self._abandoned:
            self._arrived.put_nowait(chunk)

    def fail(self, error: SalverError) -> None:
        """End the stream; chunks that came before are still delivered."""
        self.uncomputed = 0
        self._arrived.put_nowait(error)

    def abandon(self) -> None:
        """Nobody reads any more: what still comes is counted and dropped."""
        self._abandoned = True

    async def next(self) -> TokenChunk:
        """The next chunk; raises what the stream failed with."""
        item = await self._arrived.get()
        if isinstance(item, SalverError):
            raise item
        self.undelivered -= item.finish is not None
        return item

    def __repr__(self) -> str:
        state = "abandoned, " if self._abandoned else ""
        return f"<Stream {self.request_id} {state}{self.uncomputed} choices to come>"


class Streams:
    """Every stream of one connection, by request id."""

    def __init__(self) -> None:
        self._by_id: dict[str, Stream] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, request: GenerateRequest) -> Stream:
        """Expect this request's chunks.

        Raises:
            InvalidValue: a request of this id is still in flight.
        """
        if request.id in self._by_id:
            raise InvalidValue(
                f"a request with the id {request.id!r} is still in flight",
                param="id",
                rule="request.id",
                value=request.id,
                fix="give every request its own id",
            )
        stream = self._by_id[request.id] = Stream(request)
        return stream

    def deliver(self, report: StepFrame | Refusal | Rejected) -> None:
        """Hand a report's contents to the streams they belong to.

        Raises:
            MalformedFrame: it speaks of a request that is not in flight.
        """
        match report:
            case StepFrame(chunks=chunks):
                for chunk in chunks:
                    self._deliver_chunk(chunk)
            case Refusal(request_id=request_id, decision=decision):
                self._end(request_id, Refused(decision))
            case Rejected(request_id=request_id, error=error):
                self._end(request_id, revive(error))

    def fail_all(self, problem: str) -> None:
        """The worker is gone: every stream ends with BackendLost."""
        for request_id in list(self._by_id):
            self._end(request_id, BackendLost(problem, rule="worker.alive"))

    def _deliver_chunk(self, chunk: TokenChunk) -> None:
        stream = self._stream(chunk.request_id)
        stream.put(chunk)
        if not stream.uncomputed:
            del self._by_id[chunk.request_id]

    def _end(self, request_id: str, error: SalverError) -> None:
        self._stream(request_id).fail(error)
        del self._by_id[request_id]

    def _stream(self, request_id: str) -> Stream:
        if request_id not in self._by_id:
            raise MalformedFrame(
                f"a report on {request_id!r}, which is not in flight", rule="worker.frame"
            )
        return self._by_id[request_id]
