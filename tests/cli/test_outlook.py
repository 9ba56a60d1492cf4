"""Latency objectives in `salver check`: foretold from the last start's measurements, or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from salver.cli.app import app
from salver.cli.exits import Exit
from salver.cli.last_start import LastStart
from salver.cli.machine import Machine, this_machine
from salver.contract import LatencyModel, Release, load_deployment

MEASURED = LatencyModel(base=0.010, per_token=1e-3, per_attended=1e-6, per_logit_row=1e-4)


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def latency(path: Path) -> Any:
    return json.loads(check(path, "--json").stdout)["latency"]


@pytest.fixture
def promising(contract: Callable[..., Path], pulled: Path) -> Callable[[str], Path]:
    """A contract for the tiny model, which is in the store, with these objectives."""

    def write(slo: str) -> Path:
        path = contract()
        path.write_text(f"{path.read_text()}\nslo: {{{slo}}}\n")
        return path

    return write


def last_start(home: Path, path: Path, machine: Machine | None = None) -> LastStart:
    release = load_deployment(path).release
    return LastStart(home / "store", release, machine or this_machine(), None)


def test_what_was_never_measured_is_said_to_be_unknown(promising: Callable[[str], Path]) -> None:
    path = promising("tpot_p95: 50ms")
    result = check(path, "--strict")
    assert result.exit_code == Exit.DONE
    assert "latency not foretold: this model was not measured on this machine yet" in result.stdout
    assert "serve it once" in result.stdout
    assert latency(path)["forecasts"] == []


@pytest.mark.parametrize(
    ("slo", "verdict", "code"),
    [
        ("tpot_p95: 5ms", "broken", Exit.DOES_NOT_FIT),
        ("tpot_p95: 16ms", "depends", Exit.DONE),
        ("tpot_p95: 1s", "kept", Exit.DONE),
        ("ttft_p95: 5ms", "broken", Exit.DOES_NOT_FIT),
        ("ttft_p95: 30ms", "depends", Exit.DONE),
        ("ttft_p95: 10s", "kept", Exit.DONE),
    ],
)
def test_an_objective_has_a_verdict(
    promising: Callable[[str], Path], home: Path, slo: str, verdict: str, code: Exit
) -> None:
    path = promising(slo)
    last_start(home, path).keep(MEASURED)
    result = check(path)
    assert result.exit_code == code
    [found] = latency(path)["forecasts"]
    assert (found["objective"], found["verdict"]) == (f"slo.{slo.partition(':')[0]}", verdict)
    assert 0 < found["least"] < found["most"]
    if code:
        assert "does not fit: slo." in result.stdout
        assert "max_running" in result.stdout


def test_without_objectives_nothing_is_said(contract: Callable[..., Path], pulled: Path) -> None:
    path = contract()
    assert latency(path) == {"unknown": "", "forecasts": []}
    assert "latency" not in check(path).stdout


def release_of(path: Path, **changes: object) -> Release:
    release = load_deployment(path).release
    return release.model_copy(update={"envelope": release.envelope.model_copy(update=changes)})


def test_a_record_is_of_one_model_runtime_and_machine(
    promising: Callable[[str], Path], home: Path, tmp_path: Path
) -> None:
    path, machine = promising("tpot_p95: 50ms"), this_machine()
    last_start(home, path).keep(MEASURED)
    other = Machine("another", (), machine.cores, 1, 1)
    assert last_start(home, path).latency() == MEASURED
    assert last_start(home, path, other).latency() is None

    def kept(release: Release, isa: str | None = None) -> LatencyModel | None:
        return LastStart(home / "store", release, machine, isa).latency()

    assert kept(release_of(path, threads=2)) is None
    assert kept(release_of(path), isa="scalar") is None
    assert kept(release_of(path, max_running=1)) == MEASURED


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"machine":"","latency":{"base":-1}}', b"\xff",
     b'{"machine":"m","latency":{"base":-1.0,"per_token":0,"per_attended":0,"per_logit_row":0}}'],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_none(
    promising: Callable[[str], Path], home: Path, content: bytes
) -> None:
    record = last_start(home, promising("tpot_p95: 50ms"))
    record.keep(MEASURED)
    record.path.write_bytes(content)
    assert record.latency() is None


def test_a_disk_that_refuses_loses_the_record_and_nothing_else(
    promising: Callable[[str], Path], home: Path
) -> None:
    record = last_start(home, promising("tpot_p95: 50ms"))
    (home / "store" / "measured").write_text("in the way")
    record.keep(MEASURED)
    assert record.latency() is None
