"""One OpenAI-compatible server as a `contract.Backend`, without policy: a call succeeds or tells why.

The call's deadline goes out as `Request-Timeout-Ms`, and is kept here as well: at the deadline, or
when the caller closes the generator, the connection is closed, by which every server that watches
its clients stops the work. One timer per call does it, so that a chunk costs no timer.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum

import aiohttp

from salver.clock import Clock
from salver.contract import GenerateRequest, LoadSnapshot, TokenChunk
from salver.errors import BackendLost, BackendUnavailable
from salver.upstream.address import Address
from salver.upstream.answer import Answer, EventLines
from salver.upstream.asking import body_of
from salver.upstream.ending import NotRead
from salver.upstream.facts import Facts, facts_in
from salver.upstream.refusing import expired, hangs, refusal_of
from salver.upstream.silence import Silence

KEEP_ALIVE_SECONDS = 4.0  # servers on uvicorn close an idle connection after 5
END_SECONDS = 0.2  # for a connection to be used again after an answer that is whole
MAX_ERROR_BYTES = 64 * 1024
MAX_METRICS_BYTES = 4 * 2**20
_LOST = (aiohttp.ClientError, OSError)


class Why(StrEnum):
    """Why a call was ended from this side."""

    DEADLINE = "deadline"
    SILENCE = "silence"
    NOT_READ = "not_read"


class UpstreamServer:
    """Asks one server. Open from `start` to `close`; `facts` are as of the last look at its metrics."""

    def __init__(self, address: Address, clock: Clock, *, connect_within: float) -> None:
        self.address = address
        self.facts = Facts()
        self.silence = Silence(clock)
        self._clock = clock
        self._connect_within = connect_within
        self._session: aiohttp.ClientSession | None = None
        self._calls: set[_Call] = set()

    @property
    def name(self) -> str:
        return self.address.name

    @property
    def ready(self) -> bool:
        return self._session is not None

    async def start(self) -> None:
        """Open the pool of connections, unless it is open; none is made yet."""
        if self._session is not None:
            return
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_within)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=self.address.headers
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def load(self) -> LoadSnapshot:
        """As its metrics last told."""
        facts = self.facts
        return LoadSnapshot(requests_waiting=facts.waiting, requests_running=facts.running)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        """See `contract.Backend.generate`.

        Raises:
            RequestError: the server refuses the request as it is.
            Refused: it is busy, or the deadline passed.
            BackendUnavailable: it cannot be reached or failed, or its stream broke before the first
                chunk.
            BackendLost: the stream broke after it, or its caller did not read on.
        """
        body = body_of(request, self.address, salted=self.facts.salts_caches)
        answer, lines, begun = Answer(request, self._clock), EventLines(), False
        with self._calling(request) as call:
            try:
                response = await self._post(call, request, body)
                async for data in response.content.iter_any():
                    call.hear()
                    for chunk in answer.chunks(*lines.feed(data)):
                        begun = True
                        call.deliver()
                        yield chunk
                        if not answer.over:
                            call.read_on()
                    if answer.over:
                        await _read_out(response)
                        return
            except _LOST as error:
                raise self._lost(call, request, error, begun=begun) from error
            except BackendLost as error:
                if begun:
                    raise
                raise _not_begun(error) from error
            raise self._lost(call, request, EOFError("it ended early"), begun=begun)

    async def look(self) -> None:
        """Read its metrics; a server without any keeps the facts it has."""
        if self._session is None:
            return
        try:
            async with asyncio.timeout(self._connect_within):
                async with self._session.get(self.address.metrics_url) as response:
                    text = await _at_most(MAX_METRICS_BYTES, response)
                    if response.status == 200:
                        self.facts = facts_in(text.decode("utf-8", "replace"))
        except (*_LOST, TimeoutError):
            return

    def end_if_silent(self, seconds: float) -> None:
        """End the calls that await bytes if for so long none came on any connection."""
        if sum(call.has_news() for call in self._calls):
            self.silence.heard()
        if self.silence.stretch >= seconds:
            for call in tuple(self._calls):
                if call.awaits:
                    call.end(Why.SILENCE)

    def give_up(self, request: GenerateRequest) -> None:
        """Close the connection of a request whose caller does not read its answer."""
        for call in tuple(self._calls):
            if call.request is request:
                call.end(Why.NOT_READ)

    @contextmanager
    def _calling(self, request: GenerateRequest) -> "Iterator[_Call]":
        left = None if request.deadline is None else request.deadline - self._clock.now()
        call = _Call(request, left, self.silence)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)
            call.close()

    async def _post(
        self, call: "_Call", request: GenerateRequest, body: bytes
    ) -> aiohttp.ClientResponse:
        """The response, its status seen to be good."""
        if self._session is None:
            raise BackendUnavailable(f"the upstream {self.name!r} is closed", rule="upstream.open")
        headers = {"x-request-id": request.id}
        if call.left is not None:
            headers["request-timeout-ms"] = str(max(1, round(call.left * 1000)))
        try:
            async with call.waiting_for_head():
                response = await self._session.post(
                    self.address.completions_url, data=body, headers=headers
                )
                call.response = response
                if response.status == 200 and response.content_type == "text/event-stream":
                    return response  # a promise: nothing of an answer was heard yet
                call.hear()
                told = await _at_most(MAX_ERROR_BYTES, response)
        except TimeoutError as error:
            raise self._lost(call, request, error, begun=False) from error
        retry_after = response.headers.get("retry-after")
        raise refusal_of(self.address, response.status, retry_after, told, request.id)

    def _lost(
        self, call: "_Call", request: GenerateRequest, error: Exception, *, begun: bool
    ) -> Exception:
        if call.why is Why.DEADLINE:
            return expired(request, self._clock.now(), silent=not call.heard)
        if call.why is Why.SILENCE:
            return hangs(self.name, begun=begun)
        what = str(error) or type(error).__name__
        kind = BackendLost if begun else BackendUnavailable
        return kind(f"the upstream {self.name!r} was lost: {what}", rule="upstream.connection")

    def __repr__(self) -> str:
        return f"<UpstreamServer {self.name} {self.address.url} {len(self._calls)} in flight>"


class _Call:
    """One call's connection and the timer that ends it. `left`: seconds to its deadline.

    It `awaits` bytes except while its caller has a chunk, and tells the server's `silence` so.
    """

    def __init__(self, request: GenerateRequest, left: float | None, silence: Silence) -> None:
        self.request = request
        self.left = left
        self.heard = False  # something of an answer, or a refusal
        self.awaits = True
        self.why: Why | None = None
        self.response: aiohttp.ClientResponse | None = None
        self._silence = silence
        self._seen = 0  # bytes of the response
        self._head: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        if left is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, left), self.end, Why.DEADLINE)
        silence.begin()

    def hear(self) -> None:
        """Bytes came that it awaited."""
        self.heard = True
        self._silence.heard()

    def deliver(self) -> None:
        """Its caller has a chunk, or wants none any more."""
        if self.awaits:
            self.awaits = False
            self._silence.end()

    def read_on(self) -> None:
        """Its caller wants more.

        Raises:
            NotRead: it was given up meanwhile.
        """
        if self.why is Why.NOT_READ:
            raise NotRead("the answer was not read on for too long", rule="upstreams.silent_after")
        self.awaits = True
        self._silence.begin()

    def has_news(self) -> bool:
        """Whether bytes came while its caller had a chunk, since this was last asked."""
        if self.response is None:
            return False
        seen, self._seen = self._seen, self.response.content.total_bytes
        return self._seen > seen and not self.awaits

    @asynccontextmanager
    async def waiting_for_head(self) -> AsyncIterator[None]:
        """While nothing but the head is awaited, `end` raises TimeoutError here."""
        try:
            async with asyncio.timeout(None) as self._head:
                yield
                if self.why is not None:  # in the instant in which the head came
                    raise TimeoutError
        finally:
            self._head = None

    def end(self, why: Why) -> None:
        """Stop waiting for the server, and let it know by closing the connection; the first end counts."""
        if self.why is not None:
            return
        self.why = why
        if self._head is not None:
            self._head.reschedule(asyncio.get_running_loop().time())
        elif self.response is not None:
            self.response.close()

    def close(self) -> None:
        """Close the connection, unless its response was read to the end."""
        self.deliver()
        if self._timer is not None:
            self._timer.cancel()
        if self.response is not None:
            self.response.close()


async def _read_out(response: aiohttp.ClientResponse) -> None:
    """Let a response end of which nothing more is wanted, so that its connection can be used again."""
    if response.content.at_eof():
        return
    with suppress(*_LOST, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            async for _ in response.content.iter_any():
                pass


def _not_begun(error: BackendLost) -> BackendUnavailable:
    """The same of an answer of which nothing was delivered, so that another server may be asked."""
    return BackendUnavailable(error.problem, rule=error.rule, value=error.value)


async def _at_most(size: int, response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body."""
    body = b""
    async for data in response.content.iter_any():
        body += data
        if len(body) >= size:
            break
    return body[:size]
