"""The engine benchmark's own arithmetic, and its protocol with adapters that are not engines."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from salver.engine.runners.choice import RunnerKind, native_is_built
from salver.testing.tiny_groups import GroupedCheckpoint
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

ENGINE = Path(__file__).resolve().parents[2] / "benchmarks" / "engine"
MODULES = (
    "workload",
    "summary",
    "contender",
    "tournament",
    "report",
    "machine",
    "quiet",
    "adapter_http",
    "ours",
)

ADAPTER = """
import sys, time
sys.path.insert(0, {engine!r})
from protocol import serve

class Fake:
    facts = {{"version": "1", "settings": "none"}}

    def __init__(self, settings):
        self.settings = settings

    def generate(self, prompts, max_tokens, on_token):
        print("an engine that prints")
        count = int(self.settings.options.get("tokens", max_tokens))
        if len(prompts) > int(self.settings.options.get("dies_above", 99)):
            raise SystemExit("too many")
        for number in range(count):
            time.sleep(0.001)
            for index, prompt in enumerate(prompts):
                on_token(index, prompt[number % len(prompt)])

serve(Fake)
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark's modules as attributes of one; its directory is on the path meanwhile."""
    monkeypatch.syspath_prepend(str(ENGINE))
    bench = ModuleType("bench")
    for name in MODULES:
        setattr(bench, name, import_module(name))
    yield bench
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(ENGINE)):
            del sys.modules[name]


GRANDCHILD = """
import sys, time
while time.process_time() < 0.3:
    pass
print("worked", flush=True)
sys.stdin.read()
"""
CHILD = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {GRANDCHILD!r}], start_new_session=True)
"""


def test_what_descends_from_us_is_not_others_in_whatever_session(bench: ModuleType) -> None:
    before = bench.quiet.CpuTime.of(os.getpid())
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"worked\n"
        after = bench.quiet.CpuTime.of(os.getpid())
        assert child.stdin is not None
        child.stdin.close()
    ticks = os.sysconf("SC_CLK_TCK") * 0.3  # several times what starting the child alone takes
    assert after.own - before.own >= ticks - 2  # each of two processes is cut to whole ticks


def test_decoding_counts_only_while_every_stream_decodes(bench: ModuleType) -> None:
    early, late = [0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]
    assert bench.workload.decode_rate([early, late]) == pytest.approx(4 / 2)
    assert bench.workload.decode_rate([[0.0, 1.0], [1.0, 2.0]]) is None
    assert bench.workload.decode_rate([[0.0, 0.5, 1.0]]) == pytest.approx(2.0)


def test_prefill_lasts_until_the_last_stream_has_its_first_token(bench: ModuleType) -> None:
    assert bench.workload.prefill_rate(256, 10.0, [[10.5], [12.0]]) == pytest.approx(128.0)


def test_prompts_are_the_same_for_everyone_and_new_every_time(bench: ModuleType) -> None:
    point = bench.workload.POINTS[1]
    first = bench.workload.prompts(point, "0 0")
    assert first == bench.workload.prompts(point, "0 0")
    beginnings = {prompt[0] for prompt in first}
    assert [len(prompt) for prompt in first] == [point.prompt_tokens] * point.streams
    assert len(beginnings) == point.streams
    assert first != bench.workload.prompts(point, "0 1")


def cell(bench: ModuleType, *rates: float | None, disturbed: tuple[int, ...] = ()) -> Any:
    """A cell with these rates, of which the given rounds were disturbed."""
    return bench.summary.Cell(
        tuple(bench.summary.Round(rate, 0.5 * (i in disturbed)) for i, rate in enumerate(rates))
    )


def test_ratios_are_paired_by_round(bench: ModuleType) -> None:
    fast, slow = cell(bench, 10.0, 40.0, None), cell(bench, 5.0, 10.0, 1.0)
    assert bench.summary.paired_ratio(fast, slow) == pytest.approx(3.0)
    assert bench.summary.paired_ratio(fast, cell(bench, None, None, None)) is None
    table = {"a": {"p": slow}, "b": {"p": fast}, "c": {"p": cell(bench, None)}}
    assert bench.summary.best(table, "p", ["a", "b", "c"]) == "b"
    assert bench.summary.best(table, "p", ["c"]) is None


def test_disturbed_rounds_count_only_where_there_is_no_other(bench: ModuleType) -> None:
    once = cell(bench, 1.0, 8.0, 2.0, disturbed=(0, 2))
    always = cell(bench, 1.0, 3.0, disturbed=(0, 1))
    assert (once.median, once.disturbed) == (8.0, False)
    assert (always.median, always.disturbed) == (2.0, True)
    assert bench.summary.paired_ratio(once, cell(bench, 1.0, 4.0, 9.0)) == pytest.approx(2.0)
    no_round_in_common = cell(bench, 4.0, 1.0, disturbed=(1,))
    assert bench.summary.paired_ratio(once, no_round_in_common) == pytest.approx(2.0)


def test_a_share_of_the_machine_is_that_of_the_same_round(bench: ModuleType) -> None:
    """Of medians it would be one half; the disturbed round and the one without a measurement are out."""
    told = [(1.0, 0.0, 4.0), (1.2, 0.0, 2.0), (0.6, 0.0, 1.0), (9.0, 0.5, 9.0), (1.1, 0.0, None)]
    cell = bench.summary.Cell(tuple(bench.summary.Round(*each) for each in told))
    assert cell.share == pytest.approx(0.6)
    assert bench.summary.Cell((None, bench.summary.Round(1.0, 0.0))).share is None


def test_a_contender_that_fails_is_noted_and_the_others_are_reported(
    bench: ModuleType, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter.py"
    adapter.write_text(ADAPTER.format(engine=str(ENGINE)))

    def contender(name: str, **options: str) -> object:
        python = Path(sys.executable)
        return bench.contender.Contender(
            name, "f32", python, str(adapter), "", ours=name == "ours", options=options
        )

    everyone = [
        contender("ours"),
        contender("peer"),
        contender("short", tokens="3"),
        contender("mortal", dies_above="1"),
    ]
    options = bench.tournament.Options(
        rounds=2,
        starts=2,
        slow=30.0,
        patience=60.0,
        threads=1,
        retries=0,
        output=tmp_path,
    )
    points = [bench.workload.POINTS[i] for i in (0, 3)]
    gauge, quiet = bench.machine.Gauge({"f32": 1e6}, 1e6), bench.quiet.Quiet(0.0)
    with bench.tournament.Tournament(everyone, options, quiet, gauge) as tournament:
        tournament.start()
        for point in points:
            tournament.measure(point)
    machine = bench.machine.Measured(bench.machine.this_machine(), 1e9, {"f32": 1e9})
    report = bench.report.Report(
        command="bench",
        machine=machine,
        model=bench.report.Weights(8, 10),
        load_average=0.0,
        rounds=2,
        points=points,
        entrants=tournament.entrants,
        table=tournament.table(points),
        notes=tournament.notes,
    )
    report.write(tmp_path)

    record = json.loads((tmp_path / "report.json").read_text())
    assert set(record["entrants"]) == {"ours", "peer", "mortal"}
    assert len(record["entrants"]["ours"]["starts"]) == 2
    assert record["rates"]["mortal"]["decode_1"]["median"] > 0
    assert record["rates"]["mortal"]["prefill_8x128"]["median"] is None
    short, mortal = sorted(record["notes"], reverse=True)
    assert "short did not start" in short
    assert "do not have 8 tokens" in short
    assert "mortal" in mortal
    assert "too many" in mortal
    markdown = (tmp_path / "report.md").read_text()
    assert "| ours | f32 |" in markdown
    assert "x peer" in markdown
    assert "| not measured |" in markdown  # nothing here multiplies float32 by itself
    assert "<svg" in (tmp_path / "report.svg").read_text()
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    of_peer = [run for run in runs if run["contender"] == "peer" and run["point"] == "decode_1"]
    of_ours = [run for run in runs if run["contender"] == "ours" and run["point"] == "decode_1"]
    assert [run["tokens"] for run in of_peer] == [run["tokens"] for run in of_ours]
    assert all(len(run["seconds"][0]) == 64 for run in of_peer)


def test_a_runner_takes_part_only_where_it_can_compute_the_file(bench: ModuleType) -> None:
    """Every runner but `q4` computes any file; `q4` needs one with 4-bit groups."""
    if not native_is_built():
        pytest.skip("this installation has no native core")
    floats = TinyCheckpoint(tiny_config())
    groups = GroupedCheckpoint(tiny_config(), {"o_proj.weight": "Q4_0"})
    refused = {kind for kind in RunnerKind if bench.ours.reason_against(kind, floats)}
    assert {kind.precision for kind in refused} == {"q4"}
    assert {kind for kind in RunnerKind if kind.precision == "q4"} == refused
    assert not any(bench.ours.reason_against(kind, groups) for kind in RunnerKind)


@pytest.mark.parametrize("size", [1, 2, 7, 40, 10_000])
async def test_the_load_generator_counts_each_event_once(bench: ModuleType, size: int) -> None:
    told: list[int] = []
    stream = bench.adapter_http.Stream(b"", 3, lambda index, _: told.append(index))
    event = b'2a\r\ndata: {"choices":[{"text":"data: x"}]}\n\n\r\n'
    sent = b"HTTP/1.1 200 OK\r\n\r\n" + event * 5 + b"e\r\ndata: [DONE]\n\n"
    for start in range(0, len(sent), size):
        assert not stream.ended.done()
        stream.data_received(sent[start : start + size])
    assert told == [3] * 5
    assert stream.ended.done()
