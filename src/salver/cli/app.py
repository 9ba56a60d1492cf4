"""The `salver` command.

A command's module is imported when the command is called and not before, so that `salver --help`
answers at once and `salver check` does not wait for what only `salver serve` needs. Errors travel
up to `run`, the one place that reports them and turns them into an exit code.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from salver import __version__
from salver.cli import console
from salver.cli.exits import Exit, exit_for
from salver.errors import ContractError, SalverError

COMMANDS = {
    "serve": "Check a contract and serve it.",
    "check": "Check a contract: every fault, what is enforced, and whether it fits this machine.",
    "pull": "Fetch an artifact into the store, verify it, and print its digest line for a contract.",
    "store": "Show the artifacts in the store and the packed weights kept beside them.",
    "schema": "Print the JSON Schema of a contract, for editors.",
    "explain": "Explain a rule, a part of a contract or a decision; without TOPIC, list all rules.",
    "keys": "Create, list and revoke API keys.",
    "bench": "Put a server under the load of a traffic mix, and report what came of it.",
    "doctor": "Measure this machine; show what would fit on it, and how fast it is and could be.",
}
"""Every command with its summary: its function's first line, or its group's help. `salver.cli.NAME`
has the function or the group, under the same name."""


class _Commands(TyperGroup):
    """Finds a command by importing its module. (Any: typer's own context type has moved before.)"""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"salver.cli.{cmd_name}"), cmd_name)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name, context_settings=_SETTINGS)(found)
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_SETTINGS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="salver",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.say(f"salver {__version__}")
        raise typer.Exit


@app.callback()
def _salver(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Serve models under a contract."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are reported on stderr.

    Typer itself reports a wrong call (2) and an interruption (130).
    """
    try:
        app(list(arguments), prog_name="salver")
    except SystemExit as done:
        return int(done.code or Exit.DONE)
    except SalverError as error:
        _report(error, as_json="--json" in arguments)
        return exit_for(error)
    except Exception as bug:
        bug.add_note("This is a bug in Salver, not in your contract; please report it.")
        raise
    return Exit.DONE


def _report(error: SalverError, *, as_json: bool) -> None:
    faults = error.faults if isinstance(error, ContractError) else ()
    if as_json:
        console.note(json.dumps(console.record(error), default=str))
        return
    for fault in faults:
        console.note(console.fault_text(fault, stream=sys.stderr))
    console.note(f"{console.red('error', sys.stderr)}: {error.problem}")
    for name in ("rule", "value", "limit", "fix"):
        if not faults and (content := getattr(error, name)) not in ("", None):
            console.note(f"  {name:<6} {content}")
