"""Readers of recorded traffic, and replaying it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.errors import MixError
from salver.workload import Arrival, Workload
from salver.workload.mix import TraceFormat
from salver.workload.traces import read_trace

MakeWorkload = Callable[..., Workload]

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:18:04.0781490,110,27
"""


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE)
    return path


@pytest.fixture
def mooncake(tmp_path: Path) -> Path:
    """200 requests on a grid of 3 s; all share block 0, and pairs share block 1 + i // 2."""
    path = tmp_path / "mooncake.jsonl"
    lines = [
        {
            "timestamp": i // 4 * 3000,
            "input_length": 1200,
            "output_length": 100 + i,
            "hash_ids": [0, 1 + i // 2, 1000 + i],
        }
        for i in range(200)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def faults_of(path: Path, form: TraceFormat) -> list[tuple[int | None, str]]:
    with pytest.raises(MixError) as caught:
        read_trace(path, form)
    return [(fault.line, fault.rule) for fault in caught.value.faults]


def test_azure_is_read_from_its_first_request_on(azure: Path) -> None:
    trace = read_trace(azure, TraceFormat.AZURE)
    assert [row.at for row in trace.rows] == pytest.approx([0, 0.052, 60.098189], abs=1e-5)
    assert [(row.input_tokens, row.output_tokens) for row in trace.rows] == [
        (4808, 10),
        (3180, 8),
        (110, 27),
    ]


def test_every_faulty_line_is_told(azure: Path) -> None:
    azure.write_text(AZURE + "yesterday,1,1\n2023-11-16 18:18:05.0,1\n2023-11-16 18:18:05.0,x,1\n")
    assert faults_of(azure, TraceFormat.AZURE) == [(line, "trace.form") for line in (5, 6, 7)]


def test_a_trace_out_of_order_is_refused(azure: Path) -> None:
    azure.write_text(AZURE + "2023-11-16 18:17:00.0,1,1\n")
    assert faults_of(azure, TraceFormat.AZURE) == [(5, "trace.order")]


@pytest.mark.parametrize("text", ["", "a,b,c\n1,2,3\n"])
def test_another_heading_is_refused(azure: Path, text: str) -> None:
    azure.write_text(text)
    assert faults_of(azure, TraceFormat.AZURE) == [(1, "trace.form")]


def test_a_missing_file_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "none", TraceFormat.SALVER) == [(None, "mix.file")]
    (tmp_path / "empty").touch()
    assert faults_of(tmp_path / "empty", TraceFormat.SALVER) == [(None, "trace.form")]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "nonsense",
        '{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": [1]}',
        '{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]}',
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1], "more": 1}',
    ],
)
def test_a_faulty_mooncake_line_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace"
    path.write_text(line + "\n")
    assert faults_of(path, TraceFormat.MOONCAKE) == [(1, "trace.form")]


def test_at_most_20_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("{}\n" * 1000)
    assert len(faults_of(path, TraceFormat.SALVER)) == 20


def replayed(make: MakeWorkload, path: Path, form: str, **times: Any) -> list[Arrival]:
    options = times.pop("options", {})
    workload = make(
        mix={"duration": times.pop("duration", "40s")},
        trace={"file": str(path), "format": form},
        arrivals={"trace": times},
        input={"trace": 0.125},
        output={"trace": 0.5, "min": 2},
    )
    return list(workload.schedule(**options))


def test_a_replay_has_the_trace_s_lengths_and_gaps(
    make_workload: MakeWorkload, azure: Path
) -> None:
    arrivals = replayed(make_workload, azure, "azure", duration="60s", speed=0.1)
    assert [one.at for one in arrivals] == pytest.approx([0, 0.52], abs=1e-4)
    assert [one.input_tokens for one in arrivals] == [601, 398]
    assert [one.max_tokens for one in arrivals] == [5, 4]


def test_a_trace_that_ends_early_is_refused(make_workload: MakeWorkload, azure: Path) -> None:
    for options in ({"speed": 2}, {"options": {"rate_factor": 2.0}}, {"skip": "21s"}):
        with pytest.raises(MixError) as caught:
            replayed(make_workload, azure, "azure", **options)
        assert caught.value.faults[0].rule == "mix.trace_reaches"


def test_mooncake_instants_are_spread_over_their_step(
    make_workload: MakeWorkload, mooncake: Path
) -> None:
    arrivals = replayed(make_workload, mooncake, "mooncake", duration="60s")
    assert len({one.at for one in arrivals}) == len(arrivals) == 80
    for index, one in enumerate(arrivals):
        assert index // 4 * 3 <= one.at < index // 4 * 3 + 3
    inside = np.array([one.at % 3 for one in arrivals])
    assert inside.mean() == pytest.approx(1.5, abs=0.4)


def test_equal_hashes_are_equal_tokens_and_others_differ(
    make_workload: MakeWorkload, mooncake: Path
) -> None:
    prompts = [one.prompt for one in replayed(make_workload, mooncake, "mooncake")]
    assert {len(prompt) for prompt in prompts} == {150}
    assert len({prompt[:64] for prompt in prompts}) == 1  # 512 / 8
    assert len({prompt[:128] for prompt in prompts}) == -(-len(prompts) // 2)
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("factor", [0.25, 0.5, 3.0])
def test_scaling_a_trace_s_rate_keeps_its_shape(
    make_workload: MakeWorkload, mooncake: Path, factor: float
) -> None:
    once = replayed(make_workload, mooncake, "mooncake", duration="30s")
    scaled = replayed(
        make_workload, mooncake, "mooncake", duration="30s", options={"rate_factor": factor}
    )
    shared = min(len(once), len(scaled))
    assert shared >= 8
    assert _sharing(once[:shared]) == _sharing(scaled[:shared])
    assert len(scaled) == pytest.approx(len(once) * factor, abs=3)


def _sharing(arrivals: list[Arrival]) -> list[tuple[int, int]]:
    """How many tokens each prompt has, and how many of its beginnings (64 more each) none had before."""
    said: set[object] = set()
    sharing = []
    for prompt in (one.prompt for one in arrivals):
        blocks = {prompt[: begin + 64] for begin in range(0, len(prompt), 64)}
        sharing.append((len(prompt), len(blocks - said)))
        said |= blocks
    return sharing


def test_lengths_of_a_trace_under_other_arrivals(
    make_workload: MakeWorkload, mooncake: Path
) -> None:
    workload = make_workload(
        trace={"file": str(mooncake), "format": "mooncake"},
        input={"trace": 0.5},
        output={"trace": 1},
    )
    outputs = {one.max_tokens for one in workload.schedule()}
    assert len(outputs) > 150
    assert outputs <= set(range(100, 300))


def test_the_scaling_of_a_trace_is_told(make_workload: MakeWorkload, azure: Path) -> None:
    workload = make_workload(
        trace={"file": str(azure), "format": "azure"},
        arrivals={"trace": {"speed": 0.5}},
        input={"trace": 0.125},
        output={"fixed": 9},
    )
    (scaling,) = workload.scalings(rate_factor=0.5)
    assert (scaling.speed, scaling.input, scaling.output) == (0.25, 0.125, None)


def test_the_bench_s_own_records_are_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"at": 1.5, "input_tokens": 3, "output_tokens": 4, "tenant": "a", "blocks": [7]}\n'
        '{"at": 2.0, "input_tokens": 5, "output_tokens": 0, "max_tokens": 6}\n'  # refused
    )
    rows = read_trace(path, TraceFormat.SALVER).rows
    assert [row.output_tokens for row in rows] == [4, 6]
    assert [(row.at, row.input_tokens, row.blocks) for row in rows] == [(0, 3, (7,)), (0.5, 5, ())]


@given(steps=st.lists(st.integers(0, 13), min_size=4, max_size=12), wanted=st.integers(1, 30))
@settings(max_examples=10, deadline=None)
def test_a_rate_of_a_trace_on_a_grid_is_what_comes(
    steps: list[int],
    wanted: int,
    make_workload: MakeWorkload,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its rows are spread over their steps, and those of the last one partly behind the end."""
    path = tmp_path_factory.mktemp("grid") / "grid.jsonl"
    counts = [1, *steps, 40]
    rows = (
        {"timestamp": 3000 * step, "input_length": 8, "output_length": 4, "hash_ids": [step]}
        for step, count in enumerate(counts)
        for _ in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workload = make_workload(
        mix={"duration": "20s"},
        trace={"file": str(path), "format": "mooncake"},
        arrivals={"trace": {}},
    )
    factor = workload.factor_for(wanted / 20)
    seeds = range(30)
    came = [len(list(workload.schedule(seed=seed, rate_factor=factor))) for seed in seeds]
    largest = max(counts)  # of a step of n rows, k come: the variance is n/4 at most
    assert np.mean(came) == pytest.approx(wanted, abs=5 * (largest / 4 / len(seeds)) ** 0.5 + 1e-9)
    assert max(came) - min(came) <= largest
