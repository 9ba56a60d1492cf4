"""Server-sent events out of bytes, and what one event of a stream says."""

from collections.abc import Iterator

from msgspec import Struct, json


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(Struct):
    cached_tokens: int | None = None


class Usage(Struct):
    """Token counts, which a server gives in its last event."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class Error(Struct):
    """Why a stream ended early. `code` is a word or a status, as servers differ."""

    message: str = ""
    code: str | int | None = None

    @property
    def is_expiry(self) -> bool:
        return self.code in _EXPIRIES


class Event(Struct):
    """What one event says, of what OpenAI's two kinds of stream may hold."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Error | None = None

    @property
    def has_text(self) -> bool:
        return any(_text(choice) for choice in self.choices)

    @property
    def finish_reason(self) -> str:
        """Why the answer ended; empty before its end."""
        return next((one.finish_reason for one in self.choices if one.finish_reason), "")


DONE = b"[DONE]"
_EXPIRIES = (408, 504, "deadline_exceeded", "timeout")
_decode = json.Decoder(Event).decode


class EventReader:
    """Cuts a body into events, whatever the pieces it arrives in.

    Holds at most one event; a longer one than `MAX_EVENT` is an error (ValueError).
    """

    MAX_EVENT = 2**20

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The data of every event that these bytes complete."""
        whole = self._rest + data if self._rest else data
        if b"\r" in whole:
            whole = whole.replace(b"\r\n", b"\n")
        *events, self._rest = whole.split(b"\n\n")
        if len(self._rest) > self.MAX_EVENT:
            raise ValueError("an event without end")
        for event in events:
            if event.startswith(b"data:"):
                yield event[5:].strip()


def read_event(data: bytes) -> Event:
    """Raises msgspec.DecodeError for what is no event of a completion."""
    return _decode(data)


def _text(choice: _Choice) -> str | None:
    if choice.delta is not None:
        return choice.delta.content or choice.delta.reasoning_content
    return choice.text
