"""`salver check`: faults, what is only declared, and the proof that it fits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from salver.cli.app import app, run
from salver.cli.exits import Exit
from salver.cli.fit import Fit, machine_problems, prove_fit
from salver.cli.machine import Machine
from salver.contract import Envelope, load_deployment
from salver.errors import DoesNotFit
from salver.testing.tiny_model import TinyCheckpoint, tiny_config

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = Machine("a processor", (), cores=1, memory_total=2**30, memory_available=2**29)


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def record(*arguments: object) -> Any:
    return json.loads(check(*arguments, "--json").stdout)


def test_all_faults_are_printed_with_path_value_rule_and_fix(contract: Callable[..., Path]) -> None:
    path = contract(memory="1", threads="two")
    result = check(path)
    assert result.exit_code == Exit.USAGE
    lines = path.read_text().splitlines()
    at = lines.index("    memory: 1") + 1
    assert f"{path}:{at}: release.envelope.memory\n  value  1\n" in result.stdout
    assert "  rule   quantity.size\n" in result.stdout
    assert "such as 1GiB" in result.stdout
    assert "release.envelope.threads" in result.stdout
    assert "2 faults" in result.stdout


def test_faults_as_json(contract: Callable[..., Path]) -> None:
    found = record(contract(memory="1"))
    assert (found["ok"], found["exit_code"], found["fit"]) == (False, 2, None)
    assert [(fault["path"], fault["rule"]) for fault in found["faults"]] == [
        ("release.envelope.memory", "quantity.size")
    ]


def test_a_model_in_the_store_is_proven_to_fit(contract: Callable[..., Path], pulled: Path) -> None:
    path = contract()
    result = check(path, "--strict")
    assert result.exit_code == Exit.DONE, result.stdout
    assert "\nfits\n" in result.stdout
    found = record(path)
    assert found["ok"]
    assert found["fit"]["proven"]
    memory = found["fit"]["memory"]
    assert memory["kv_tokens"] == 4 * 64  # four running requests of a full context, no more
    assert memory["kv_pool_bytes"] == memory["num_blocks"] * memory["block_bytes"]
    assert memory["block_size"] == 16
    assert found["release"] == load_deployment(path).release.id


def test_an_absent_model_leaves_the_fit_unproven(contract: Callable[..., Path]) -> None:
    path = contract()
    result = check(path)
    assert result.exit_code == Exit.DONE
    assert "not proven to fit" in result.stdout
    assert f"salver pull {path}" in result.stdout
    assert check(path, "--strict").exit_code == Exit.FAILED
    assert record(path)["fit"] == {"proven": False, "problems": [], "memory": None}


def test_checking_leaves_no_trace(contract: Callable[..., Path], home: Path) -> None:
    check(contract())
    assert not home.exists()


@pytest.mark.parametrize(
    ("envelope", "rules"),
    [
        ({"memory": "1MiB"}, ["envelope.memory"]),
        ({"max_context_tokens": 65}, ["envelope.max_context_tokens"]),
        ({"memory": "900TB"}, ["machine.memory"]),
        # Every thread needs room for its part of a step, so absurdly many do not fit either way.
        ({"threads": 1024}, ["envelope.memory", "machine.threads"]),
    ],
)
def test_what_does_not_fit(
    contract: Callable[..., Path], pulled: Path, envelope: dict[str, Any], rules: list[str]
) -> None:
    path = contract(**envelope)
    result = check(path)
    assert result.exit_code == Exit.DOES_NOT_FIT
    assert "does not fit: " in result.stdout
    assert [problem["rule"] for problem in record(path)["fit"]["problems"]] == rules


def test_the_machine_is_held_against_even_without_the_model(contract: Callable[..., Path]) -> None:
    assert check(contract(memory="900TB")).exit_code == Exit.DOES_NOT_FIT


def test_a_damaged_model_is_an_integrity_failure(
    contract: Callable[..., Path], pulled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled.chmod(0o600)
    with pulled.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    assert run(["check", str(contract())]) == Exit.INTEGRITY
    assert "digest" in capsys.readouterr().err


def test_without_a_native_core_the_full_example_is_sound_but_for_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("salver.engine.runners.choice.native_is_built", lambda: False)
    result = check(EXAMPLES / "full.yaml")
    assert result.exit_code == Exit.USAGE
    found = record(EXAMPLES / "full.yaml")
    assert [fault["rule"] for fault in found["faults"]] == ["runtime.engine_available"]
    declared = [part["path"] for part in found["declared_only"]]
    assert {"slo.e2e_p99", "rollout"} <= set(declared)
    assert "declared, but not yet enforced" in result.stdout
    assert all(path in result.stdout for path in declared)


def test_the_short_example_has_no_faults() -> None:
    found = record(EXAMPLES / "smollm2-numpy.yaml")
    assert (found["faults"], found["declared_only"]) == ([], [])


def test_machine_problems_come_together() -> None:
    envelope = Envelope.model_construct(memory=2**31, threads=2)
    assert [problem.rule for problem in machine_problems(envelope, SMALL)] == [
        "machine.memory",
        "machine.threads",
    ]


def test_a_fit_can_be_required(contract: Callable[..., Path]) -> None:
    release = load_deployment(contract()).release
    fit = prove_fit(release, TinyCheckpoint(tiny_config()), SMALL)
    assert fit.require() is fit.plan
    with pytest.raises(DoesNotFit, match="not in the store"):
        prove_fit(release, None, SMALL).require()
    problem = DoesNotFit("too large")
    with pytest.raises(DoesNotFit, match="too large"):
        Fit(fit.plan, (problem,)).require()
