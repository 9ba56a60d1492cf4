"""Server-sent events, as OpenAI's clients read them.

The status line is held back until the first event is known: until then an error keeps its own
status code. After it, an error is an event, and the stream ends without `[DONE]`, by which a
client tells a broken answer from a finished one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from salver.errors import SalverError
from salver.gateway.arrival import Arrival
from salver.gateway.errors import Refusal, Refusals, internal_error

DONE = b"data: [DONE]\n\n"

Write = Callable[[bytes], Awaitable[None]]

logger = logging.getLogger("salver.gateway")


class EventStream(Response):
    """A response whose events `produce` writes; each write is one or more whole events."""

    media_type = "text/event-stream"

    def __init__(
        self,
        produce: Callable[[Write], Awaitable[None]],
        *,
        arrival: Arrival,
        refusals: Refusals,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._produce = produce
        self._arrival = arrival
        self._refusals = refusals
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = _Writer(self, send)
        try:
            await self._produce(writer.write)
            last = DONE
        except Exception as error:
            if not writer.started:
                raise
            last = self._event_of(error)
        await writer.end(last)

    def _event_of(self, error: Exception) -> bytes:
        request_id, tenant = self._arrival.request_id, self._arrival.caller.tenant
        if isinstance(error, SalverError):
            return error_event(self._refusals.of(error, request_id, tenant))
        logger.exception("request %s failed while streaming", request_id, exc_info=error)
        return error_event(internal_error(request_id))


class _Writer:
    """Sends the head with the first write. Writers of one stream take turns."""

    def __init__(self, response: EventStream, send: Send) -> None:
        self.started = False
        self._response = response
        self._send = send
        self._turn = asyncio.Lock()

    async def write(self, events: bytes) -> None:
        if events:
            await self._put(events, more=True)

    async def end(self, events: bytes) -> None:
        """The last ones, and the end of the answer with them."""
        await self._put(events, more=False)

    async def _put(self, events: bytes, *, more: bool) -> None:
        async with self._turn:
            if not self.started:
                self.started = True
                head = {"status": 200, "headers": self._response.raw_headers}
                await self._send({"type": "http.response.start", **head})
            await self._send({"type": "http.response.body", "body": events, "more_body": more})


def error_event(refusal: Refusal) -> bytes:
    """An error in the middle of a stream."""
    return b"data: " + refusal.body() + b"\n\n"
