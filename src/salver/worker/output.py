"""What a worker prints: passed on line by line, and its end kept for the error message."""

import logging
from collections import deque

MAX_LINES = 20
MAX_LINE_BYTES = 1000


class OutputTail:
    """Takes bytes as they come, logs whole lines, and remembers the last of them. Bounded."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(f"salver.worker.{name}")
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._unfinished = b""

    def feed(self, data: bytes) -> None:
        *lines, unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = unfinished[-MAX_LINE_BYTES:]
        for line in lines:
            text = line[-MAX_LINE_BYTES:].decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            self._log.info("%s", text)

    def __str__(self) -> str:
        """The last lines, as printed."""
        last = self._unfinished.decode("utf-8", "replace")
        return "\n".join([*self._lines, last] if last else self._lines)
