"""A run in numbers: what arrived, how it ended, how long it took, and how much of it was good."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from salver.bench.record import Record
from salver.bench.statistics import Percentiles
from salver.telemetry import Ending, Goodput, Objectives, goodput


@dataclass(frozen=True, slots=True)
class Window:
    """Which arrivals are judged: those in [begin, end), in seconds of the schedule."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def judged(self, records: Iterable[Record]) -> list[Record]:
        return [record for record in records if self.begin <= record.at < self.end]


@dataclass(frozen=True, slots=True)
class Summary:
    """One group of arrivals. Latencies are in seconds and count from the intended instant.

    `ttft` includes arrivals that got no token before their deadline or before they hung up, at the
    time they had waited, which is a lower bound; refused and failed ones have no latency and count
    against goodput only. `output_rate` is of the tokens that came inside the window, whenever they
    were asked for; `output_tokens` are all of the arrivals judged.
    `worst_itl` is each request's longest gap; `tokens_per_event` tells what one gap stands for.
    """

    arrivals: int
    endings: dict[str, int]
    goodput: Goodput
    rate: float  # arrivals per second
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    output_rate: float  # tokens per second of the window
    tokens_per_event: float
    ttft: Percentiles
    tpot: Percentiles
    itl: Percentiles
    worst_itl: Percentiles
    e2e: Percentiles
    uncounted: int = 0  # of the answers in full, those whose tokens the server did not count

    @classmethod
    def of(cls, records: Sequence[Record], objectives: Objectives, window: Window) -> "Summary":
        """Of those that the window judges. The others count only with tokens that came in it."""
        in_window = sum(_tokens_within(window, record) for record in records)
        records = window.judged(records)
        all_latencies = [record.latencies() for record in records]
        pairs = list(zip(records, all_latencies, strict=True))
        answered = [each for record, each in pairs if record.ending is Ending.COMPLETE]
        output = sum(record.output_tokens for record in records)
        events = sum(len(record.events) for record in records)
        return cls(
            arrivals=len(records),
            endings=dict(sorted(Counter(str(record.ending) for record in records).items())),
            goodput=goodput(
                ((record.ending, each) for record, each in pairs),
                objectives,
                seconds=window.seconds,
            ),
            rate=len(records) / window.seconds,
            input_tokens=sum(record.input_tokens for record in records),
            cached_tokens=sum(record.cached_tokens for record in records),
            output_tokens=output,
            output_rate=in_window / window.seconds,
            tokens_per_event=output / events if events else 0.0,
            ttft=Percentiles.of(
                [ttft for record in records if (ttft := waited(record)) is not None]
            ),
            tpot=Percentiles.of([each.tpot for each in all_latencies if each.tpot is not None]),
            itl=Percentiles.of([gap for each in all_latencies for gap in each.gaps]),
            worst_itl=Percentiles.of([max(each.gaps) for each in all_latencies if each.gaps]),
            e2e=Percentiles.of([each.e2e for each in answered]),
            uncounted=sum(
                record.ending is Ending.COMPLETE and not record.counted for record in records
            ),
        )


def waited(record: Record) -> float | None:
    """Seconds to the first token, or without one until the deadline or until its caller hung up;
    None for other endings."""
    if record.events:
        return record.events[0] - record.at
    in_vain = record.ending in (Ending.EXPIRED, Ending.ABANDONED)
    return record.ended - record.at if in_vain else None


def _tokens_within(window: Window, record: Record) -> float:
    """Of an answer's tokens, those that came in the window; each event stands for as many."""
    if not record.events:
        return 0.0
    events = sum(window.begin <= at < window.end for at in record.events)
    return record.output_tokens * events / len(record.events)
