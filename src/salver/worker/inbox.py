"""Commands on their way from the socket to the engine's thread."""

import threading
from collections import deque

from salver.worker.frames import Command

CAPACITY = 1024


class Inbox:
    """Filled by the thread that reads the socket, emptied by the engine's at each step boundary.

    Bounded: when full, the reader waits, so the socket fills up and the gateway's own writes wait.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._commands: deque[Command] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, command: Command) -> None:
        """Add a command, waiting for room. After `close` it is dropped."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._commands) < self._capacity)
            self._commands.append(command)
            self._changed.notify_all()

    def take(self, *, wait: bool) -> list[Command] | None:
        """Everything that has arrived, in order; None once closed.

        With `wait`, sleeps until there is something.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._commands)
            if self._closed:
                return None
            taken = list(self._commands)
            self._commands.clear()
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Wake whoever waits at either end; idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._commands)}/{self._capacity}"
        return f"<Inbox {state}>"
