"""`salver doctor` and the machine it reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salver.cli import machine as machines
from salver.cli.app import run
from salver.cli.exits import Exit
from salver.cli.machine import MATTERING_FLAGS, Machine, read_bandwidth, this_machine


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure over little memory: the value does not matter here."""

    def quick(machine: Machine) -> float:
        return read_bandwidth(machine, total_bytes=2**20)

    monkeypatch.setattr(machines, "read_bandwidth", quick)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert run(["doctor", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor(capsys)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_total"] >= found["machine"]["memory_available"] > 0
    assert set(found["machine"]["isa"]) <= set(MATTERING_FLAGS)
    assert found["read_bandwidth_bytes_per_second"] > 0
    assert found["fits"] is None


def test_a_model_file(capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> None:
    found = doctor(capsys, tiny_gguf)
    assert found["fits"] is True
    assert found["memory"]["kv_tokens"] > 0
    bound = found["read_bandwidth_bytes_per_second"] / found["memory"]["weights_bytes"]
    assert found["decode_bound_tokens_per_second"] == pytest.approx(bound)


def test_a_contract(
    capsys: pytest.CaptureFixture[str], contract: Callable[..., Path], pulled: Path
) -> None:
    assert doctor(capsys, contract())["memory"]["kv_tokens"] == 4 * 64
    found = doctor(capsys, contract(memory="1MiB"))
    assert found["fits"] is False
    assert found["problem"]["rule"] == "envelope.memory"


def test_a_contract_whose_model_is_not_here(
    capsys: pytest.CaptureFixture[str], contract: Callable[..., Path]
) -> None:
    assert run(["doctor", str(contract())]) == Exit.UNREACHABLE
    assert "salver pull" in capsys.readouterr().err


def test_a_table_for_people(capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> None:
    assert run(["doctor", str(tiny_gguf)]) == 0
    out = capsys.readouterr().out
    for word in ("cpu", "isa", "cores", "read bandwidth", "GB/s", "KV pool", "tokens/s"):
        assert word in out


def test_a_file_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"noise" * 100)
    assert run(["doctor", str(path)]) == Exit.INTEGRITY


def test_the_limits_of_a_container_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit, usage = tmp_path / "limit", tmp_path / "usage"
    limit.write_text("1048576\n")
    usage.write_text("48576\n")
    monkeypatch.setattr(machines, "_CGROUP_MEMORY", ((str(limit), str(usage)),))
    machine = this_machine()
    assert (machine.memory_total, machine.memory_available) == (1048576, 1000000)
    limit.write_text("max\n")
    assert this_machine().memory_total > 2**26
