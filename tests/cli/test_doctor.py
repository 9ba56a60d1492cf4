"""`salver doctor` and the machine it reads."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from salver.cli import fit
from salver.cli import machine as machines
from salver.cli.app import run
from salver.cli.exits import Exit
from salver.cli.machine import MATTERING_FLAGS, this_machine
from salver.engine.runners import choice
from salver.engine.runners.choice import native_is_built

NATIVE = "native, quantization: w8a8, kv_cache: bf16"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure over little memory and for no time: the values do not matter here."""
    if native_is_built():
        from salver.cli import roofline
        from salver.engine.runners import rates

        def read_rate(threads: int, total_bytes: int = 2**20, *, seconds: float = 0.0) -> float:
            return measured_reading(threads, total_bytes, seconds=seconds)

        measured_reading = rates.read_rate
        monkeypatch.setattr(rates, "read_rate", read_rate)
        monkeypatch.setattr(rates, "matrix_rate", partial(rates.matrix_rate, seconds=0.0))
        monkeypatch.setattr(roofline, "ROUND_SECONDS", 0.0)
        monkeypatch.setattr(roofline, "ROUNDS", 2)


@pytest.fixture
def _no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "native_is_built", lambda: False)
    monkeypatch.setattr(fit, "native_is_built", lambda: False)


needs_core = pytest.mark.skipif(not native_is_built(), reason="needs the native core")


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert run(["doctor", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor(capsys)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_total"] >= found["machine"]["memory_available"] > 0
    assert set(found["machine"]["isa"]) <= set(MATTERING_FLAGS)
    assert found["fits"] is None
    assert found["roofline"] is None


@needs_core
def test_its_rates(capsys: pytest.CaptureFixture[str]) -> None:
    rates = doctor(capsys)["rates"]
    assert rates["threads"] == this_machine().cores
    assert all(rates[name] > 0 for name in ("read_by_one", "read", "int8", "bf16"))


@pytest.mark.usefixtures("_no_core")
def test_without_the_native_core(capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> None:
    assert doctor(capsys)["rates"] is None
    assert run(["doctor", str(tiny_gguf)]) == 0
    out = capsys.readouterr().out
    assert "install a C++20 compiler" in out
    assert "native core" in out
    assert "GB/s" not in out


def test_a_model_file(capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> None:
    found = doctor(capsys, tiny_gguf)
    assert found["fits"] is True
    assert found["memory"]["kv_tokens"] > 0


@needs_core
def test_the_roofline_of_a_model(capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> None:
    found = doctor(capsys, tiny_gguf)["roofline"]
    assert found["runner"] == "native/w8a16/bf16"
    names = [point["name"] for point in found["points"]]
    assert names == ["decode at 1", "decode at 8", "decode at 32", "prefill 8 x 32"]
    for point in found["points"]:
        assert point["streamed_bytes"] > found["weights_bytes_per_step"]
        assert point["tokens_per_second_reached"] > 0
        assert point["tokens_per_second_at_most"] > 0
        assert min(point["share"], point["bandwidth"], point["matrix_rate"]) > 0
        assert point["bound"] in ("bandwidth", "matrix rate")


@needs_core
def test_a_share_is_that_of_pairs() -> None:
    """Of medians that are of different rounds the share would be one half."""
    from salver.cli.roofline import Reached, Round
    from salver.engine.roofline import Load, Roof, Work

    load, steps = Load(1, 32, decoding=True), [Work(100.0, 1.0)]
    rounds = [
        Round(Roof(100 * most, 1e9), most, reached)
        for most, reached in ((4.0, 1.0), (2.0, 1.2), (1.0, 0.6))
    ]
    found = Reached.of(load, steps, rounds)
    assert (found.roof.bandwidth, found.most, found.reached) == (200.0, 2.0, 1.0)
    assert found.share == pytest.approx(0.6)


@needs_core
def test_loads_that_the_envelope_has_no_room_for_are_left_out(
    capsys: pytest.CaptureFixture[str], contract: Callable[..., Path], pulled: Path
) -> None:
    path = contract(max_running=8)
    text = path.read_text().replace("numpy, quantization: f32, kv_cache: f32", NATIVE)
    path.write_text(text)
    points = doctor(capsys, path)["roofline"]["points"]
    assert [point["name"] for point in points] == ["decode at 1", "decode at 8", "prefill 8 x 32"]


def test_a_contract(
    capsys: pytest.CaptureFixture[str], contract: Callable[..., Path], pulled: Path
) -> None:
    found = doctor(capsys, contract())
    assert found["memory"]["kv_tokens"] == 4 * 64
    assert found["roofline"] is None  # of the NumPy runner
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
    for word in ("cpu", "isa", "cores", "KV pool"):
        assert word in out


@needs_core
def test_a_roofline_for_people(capsys: pytest.CaptureFixture[str], tiny_gguf: Path) -> None:
    assert run(["doctor", str(tiny_gguf)]) == 0
    out = capsys.readouterr().out
    for word in (
        "read bandwidth",
        "GB/s",
        "int8 products",
        "at most",
        "reached",
        "in turn",
        "decode at 8",
    ):
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
