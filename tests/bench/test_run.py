"""The two ways a benchmark can lie, and that this one does not: a stopped client is noticed, and a
server that stalls shows it in the headline."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from salver.bench.connection import Address, Pool
from salver.bench.measure import measure
from salver.bench.run import Progress, Run
from salver.bench.table import report_text
from salver.bench.target import Target
from salver.bench.validity import check_client
from salver.contract import TrafficClass
from salver.errors import BackendUnavailable
from salver.telemetry import Ending
from salver.workload import Arrival, Workload

if TYPE_CHECKING:
    from tests.bench.conftest import Exchange, Stub

MakeWorkload = Callable[..., Workload]


async def test_a_well_served_mix_is_all_good(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    seen: list[int] = []

    def watch(progress: Progress) -> None:
        seen.append(progress.in_flight)

    measured = await measure(make_workload(slo={"e2e": "20s"}), target, watch=watch)
    total = measured.report.total
    assert total.goodput.share == 1.0
    assert total.endings == {"complete": total.arrivals}
    assert total.output_tokens == 4 * total.arrivals
    assert max(seen) >= 1
    assert len(stub.requests) == total.arrivals + 4  # the warm-up


async def test_a_server_that_stalls_shows_it_in_the_headline_ttft(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    """Many arrivals come while it stalls. A client that waited for its answers would have
    sent one request then, and reported one slow one."""
    workload = make_workload(duration="4s")
    timer = threading.Timer(1.5, stub.stall, [2.0])
    timer.start()
    measured = await measure(workload, target)
    timer.join()
    total = measured.report.total
    assert total.ttft.mean is not None
    assert total.ttft.p95 is not None
    assert total.ttft.mean > 0.2
    assert total.ttft.p95 > 1.2
    late = [
        r for r in measured.records if r.latencies().ttft is not None and r.events[0] - r.at > 1
    ]
    assert len(late) > 6
    assert max(record.lag for record in late) < 0.5  # sent while it stalled, not afterwards
    assert total.goodput.share < 0.9


def test_a_client_that_is_stopped_invalidates_its_run(
    stub: "Stub", mix_text: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mix.yaml").write_text(mix_text(duration="5s"))
    command = [sys.executable, "-m", "salver.cli", "bench", str(tmp_path / "mix.yaml"), "--json"]
    client = subprocess.Popen(
        [*command, "--url", stub.url, "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(stub.requests) < 15:  # well into the schedule
        time.sleep(0.01)
        assert client.poll() is None
    client.send_signal(signal.SIGSTOP)
    time.sleep(2)
    client.send_signal(signal.SIGCONT)
    out, err = client.communicate(timeout=30)
    report = json.loads(out)
    assert client.returncode == 1
    assert not report["valid"]
    assert report["client"]["beat_max"] > 1.5
    assert any("stood still" in problem for problem in report["client"]["problems"])
    assert "no measurement" in err


def saying(status: int, told: bytes) -> "Callable[[Exchange], Awaitable[None]]":
    """Answers every call with this."""

    async def answer(exchange: "Exchange") -> None:
        exchange.head(status)
        exchange.chunk(told)
        exchange.writer.write(b"0\r\n\r\n")

    return answer


async def test_who_can_ask_nothing_is_told_and_measures_nothing(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    """A typo in the model is 404 each, a missing key 401 each: no 0% of the server's."""
    stub.answer = saying(404, b"no such model")
    with pytest.raises(BackendUnavailable, match="answers no request: no such model"):
        await measure(make_workload(), target)
    nobody = Target("http://127.0.0.1:9", "none")
    with pytest.raises(BackendUnavailable, match="cannot connect"):
        await measure(make_workload(), nobody)


async def test_a_server_that_refuses_all_is_measured(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    stub.answer = saying(429, b"full")
    report = (await measure(make_workload(duration="500ms"), target)).report
    assert report.total.goodput.share == 0.0
    assert report.problems == (("full", report.total.arrivals),)
    assert f"{report.total.arrivals} x full" in report_text(report)


async def test_the_warm_up_is_of_the_rate_that_is_measured(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    """Another rate says other things: drawn at factor 1, every run would send the same warm-up."""
    workload = make_workload(duration="500ms")
    for factor in (1.0, 2.0):
        await measure(workload, target, rate_factor=factor)
    prompts = [tuple(body["prompt"]) for _, _, body in stub.requests]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("place", range(3))
async def test_a_name_that_stands_for_several_addresses(stub: "Stub", place: int) -> None:
    """As localhost does for ::1 before 127.0.0.1, where most servers listen."""
    port = int(stub.url.rpartition(":")[2])
    hosts = ["127.0.0.2", "127.0.0.3"]
    hosts.insert(place, "127.0.0.1")
    pool = Pool(Address(tuple(hosts), port), time.monotonic)
    for _ in range(2):
        (await pool.connect()).abort()
    await asyncio.sleep(0.2)  # until the server's thread has seen both
    assert stub.connections == 2
    with pytest.raises(OSError, match="111"):
        await Pool(Address(("127.0.0.2", "127.0.0.3"), port), time.monotonic).connect()


async def test_callers_that_hang_up_close_their_connections(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    async def endless(exchange: "Exchange") -> None:
        exchange.head()
        for _ in range(1000):
            exchange.token()
            await exchange.writer.drain()
            await asyncio.sleep(0.02)

    stub.answer = endless
    flow = {"abandoned": {"share": "100%", "after": "100ms"}, "timeout": "1s"}
    measured = await measure(make_workload(flow=flow, duration="1s"), target)
    assert measured.report.total.endings.keys() <= {"abandoned", "expired"}
    assert measured.report.total.endings["abandoned"] > 10


async def test_a_closed_loop_waits_for_its_answers(
    stub: "Stub", target: Target, make_workload: MakeWorkload
) -> None:
    flow = {"arrivals": {"closed_loop": {"users": 3, "think": "10ms"}}}
    most = 0

    def watch(progress: Progress) -> None:
        nonlocal most
        most = max(most, progress.in_flight)

    measured = await measure(make_workload(flow=flow, duration="1s"), target, watch=watch)
    assert measured.report.closed_loop
    assert most <= 3
    assert measured.report.total.arrivals > 30
    assert len({record.number for record in measured.records}) == len(measured.records)
    asked = [record.at for record in measured.records]
    assert asked == sorted(asked)  # a trace is in order of time


def _run_of(lags: list[float], beats: list[float]) -> tuple[Run, list[Arrival]]:
    from salver.bench.record import Record

    arrivals = [
        Arrival(n, n * 0.1, "f", "t", TrafficClass.STANDARD, (1,), 1, 1, 9.0)
        for n in range(len(lags))
    ]
    records = [
        Record(n, n * 0.1, "f", "t", "standard", "", 0, 1, 1, n * 0.1 + lag, ending=Ending.COMPLETE)
        for n, lag in enumerate(lags)
    ]
    return Run(records, beats, 0.1, len(lags) * 0.1), arrivals


@pytest.mark.parametrize(
    ("lags", "beats", "problem"),
    [
        ([0.001] * 200, [0.01], ""),
        ([0.001] * 190 + [0.06] * 10, [0.01], "sent late"),
        ([0.001] * 200, [0.01, 0.3], "stood still"),
        ([0.001 * n for n in range(40)] + [0.04] * 60, [0.0], ""),
    ],
)
def test_the_rules_of_validity(lags: list[float], beats: list[float], problem: str) -> None:
    run, arrivals = _run_of(lags, beats)
    check = check_client(run, arrivals, 1.0, judged=1)
    assert check.valid == (not problem)
    assert problem in " ".join(check.problems)


def test_a_rate_that_is_missed_is_invalid() -> None:
    run, arrivals = _run_of([0.0004 * n for n in range(120)], [0.0])
    assert check_client(run, arrivals, 10.0, judged=1).valid
    slower, _ = _run_of([0.002 * n for n in range(120)], [0.0])
    (problem,) = check_client(slower, arrivals, 10.0, judged=1).problems
    assert "were sent instead of" in problem


def test_a_lost_record_is_invalid() -> None:
    run, arrivals = _run_of([0.0] * 50, [0.0])
    more = [*arrivals, arrivals[-1]]
    assert any("recorded" in problem for problem in check_client(run, more, 1.0, judged=1).problems)
