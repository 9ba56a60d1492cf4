"""The command line as a whole: what it answers to, where it prints, how it ends."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from salver import __version__
from salver.cli.app import COMMANDS, app, run
from salver.cli.exits import Exit, exit_for
from salver.errors import (
    BackendLost,
    BackendUnavailable,
    ContractError,
    DoesNotFit,
    FetchError,
    IntegrityError,
    MalformedModel,
    SalverError,
    StateUnavailable,
    TooLarge,
    UnsupportedModel,
)

REAL = [sys.executable, "-c", "from salver.cli import main; main()"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContractError("faulty"), 2),
        (TooLarge("large"), 2),
        (DoesNotFit("large"), 3),
        (IntegrityError("bytes"), 4),
        (MalformedModel("bytes"), 4),
        (FetchError("away"), 6),
        (BackendUnavailable("away"), 6),
        (BackendLost("away"), 6),
        (StateUnavailable("away"), 6),
        (UnsupportedModel("strange"), 2),
        (SalverError("other"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: SalverError, code: int) -> None:
    assert exit_for(error) == code


def test_the_codes_are_the_documented_ones() -> None:
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 5, 6, 130]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_under_its_own_summary(name: str) -> None:
    found = getattr(import_module(f"salver.cli.{name}"), name)
    if isinstance(found, typer.Typer):
        assert found.info.help == COMMANDS[name]
        ways = [
            [name, str(command.name)] for command in typer.main.get_group(found).commands.values()
        ]
    else:
        assert found.__doc__.splitlines()[0] == COMMANDS[name]
        ways = [[name]]
    for way in ways:
        result = CliRunner().invoke(app, [*way, "--help"])
        assert result.exit_code == 0
        assert "--json" in result.stdout


def test_help_lists_all_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"salver {__version__}\n"


@pytest.mark.parametrize("arguments", [["frobnicate"], ["check"], ["check", "a", "--no-such"]])
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == Exit.USAGE
    assert "Usage: salver" in capsys.readouterr().err


def test_errors_go_to_stderr_with_rule_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "quantity.siz"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "rule   explain.topic" in err
    assert "did you mean quantity.size?" in err


def test_errors_are_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "nonsense", "--json"]) == Exit.USAGE
    record = json.loads(capsys.readouterr().err)
    assert record["error"] == "InvalidValue"
    assert record["value"] == "nonsense"


def test_an_interruption_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("salver.cli.check.examine", interrupted)
    assert run(["check", "any.yaml"]) == Exit.INTERRUPTED


def test_a_bug_is_called_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("salver.cli.check.examine", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        run(["check", "any.yaml"])
    assert "bug in Salver" in caught.value.__notes__[0]


def test_a_real_process_prints_results_on_stdout(contract: Callable[..., Path]) -> None:
    command = [*REAL, "check", str(contract()), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "tiny"
    assert done.stderr == ""


def test_a_real_process_fails_with_its_code(tmp_path: Path) -> None:
    command = [*REAL, "check", str(tmp_path / "absent.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "file.readable" in done.stdout


def test_help_does_not_load_what_only_commands_need() -> None:
    heavy = {"numpy", "pydantic", "fastapi", "tokenizers", "salver.contract", "salver.registry"}
    heavy = {name for name in heavy if importlib.util.find_spec(name)}
    code = "import sys; from salver.cli.app import run; run(['--version']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not heavy & set(done.stdout.split())
