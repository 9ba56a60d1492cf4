"""How a long pull tells what it is doing."""

from typing import Protocol


class Progress(Protocol):
    """Receives reports from the thread that pulls; must return quickly and never raise."""

    def report(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of `what` are here; `done` may fall when a source starts over."""
        ...

    def note(self, text: str) -> None:
        """Something a person would want to know: a wait, a retry, a resolved name."""
        ...


class Silent:
    """Drops every report."""

    def report(self, what: str, done: int, total: int | None) -> None:
        pass

    def note(self, text: str) -> None:
        pass
