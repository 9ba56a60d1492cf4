"""`SALVER_ISA`: a path of the native core that is here is taken, another is refused by name."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salver.cli.app import run
from salver.cli.exits import Exit
from salver.cli.home import forced_isa
from salver.cli.service import Service
from salver.engine.runners import choice
from salver.engine.runners.choice import native_is_built, native_paths
from salver.errors import ContractError
from salver.worker import WorkerSpec

NATIVE = "native, quantization: w8a8, kv_cache: bf16"

needs_core = pytest.mark.skipif(not native_is_built(), reason="needs the native core")


@pytest.fixture
def native_contract(contract: Callable[..., Path], pulled: Path) -> Path:
    path = contract()
    path.write_text(path.read_text().replace("numpy, quantization: f32, kv_cache: f32", NATIVE))
    return path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[WorkerSpec]:
    """The specs of the workers that `salver serve` would have started."""
    specs: list[WorkerSpec] = []

    async def started(service: Service, listener: socket.socket, _: object) -> signal.Signals:
        listener.close()
        specs.append(service._worker_spec())
        return signal.SIGTERM

    monkeypatch.setattr(Service, "run", started)
    return specs


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the cores that runners opened."""
    from salver.cli import roofline
    from salver.engine.runners import native_runner, rates

    paths: list[str] = []
    new_core = native_runner._core

    def noted(*arguments: Any, isa: str, **others: Any) -> Any:
        paths.append(isa)
        return new_core(*arguments, isa=isa, **others)

    monkeypatch.setattr(native_runner, "_core", noted)
    monkeypatch.setattr(rates, "read_rate", lambda *_, **__: 1e9)
    monkeypatch.setattr(roofline, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "ROUNDS", 1)
    return paths


@needs_core
@pytest.mark.parametrize("arguments", [["doctor"], ["check"], ["serve", "--port", "0"]])
def test_a_path_that_is_not_here_is_refused_by_name(
    arguments: list[str],
    native_contract: Path,
    served: list[WorkerSpec],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SALVER_ISA", "sse")
    assert run([*arguments, str(native_contract)]) == Exit.USAGE
    assert not served
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "SALVER_ISA" in printed.err
    assert "value  sse" in printed.err
    assert "rule   machine.isa" in printed.err
    assert f"set it to one of {', '.join(native_paths())}, or unset it" in printed.err


@needs_core
def test_so_it_is_for_a_bare_model_before_anything_is_taken_in(
    tiny_gguf: Path, home: Path, served: list[WorkerSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_ISA", "AVX2")  # names are lower case
    assert run(["serve", str(tiny_gguf), "--port", "0"]) == Exit.USAGE
    assert not served
    assert not home.exists()


@needs_core
@pytest.mark.parametrize("path", native_paths())
def test_every_path_that_is_here_reaches_the_worker(
    path: str, native_contract: Path, served: list[WorkerSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_ISA", path)
    assert run(["check", str(native_contract)]) == Exit.DONE
    assert run(["serve", str(native_contract), "--port", "0"]) == Exit.DONE
    assert [spec.isa for spec in served] == [path]


@needs_core
def test_a_lower_path_is_measured_and_run(
    native_contract: Path,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SALVER_ISA", "scalar")
    assert run(["doctor", str(native_contract), "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["rates"]["isa"] == "scalar"
    assert set(opened) == {"scalar"}


@needs_core
def test_without_one_the_fastest_path_is_run(opened: list[str], native_contract: Path) -> None:
    assert run(["doctor", str(native_contract)]) == Exit.DONE
    assert set(opened) == {native_paths()[-1]}


def test_without_the_core_there_is_nothing_to_hold_it_against(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "native_is_built", lambda: False)
    monkeypatch.setenv("SALVER_ISA", "sse")
    assert forced_isa() == "sse"


@needs_core
def test_the_refusal_is_one_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_ISA", "sse")
    with pytest.raises(ContractError, match="not here: sse") as caught:
        forced_isa()
    (fault,) = caught.value.faults
    assert (fault.path, fault.value, fault.rule) == ("SALVER_ISA", "sse", "machine.isa")
