"""Everything one run has to say, as a value, as JSON, and as its raw records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from salver.bench.record import Record
from salver.bench.run import Run
from salver.bench.summary import Summary, Window
from salver.bench.target import Target
from salver.bench.validity import ClientCheck, check_client
from salver.telemetry import Objectives
from salver.workload import Arrival, Mix, Scaling, Workload

PROBLEMS_TOLD = 3


@dataclass(frozen=True, slots=True)
class Report:
    """One run of one mix against one server. `drain_seconds` is how long answers took to end after
    the last arrival. A report that is not `valid` says why, and its numbers are no measurement."""

    mix: str
    url: str
    model: str
    seed: int
    rate_factor: float
    closed_loop: bool
    objectives: Objectives
    window: Window
    scalings: tuple[Scaling, ...]
    client: ClientCheck
    total: Summary
    tenants: dict[str, Summary]
    drain_seconds: float
    problems: tuple[tuple[str, int], ...] = ()  # the commonest of judged arrivals, how often each

    @property
    def valid(self) -> bool:
        return self.client.valid


def objectives_of(mix: Mix) -> Objectives:
    """The mix's SLO as bounds."""
    return Objectives(mix.slo.ttft, mix.slo.tpot, mix.slo.e2e)


def window_of(mix: Mix) -> Window:
    """The arrivals of a mix that are judged."""
    return Window(mix.warmup or 0.0, mix.duration - (mix.cooldown or 0.0))


def report_on(
    run: Run,
    workload: Workload,
    arrivals: Sequence[Arrival],
    target: Target,
    *,
    seed: int,
    rate_factor: float,
) -> Report:
    """Judge a run. `arrivals` is its schedule; empty for a closed loop."""
    mix = workload.mix
    objectives, window = objectives_of(mix), window_of(mix)
    judged = window.judged(run.records)
    names = sorted({record.tenant for record in judged})
    by_tenant = {name: [one for one in run.records if one.tenant == name] for name in names}
    return Report(
        mix=mix.name,
        url=target.url,
        model=target.model,
        seed=seed,
        rate_factor=rate_factor,
        closed_loop=workload.closed_loop is not None,
        objectives=objectives,
        window=window,
        scalings=tuple(workload.scalings(rate_factor)),
        client=check_client(run, arrivals, objectives.ttft, judged=len(judged)),
        total=Summary.of(run.records, objectives, window),
        tenants={
            name: Summary.of(records, objectives, window) for name, records in by_tenant.items()
        },
        drain_seconds=max(0.0, run.seconds - max((r.at for r in run.records), default=0.0)),
        problems=_commonest_problems(judged),
    )


def _commonest_problems(judged: Sequence[Record]) -> tuple[tuple[str, int], ...]:
    found = Counter(record.problem for record in judged if record.problem)
    return tuple(found.most_common(PROBLEMS_TOLD))


def as_record(report: Report) -> dict[str, Any]:
    """The report for a program, with what it derives."""
    record: dict[str, Any] = msgspec.to_builtins(report)
    record["valid"] = report.valid
    for summary, written in ((report.total, record["total"]), *_tenants(report, record)):
        written["goodput"] |= {"share": summary.goodput.share, "rate": summary.goodput.rate}
    return record


def read_report(encoded: bytes) -> Report:
    """What `as_record` wrote. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(encoded, type=Report)


def write_records(records: Sequence[Record], path: Path) -> None:
    """One line of JSON per arrival; a trace of format `salver` for a replay."""
    encoder = msgspec.json.Encoder(decimal_format="number")
    with path.open("wb") as file:
        for record in records:
            file.write(encoder.encode(record) + b"\n")


def read_records(path: Path) -> list[Record]:
    """What `write_records` wrote. Raises OSError, msgspec.MsgspecError."""
    return [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]


def _tenants(report: Report, record: dict[str, Any]) -> list[tuple[Summary, dict[str, Any]]]:
    return [(summary, record["tenants"][name]) for name, summary in report.tenants.items()]
