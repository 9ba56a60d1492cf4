"""From the events of an OpenAI stream to TokenChunks.

An event is decoded into the few fields that count, and nothing of it is copied but its text. What
came together goes on together: a gateway that is busy finds several events at once, and then each
costs it less. An event with a text stands for one token until the usage tells how many there were;
therefore the ends of the choices are held back until the usage is known or the stream is over.
"""

from collections.abc import Iterator
from dataclasses import replace

import msgspec

from salver.clock import Clock
from salver.contract import Finish, FinishReason, GenerateRequest, Outcome, Timings, TokenChunk
from salver.errors import BackendLost

MAX_LINE_BYTES = 2**20
_NO_ERROR = (b"", b"null")  # some servers always write one
_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(_Event)


class EventLines:
    """Cuts a stream of bytes into the payloads of its `data:` lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that these bytes complete.

        Raises:
            BackendLost: a line that goes on and on.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise _broken("an event is too long", len(self._rest))
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


class Answer:
    """One call's answer as it comes in. `over` once the server said `[DONE]`."""

    def __init__(self, request: GenerateRequest, clock: Clock) -> None:
        self.over = False
        self._told = False  # the ends
        self._request = request
        self._clock = clock
        self._arrived = clock.now()
        self._first: float | None = None
        self._counted = 0
        self._usage = _Usage()
        self._ends: dict[int, Finish] = {}
        self._texts: dict[int, list[str]] = {}  # of the events that came together

    def chunks(self, *payloads: bytes) -> Iterator[TokenChunk]:
        """What events bring that came together: one chunk for each choice that goes on.

        Nothing comes of what follows `[DONE]`: the ends are told once.

        Raises:
            BackendLost: one is no event, tells an error, or ends a choice without an answer; what came
                before it was yielded.
        """
        lost = None
        try:
            for payload in payloads:
                self._take(payload)
        except BackendLost as error:
            lost = error
        for index, texts in self._texts.items():
            text = "".join(texts)
            yield TokenChunk(self._request.id, index, text=text, unnamed_tokens=len(texts))
        self._texts.clear()
        if lost is not None:
            raise lost
        if self.over and not self._told:
            self._told = True
            yield from self._ended()

    def _take(self, payload: bytes) -> None:
        if self.over:
            return
        if payload == b"[DONE]":
            self.over = True
            return
        event = _decoded(payload)
        if event.usage is not None:
            self._usage = event.usage
        for choice in event.choices:
            self._add(choice)

    def _add(self, choice: _Choice) -> None:
        text = choice.text or (choice.delta.content if choice.delta else "") or ""
        if not 0 <= choice.index < self._request.n or (text and choice.index in self._ends):
            raise _broken("a choice that is not expected", choice.index)
        if text:
            self._first = self._first or self._clock.now()
            self._counted += 1
            self._texts.setdefault(choice.index, []).append(text)
        if choice.finish_reason is not None:
            self._ends[choice.index] = self._finish(choice)

    def _finish(self, choice: _Choice) -> Finish:
        reason = _REASONS.get(choice.finish_reason or "")
        if reason is None:
            raise _broken("a choice ended without an answer", choice.finish_reason)
        timings = Timings(self._arrived, self._arrived, self._first, self._clock.now())
        return Finish(Outcome.FINISHED, reason, timings, choice.stop_reason)

    @property
    def _cached(self) -> int:
        details = self._usage.prompt_tokens_details
        return (details.cached_tokens or 0) if details else 0

    def _ended(self) -> Iterator[TokenChunk]:
        """The ends, in order; the last one with the tokens that no text had told of."""
        if len(self._ends) < self._request.n:
            raise _broken("the stream ended before its answer", len(self._ends))
        untold = max(0, self._usage.completion_tokens - self._counted)
        for index, finish in sorted(self._ends.items()):
            last = index == self._request.n - 1
            yield TokenChunk(
                self._request.id,
                index,
                finish=replace(finish, cached_tokens=self._cached),
                unnamed_tokens=untold if last else 0,
            )


def _decoded(payload: bytes) -> _Event:
    try:
        event = _DECODER.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _broken(f"what is no event ({error})", payload[:64]) from None
    problem = bytes(event.error)
    if problem not in _NO_ERROR:
        told = problem[:200].decode("utf-8", "replace")
        raise _broken("an error in the middle of the answer", told)
    return event


def _broken(what: str, value: object) -> BackendLost:
    return BackendLost(f"the upstream sent {what}", rule="upstream.stream", value=value)
