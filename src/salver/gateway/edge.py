"""The door: every HTTP call passes here once, in and out.

The client's connection is the scope of the work. A call runs as one task beside a watcher of the
connection; when the client goes, the task is cancelled, and with it whatever it awaits, down to
the backend's generator. So disconnects are handled in this one place, for streamed and plain
answers alike, and no endpoint polls for them.

A client that is there and does not read holds its call no longer than its deadline, and a little for
the error to be written: then its connection is closed with what is in it.

The body is read to its end before the work starts. That bounds what a call can hold, and leaves
`http.disconnect` as the only message the connection can still bring.

Calls for inference have places, so many at once, which only a caller who may come in can take. All
other paths are answered whatever the load, for probes and scrapes have to know, and their bodies are
not read: what costs no place must not be able to hold anything.
"""

import asyncio
import logging
from collections.abc import MutableMapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from salver.clock import Clock
from salver.contract import Action, Cause, Decision
from salver.contract import Scope as KeyScope
from salver.errors import Refused, SalverError
from salver.flow import retry_after
from salver.gateway.arrival import Arrival, check_headers, class_of, is_request_id, timeout_of
from salver.gateway.body import ClientGone, discard_body, read_body
from salver.gateway.calls import DEADLINE_GRACE_SECONDS
from salver.gateway.errors import Refusal, Refusals, internal_error
from salver.gateway.ids import Ids
from salver.gateway.service import Limits
from salver.gateway.tenancy import Door, scope_of

HANG_UP = "salver.hang_up"  # the ASGI extension that aborts the connection
LAST_WRITES_SECONDS = (
    2 * DEADLINE_GRACE_SECONDS
)  # after the deadline: the end is known, and written

logger = logging.getLogger("salver.gateway")


class Edge:
    """ASGI middleware: request ids, bounded bodies, disconnects, and the answer to a bug."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        release: str,
        door: Door,
        limits: Limits,
        clock: Clock,
        ids: Ids,
        refusals: Refusals,
    ) -> None:
        self._app = app
        self._release = release
        self._door = door
        self._limits = limits
        self._clock = clock
        self._ids = ids
        self._refusals = refusals
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if is_request_id(given) else self._ids.call("req")
        reply = _Reply(send, request_id, self._release)
        try:
            await self._serve(scope, headers, receive, reply)
        except ClientGone:
            logger.debug("client of %s went away", request_id)
            await _hang_up(scope)
        except Exception:
            logger.exception("request %s failed unexpectedly", request_id)
            if not reply.started:
                await _answer(internal_error(request_id), scope, receive, reply)

    async def _serve(
        self, scope: Scope, headers: Headers, receive: Receive, reply: "_Reply"
    ) -> None:
        """Check who calls, and have the answer made; what the work refuses, its app has answered."""
        tenant = ""
        try:
            arrival = await self._admit(scope["path"], headers, reply)
            tenant = arrival.caller.tenant
            scope.setdefault("state", {})["arrival"] = arrival
            if scope_of(scope["path"]) is KeyScope.INFERENCE:
                await self._in_a_place(scope, headers, receive, reply)
            else:
                await self._work(scope, b"", receive, reply)
        except SalverError as error:
            refusal = self._refusals.of(error, reply.request_id, tenant)
            await discard_body(headers, receive)
            await _answer(refusal, scope, receive, reply, closing=True)

    async def _admit(self, path: str, headers: Headers, reply: "_Reply") -> Arrival:
        now = self._clock.now()
        check_headers(headers)
        timeout = timeout_of(headers, self._limits.default_timeout_seconds)
        caller = await self._door.admit(path, headers)
        traffic_class = class_of(headers, caller.traffic_class)
        return Arrival(reply.request_id, now, now + timeout, caller, traffic_class, reply.told)

    async def _in_a_place(
        self, scope: Scope, headers: Headers, receive: Receive, reply: "_Reply"
    ) -> None:
        """Raises Refused where all places are taken, and what reading the body does."""
        if self._in_flight >= self._limits.max_in_flight:
            raise Refused(self._crowded())
        self._in_flight += 1
        try:
            body = await read_body(headers, receive, self._limits.max_body_bytes)
            await self._work(scope, body, receive, reply)
        finally:
            self._in_flight -= 1

    def _crowded(self) -> Decision:
        return Decision(
            id=self._ids.call("dec"),
            rule="gateway.max_in_flight",
            value=self._in_flight + 1,
            limit=self._limits.max_in_flight,
            action=Action.REFUSE,
            cause=Cause.CALLER,
            reason="too many calls are in flight",
            retry_after=retry_after(0.0, self._ids.chance),
        )

    async def _work(self, scope: Scope, body: bytes, receive: Receive, reply: "_Reply") -> None:
        work = asyncio.create_task(self._run(scope, body, reply))
        left = scope["state"]["arrival"].deadline - self._clock.now()
        await _while_connected(work, receive, reply, max(0.0, left) + LAST_WRITES_SECONDS)

    async def _run(self, scope: Scope, body: bytes, reply: "_Reply") -> None:
        await self._app(scope, _replay(body), reply)


class _Reply:
    """`send`, with the headers that every answer carries and those that were `told` meanwhile."""

    def __init__(self, send: Send, request_id: str, release: str) -> None:
        self.request_id = request_id
        self.told: dict[str, str] = {}
        self.started = False
        self.complete = False
        self._send = send
        self._headers = [
            (b"x-request-id", request_id.encode("latin-1")),
            (b"x-salver-release", release.encode("latin-1", "replace")),
        ]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            told = [(name.encode(), value.encode()) for name, value in self.told.items()]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers, *told]}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)


async def _while_connected(
    work: "asyncio.Task[None]", receive: Receive, reply: _Reply, patience: float
) -> None:
    """Run `work` to its end, or cancel it as soon as the client is gone.

    After `patience` seconds an answer that has begun and has no end waits for its reader only, who is as
    good as gone. One that has not begun is late by our doing, and goes on.

    A connection also reads as closed once the answer is complete; work then only has to tidy up
    and is left to do so.
    """
    gone = asyncio.create_task(_disconnected(receive))
    try:
        either, how = (work, gone), asyncio.FIRST_COMPLETED
        while not (await asyncio.wait(either, timeout=patience, return_when=how))[0]:
            if reply.started:
                raise ClientGone
            patience = LAST_WRITES_SECONDS
        if not work.done() and reply.complete:
            await asyncio.wait((work,))
        if not work.done():
            raise ClientGone
        work.result()
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hang_up(scope: Scope) -> None:
    """Close the connection, where it is open, without waiting for what its client has not read."""
    abort = scope.get("extensions", {}).get(HANG_UP)
    if abort is not None:
        abort()
        await asyncio.sleep(0)  # for the server to hear of it before the call returns


def _replay(body: bytes) -> Receive:
    """A `receive` that gives the body once and then waits: the edge watches the connection."""
    messages: list[MutableMapping[str, object]] = [
        {"type": "http.request", "body": body, "more_body": False}
    ]

    async def receive() -> Message:
        if not messages:
            await asyncio.get_running_loop().create_future()
        return messages.pop()

    return receive


async def _answer(
    refusal: Refusal, scope: Scope, receive: Receive, reply: _Reply, *, closing: bool = False
) -> None:
    """Send a refusal; `closing` where a part of the body may be unread."""
    response = refusal.response()
    if closing:
        response.headers["connection"] = "close"
    await response(scope, receive, reply)
