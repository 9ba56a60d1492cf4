"""From token ids to text that never has to be taken back.

Text is held while a stop string may be starting in it: what is held is always the longest end of
the text so far that is a proper beginning of some stop string. Everything before that is final.
"""

from collections.abc import Callable
from typing import Protocol


class TokenDecoder(Protocol):
    """Turns one sequence's tokens into text, never splitting a character."""

    def push(self, token_id: int, /) -> str:
        """Text that this token made final; may be empty."""
        ...

    def flush(self) -> str:
        """What is left when no token follows."""
        ...


DecoderFactory = Callable[[bool], TokenDecoder]  # the argument: skip special tokens


class OutputText:
    """The text of one sequence, and the stop strings that may end it."""

    __slots__ = ("_decoder", "_held", "_include_stop", "_stop", "matched")

    def __init__(
        self, decoder: TokenDecoder, stop: tuple[str, ...] = (), include_stop: bool = False
    ) -> None:
        self._decoder = decoder
        self._stop = stop
        self._include_stop = include_stop
        self._held = ""
        self.matched: str | None = None

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """Newly final text. Sets `matched` when a stop string was completed and `may_stop`."""
        return self._release(self._decoder.push(token_id), may_stop=may_stop)

    def finish(self) -> str:
        """Whatever is still held, once no token follows."""
        if self.matched is not None:
            return ""
        text = self._release(self._decoder.flush(), may_stop=True)
        held, self._held = self._held, ""
        return text + held

    def _release(self, new: str, *, may_stop: bool) -> str:
        text = self._held + new
        if may_stop and (found := self._first_stop(text)) is not None:
            start, self.matched = found
            self._held = ""
            return text[: start + len(self.matched)] if self._include_stop else text[:start]
        keep = self._possible_stop(text) if may_stop or not self._stop else 0
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _first_stop(self, text: str) -> tuple[int, str] | None:
        """Where the earliest stop string starts; the longest one wins at equal starts."""
        found = [(text.find(stop), -len(stop), stop) for stop in self._stop if stop in text]
        if not found:
            return None
        start, _, stop = min(found)
        return start, stop

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
