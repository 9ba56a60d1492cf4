"""One line on a terminal while a run goes on: rate, in flight, goodput, lag."""

from typing import IO

from salver.bench.record import Record
from salver.bench.run import Progress
from salver.telemetry import Objectives, is_good

REDRAW_SECONDS = 0.2
_RECENT = 50  # heartbeats: one second of them


class Line:
    """Redraws itself on `stream` a few times a second; a `Watch`."""

    def __init__(self, stream: IO[str], label: str, objectives: Objectives) -> None:
        self._stream = stream
        self._label = label
        self._objectives = objectives
        self._drawn = float("-inf")
        self._judged = 0
        self._good = 0

    def __call__(self, progress: Progress) -> None:
        if progress.now < self._drawn + REDRAW_SECONDS:
            return
        self._drawn = progress.now
        self._stream.write(f"\r\x1b[K{self.text(progress)}")
        self._stream.flush()

    def text(self, progress: Progress) -> str:
        """The line for this moment. Judges each ended arrival once."""
        fresh = progress.records[self._judged :]
        self._judged = len(progress.records)
        self._good += sum(map(self._is_good, fresh))
        share = self._good / self._judged if self._judged else 1.0
        rate = progress.sent / progress.now if progress.now > 0 else 0.0
        lag = max(progress.beats[-_RECENT:], default=0.0)
        return (
            f"{self._label}  {max(progress.now, 0.0):5.1f} s  {rate:6.2f} sent/s  "
            f"{progress.in_flight:4d} in flight  goodput {share:4.0%}  lag {lag * 1000:.0f} ms"
        )

    def clear(self) -> None:
        self._stream.write("\r\x1b[K")
        self._stream.flush()

    def _is_good(self, record: Record) -> bool:
        return is_good(record.ending, record.latencies(), self._objectives)
