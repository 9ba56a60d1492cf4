"""One arrival's call: sent, listened to, and ended by whoever comes first.

The end is the server's, the deadline's, or the caller's who hangs up; whichever it is, the record
is complete and the connection either idle again or closed.
"""

import asyncio
from dataclasses import dataclass

import msgspec

from salver.bench.connection import Pool
from salver.bench.record import Record
from salver.bench.sse import DONE, EventReader, read_event
from salver.telemetry import Ending
from salver.workload import Arrival

EARLY_SHARE = 0.05  # of a timeout, by which a server's own clock may end a call sooner
MAX_PROBLEM = 300  # characters of a server's error kept
_REFUSALS = (429, 503)
_EXPIRED = (408, 504)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An arrival with its request written out, so that sending it costs one write."""

    arrival: Arrival
    request: bytes
    exact: bool  # the answer must have all tokens asked for

    def record(self) -> Record:
        arrival = self.arrival
        return Record(
            arrival.number,
            arrival.at,
            arrival.flow,
            arrival.tenant,
            arrival.traffic_class,
            arrival.session,
            arrival.turn,
            arrival.input_tokens or 0,
            arrival.max_tokens,
        )


class Call:
    """Listens to one answer. `start` is the schedule's zero on the pool's clock."""

    def __init__(self, prepared: Prepared, start: float, now: float) -> None:
        self.record = prepared.record()
        self.record.sent = now - start
        self._prepared = prepared
        self._start = start
        self._reader = EventReader()
        self._error = b""
        self._finish_reason = ""
        self._closed = self._expired = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def perform(self, pool: Pool) -> Record:
        """Send the request and wait for the end, whoever brings it about."""
        arrival, connection = self._prepared.arrival, None
        patience, reason = arrival.timeout, Ending.EXPIRED
        if arrival.abandon_after is not None and arrival.abandon_after < patience:
            patience, reason = arrival.abandon_after, Ending.ABANDONED
        try:
            async with asyncio.timeout_at(self._start + self.record.at + patience):
                connection = await pool.take()
                connection.send(self._prepared.request, self)
                await self._done
        except TimeoutError:
            self._end(reason, pool.now())
        except OSError as error:
            self._end(Ending.FAILED, pool.now(), f"cannot connect: {error}")
        finally:
            if connection and connection.listener is self:
                connection.abort()
        return self.record

    def on_status(self, status: int, now: float) -> None:
        self.record.status = status

    def on_body(self, data: bytes, now: float) -> None:
        if self.record.status != 200:
            self._error = (self._error + data)[:MAX_PROBLEM]
            return
        try:
            for event in self._reader.feed(data):
                self._take(event, now)
        except (ValueError, msgspec.MsgspecError) as error:
            self.record.problem = f"not an event: {error}"

    def on_end(self, now: float) -> None:
        status = self.record.status
        if status == 200:
            self._end(self._judged(now), now, self.record.problem)
            return
        ending = Ending.REFUSED if status in _REFUSALS else Ending.FAILED
        ending = self._expiry(now) if status in _EXPIRED else ending
        self._end(ending, now, self._error.decode(errors="replace"))

    def on_lost(self, reason: str, now: float) -> None:
        self._end(Ending.FAILED, now, reason)

    def _take(self, data: bytes, now: float) -> None:
        if data == DONE:
            self._closed = True
            return
        event = read_event(data)
        record = self.record
        if event.has_text:
            record.events.append(now - self._start)
        if event.finish_reason:
            self._finish_reason = event.finish_reason
        if usage := event.usage:
            record.counted = True
            record.output_tokens = usage.completion_tokens
            record.input_tokens = usage.prompt_tokens
            details = usage.prompt_tokens_details
            record.cached_tokens = (details and details.cached_tokens) or 0
        if event.error is not None:
            record.problem = event.error.message[:MAX_PROBLEM] or "an error without a message"
            self._expired = event.error.is_expiry

    def _expiry(self, now: float) -> Ending:
        """What it is when the server says that the deadline passed.

        Said early and without a token it is a refusal: taken for a wait, a server that says so at
        once would have the shortest waits of all.
        """
        patience = self._prepared.arrival.timeout * (1 - EARLY_SHARE)
        early = now - self._start - self.record.at < patience
        return Ending.REFUSED if early and not self.record.events else Ending.EXPIRED

    def _judged(self, now: float) -> Ending:
        """What a stream that ended by itself is worth."""
        record = self.record
        if record.problem:
            return self._expiry(now) if self._expired else Ending.FAILED
        if not (self._finish_reason and self._closed):
            record.problem = "the stream ended without its end"
        elif self._prepared.exact:
            record.problem = self._missing()
        return Ending.WRONG if record.problem else Ending.COMPLETE

    def _missing(self) -> str:
        """What an answer that was to have all its tokens lacks, or nothing. A server that counts
        none is taken at its word where it says that it ended at the length asked for."""
        record = self.record
        if not record.events:
            return "an answer without text"
        if record.counted and record.output_tokens != record.max_tokens:
            return f"{record.output_tokens} tokens instead of {record.max_tokens}"
        if not record.counted and self._finish_reason != "length":
            return f"no count of tokens, and ended by {self._finish_reason!r}, not by length"
        return ""

    def _end(self, ending: Ending, now: float, problem: str = "") -> None:
        record = self.record
        record.ending, record.ended, record.problem = ending, now - self._start, problem
        if not record.counted:
            record.output_tokens = len(record.events)
        if not self._done.done():
            self._done.set_result(None)
