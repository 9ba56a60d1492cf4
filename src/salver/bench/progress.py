"""One line on a terminal while a run goes on: rate, in flight, goodput, lag."""

import os
from typing import IO

from salver.bench.run import Progress
from salver.telemetry import Goodput, Objectives, goodput

REDRAW_SECONDS = 0.2
_RECENT = 50  # heartbeats: one second of them


class Line:
    """Redraws itself on a terminal a few times a second; a `Watch`."""

    def __init__(self, terminal: IO[str], label: str, objectives: Objectives) -> None:
        self._terminal = terminal
        self._label = label
        self._objectives = objectives
        self._drawn = float("-inf")
        self._judged = Goodput(0, 0, 0.0)

    def __call__(self, progress: Progress) -> None:
        if progress.now < self._drawn + REDRAW_SECONDS:
            return
        self._drawn = progress.now
        columns = os.get_terminal_size(self._terminal.fileno()).columns
        self._write(self.text(progress)[: columns - 1])  # a full line would wrap, and stay

    def text(self, progress: Progress) -> str:
        """The line for this moment. Judges each ended arrival once, as what ended by now."""
        self._judge(progress)
        now = max(progress.now, 0.0)
        rate = progress.sent / now if now else 0.0
        lag = max((0.0, *progress.beats[-_RECENT:]))  # a timer may come a little early
        return (
            f"{now:5.1f} s  {rate:6.2f} sent/s  {progress.in_flight:4d} in flight  "
            f"goodput {self._judged.share:4.0%}  lag {lag * 1000:3.0f} ms  {self._label}"
        )

    def clear(self) -> None:
        self._write("")

    def _judge(self, progress: Progress) -> None:
        fresh = progress.records[self._judged.arrivals :]
        seconds = progress.now - self._judged.seconds
        ended = ((record.ending, record.latencies()) for record in fresh)
        self._judged += goodput(ended, self._objectives, seconds=seconds)

    def _write(self, text: str) -> None:
        self._terminal.write(f"\r\x1b[K{text}")
        self._terminal.flush()
