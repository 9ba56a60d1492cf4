"""Which servers the serving benchmark takes, and what it says of load generators that disagree."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from salver.bench.search import Found, Point
from salver.bench.statistics import Interval
from salver.errors import InvalidValue
from salver.workload import Workload, load_mix

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = (
    "servers",
    "tools",
    "agreement",
    "agreement_report",
    "cells",
    "tables",
    "bench",
    "overload",
)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark's modules as attributes of one; its directories are on the path meanwhile."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "engine"))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "serving"))
    serving = ModuleType("serving")
    for name in MODULES:
        setattr(serving, name, import_module(name))
    yield serving
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_servers_are_refused_by_name(serving: ModuleType) -> None:
    servers = serving.servers
    found = [servers.Server("salver", "8-bit", ()), servers.Server("other", "bf16", ())]
    missing = {"absent": "not installed in here"}
    assert servers.select(found, missing, None) == found
    assert servers.select(found, missing, ["other", "other"]) == found[1:]
    with pytest.raises(servers.ServerFailed, match="absent: not installed in here"):
        servers.select(found, missing, ["salver", "absent"])
    with pytest.raises(
        servers.ServerFailed, match=r"llama: no .*; there are salver, other, absent"
    ):
        servers.select(found, missing, ["llama"])


def test_a_slower_server_is_not_a_disagreement_of_the_tools(serving: ModuleType) -> None:
    def line(tool: str, ttft: float, gaps: float, served: float) -> object:
        figures = serving.tools.Figures(1, ttft, ttft, ttft, gaps, gaps, 100.0)
        served_ = serving.agreement_report.Served(served, 0.01, 1, 1)
        return serving.agreement_report.Line(1, tool, figures, served_)

    lines = [line("salver", 0.1, 0.01, 0.1), line("vllm", 0.2, 0.02, 0.2)]
    *_, row = serving.agreement_report.verdicts(lines)
    assert "+100.0%: the server itself +100.0%, the tool +0.0%, agrees" in row
    assert "+100.0%: the server itself +0.0%, the tool +100.0%, DIFFERS" in row


def test_counters_are_of_the_run_alone(serving: ModuleType) -> None:
    before = {"generation_tokens_total": 5.0}
    after = {"generation_tokens_total": 15.0}
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds"):
        before |= {f"{name}_count": 1.0, f"{name}_sum": 9.0}
        after |= {f"{name}_count": 3.0, f"{name}_sum": 10.0}
    assert serving.agreement.served_between(before, after) == serving.agreement_report.Served(
        0.5, 0.5, 2, 10
    )


MIX = """\
apiVersion: salver/v1
kind: TrafficMix
name: short
duration: 500ms
slo: {e2e: 20s}
flows:
  - name: one
    arrivals: {poisson: {rate: 20}}
    prompts: {tokens: [100, 1000]}
    input: {fixed: 8}
    output: {fixed: 4}
"""


async def test_a_cell_keeps_its_runs_and_says_what_is_missing(
    serving: ModuleType, tmp_path: Path
) -> None:
    workload = Workload(load_mix(MIX))
    command = (sys.executable, str(BENCHMARKS / "serving" / "serve_paced.py"), "{port}")
    cells, server = serving.cells, serving.servers.Server("paced", "", command, "/metrics")
    with server.running(tmp_path) as url:
        bench = cells.Bench(url, tmp_path / "cell", (), float("inf"))
        made = await bench.runs(workload)(20.0, 0)
    assert made.report.total.endings == {"complete": made.report.total.arrivals}
    again = cells.Bench(url, tmp_path / "cell", ())  # nobody listens any more
    assert await again.runs(workload)(20.0, 0) == made
    with pytest.raises(cells.OutOfTime):
        await again.runs(workload)(30.0, 0)
    (noted,) = (tmp_path / "cell" / "others.jsonl").read_text().splitlines()
    assert 0 <= json.loads(noted)["others_took"] <= 1


def test_a_server_is_told_by_what_it_is_not_by_its_port(
    serving: ModuleType, tmp_path: Path
) -> None:
    contract, workload = tmp_path / "contract.yaml", Workload(load_mix(MIX))
    contract.write_text("one")
    server = serving.servers.salver_server(contract)

    def runs(url: str, claims: dict[str, str]) -> None:
        serving.cells.Bench(url, tmp_path / "cell", (), claims=claims).runs(workload)

    runs("http://127.0.0.1:1", server.claims)
    runs("http://127.0.0.1:2", server.claims)
    contract.write_text("another")
    with pytest.raises(InvalidValue):
        runs("http://127.0.0.1:1", server.claims)


def test_past_capacity_is_swept_in_pieces(serving: ModuleType, tmp_path: Path) -> None:
    """By a server that is the paced one, beside one of which nothing is known."""
    command = (sys.executable, str(BENCHMARKS / "serving" / "serve_paced.py"), "{port}")
    servers, overload = serving.servers, serving.overload
    behind = servers.Server("behind", "", command, "/metrics")
    server = servers.Server("salver", "8-bit", command, "/metrics", behind=behind)
    workload, given = Workload(load_mix(MIX)), {"salver": 20.0, "absent": 1.0}
    task = overload.Task(workload, (), given, [0.5, 1.0], range(1), tmp_path)
    assert task.kept(server) is None
    with pytest.raises(serving.cells.OutOfTime):
        overload.serve(task, server, 0.0)
    overload.serve(task, server, float("inf"))
    found = task.kept(server)
    assert [point.rate for point in found.points] == [10.0, 20.0]
    assert found.kept == found.points[-1].goodput_rate / max(p.goodput_rate for p in found.points)
    text = overload.report(task, [server, servers.Server("absent", "", ())], {"absent": "gone"})
    assert "| salver (8-bit) | 20.00/s |" in text
    assert "of its best goodput at 1x: " in text
    assert text.count("| salver (8-bit) | ") == 1 + len(found.points)
    assert "- absent has no rows: gone" in text


BROKEN = (sys.executable, "-c", "raise SystemExit(7)")


@pytest.mark.parametrize("name", ["bench", "overload"])
def test_a_server_that_does_not_start_is_not_left_to_do_for_ever(
    serving: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mix.yaml").write_text(MIX)
    command, servers = getattr(serving, name), serving.servers
    broken = servers.Server("salver", "8-bit", BROKEN, starts_within=0.0)
    monkeypatch.setattr(command, "locate", lambda *_: None)
    monkeypatch.setattr(command, "servers", lambda *_: ([broken], {}))
    arguments = ["", str(tmp_path / "mix.yaml"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command.main() == 1
    report = (tmp_path / "out" / "report.md").read_text()
    assert "salver has no rows: salver ended with 7 before it was ready" in report


async def test_a_server_that_answers_nothing_has_failed(
    serving: ModuleType, tmp_path: Path
) -> None:
    """Its closed loop is not kept either."""
    cells, workload = serving.cells, Workload(load_mix(MIX))
    bench = cells.Bench("http://127.0.0.1:9", tmp_path / "cell", (), float("inf"))
    asked = cells.Asked(0.95, [0], 2.0)
    with pytest.raises(serving.servers.ServerFailed, match="cannot connect"):
        await bench.search(workload, asked, "none", "")
    report = SimpleNamespace(url="http://x", problems=(("broke", 3),))
    silent = SimpleNamespace(report=report, records=[])
    with pytest.raises(serving.servers.ServerFailed, match="nothing in a closed loop: broke"):
        cells.answers_per_second(silent)
    assert not list((tmp_path / "cell").rglob("run-*"))


@pytest.mark.parametrize("beyond", [0.0, 2.0])
def test_a_server_that_kept_no_rate_has_a_row_as_wide_as_the_others(
    serving: ModuleType, beyond: float
) -> None:
    workload = Workload(load_mix(MIX))
    cell = serving.cells.Cell(
        workload.mix, "none", "8-bit", 1.0, Found(0.0, 0.5, 0.95, ()), None, 0.0
    )
    asked = serving.cells.Asked(0.95, [0], beyond)
    table = serving.tables.capacity_table(workload, [cell], asked)
    heading, _, row = (line for line in table.splitlines() if line.startswith("|"))
    assert row.count("|") == heading.count("|")


async def test_a_search_that_an_unlucky_burst_ended_goes_on_beyond_it(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def highest_rate(_measure: object, *, start: float, **_: object) -> Found:
        highest = 2.0 if start < 4 else 9.0  # a burst fails what comes after 2
        return Found(highest, highest * 1.1, 0.95, ())

    async def probe(_measure: object, rate: float, _seeds: object) -> Point:
        share = 1.0 if rate <= 10 else 0.2
        return Point(rate, Interval(share, share, share), rate * share, ())

    monkeypatch.setattr(serving.cells, "highest_rate", highest_rate)
    monkeypatch.setattr(serving.cells, "probe", probe)
    asked = serving.cells.Asked(0.95, [0], beyond=2.0)
    found, beyond = await serving.cells.highest_and_beyond(None, 1.0, asked)
    assert (found.highest, beyond.rate) == (9.0, 18.0)


async def test_what_one_seed_found_has_to_hold_over_all(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first seed is lucky up to 10 a second; over all of them 8.2 holds and no more."""
    asked_for: list[tuple[float, tuple[int, ...]]] = []

    async def probe(_measure: object, rate: float, seeds: range) -> Point:
        asked_for.append((rate, tuple(seeds)))
        share = 1.0 if rate <= (10 if len(seeds) == 1 else 8.2) else 0.2
        return Point(rate, Interval(share, share, share), rate * share, ())

    cells = serving.cells
    monkeypatch.setattr(cells, "probe", probe)
    monkeypatch.setattr("salver.bench.search.probe", probe)
    found, beyond = await cells.highest_and_beyond(None, 5.0, cells.Asked(0.95, range(3), 2.0))
    assert 8.2 * (1 - cells.PRECISION) <= found.highest <= 8.2 < found.failed
    assert (found.highest, (0, 1, 2)) in asked_for
    assert beyond.rate == 2 * found.highest
    assert (beyond.rate, (0,)) in asked_for
    assert found.points == tuple(sorted(found.points, key=lambda point: point.rate))


async def test_what_no_seed_but_the_first_keeps_is_given_up(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def probe(_measure: object, rate: float, seeds: range) -> Point:
        share = float(len(seeds) == 1 and rate <= 10)
        return Point(rate, Interval(share, share, share), rate * share, ())

    cells = serving.cells
    monkeypatch.setattr(cells, "probe", probe)
    monkeypatch.setattr("salver.bench.search.probe", probe)
    found, beyond = await cells.highest_and_beyond(None, 5.0, cells.Asked(0.95, range(3), 2.0))
    assert (found.highest, beyond) == (0.0, None)
