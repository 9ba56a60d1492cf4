"""Write docs/reference.md from the code, so that it cannot drift. `make docs` runs this.

`python docs/generate.py --check` writes nothing and fails when the file is out of date.
"""

import inspect
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

os.environ["COLUMNS"] = "96"  # before typer looks; help is laid out for a page, not a terminal
os.environ["NO_COLOR"] = "1"

import typer
from typer.testing import CliRunner

from salver import errors
from salver.cli.app import COMMANDS, app
from salver.cli.exits import Exit, exit_for
from salver.contract import LoadSnapshot
from salver.contract.enforcement import ENFORCED, NOT_YET
from salver.contract.rules import RULES
from salver.contract.section import walk
from salver.telemetry import ServiceLabels
from salver.telemetry.exporters.prometheus import PrometheusExporter
from salver.workload import MIX_RULES, Mix

TARGET = Path(__file__).with_name("reference.md")
HEAD = "# Reference\n\nWritten by `make docs` from the code; do not edit by hand.\n"


def reference() -> str:
    parts = [HEAD, *commands(), *exit_codes(), *contract(), *mix(), *error_tree(), *metrics()]
    return "\n".join(parts) + "\n"


def commands() -> Iterator[str]:
    yield "## Commands\n"
    for name in COMMANDS:
        yield f"### salver {name}\n"
        for way in ways(name):
            shown = CliRunner().invoke(app, [*way, "--help"], prog_name="salver").output.strip()
            yield f"```text\n{shown}\n```\n"


def ways(name: str) -> list[list[str]]:
    """A command, or a group and then each of its commands."""
    found = getattr(import_module(f"salver.cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        return [[name]]
    return [[name], *([name, command] for command in typer.main.get_group(found).commands)]


def exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    raised = [kind for kind in kinds if issubclass(kind, errors.SalverError)]
    rows = [("code", "name", "errors that end with it")]
    for code in Exit:
        names = [
            kind.__name__
            for kind in raised
            if code and kind is not errors.SalverError and exit_for(kind.__new__(kind)) is code
        ]
        rows.append((str(int(code)), code.name, ", ".join(names)))
    yield table(rows)


def contract() -> Iterator[str]:
    yield "## What of a contract is enforced\n"
    yield table([("field", "how it is kept"), *((f"`{k}`", v) for k, v in ENFORCED.items())])
    yield "Declared, validated, and not yet enforced; `salver check` says so:\n"
    yield table([("part", "what happens instead"), *((f"`{k}`", v) for k, v in NOT_YET.items())])
    yield "## Rules of a contract\n"
    rules = RULES.values()
    yield table([("rule", "it asks"), *((f"`{rule.name}`", rule.asks) for rule in rules)])


def mix() -> Iterator[str]:
    yield "## Keys of a traffic mix\n"
    keys = [(f"`{path}`", str(info.description)) for path, info in walk(Mix)]
    yield table([("key", "what it says"), *keys])
    yield "## Rules of a traffic mix\n"
    rules = MIX_RULES.values()
    yield table([("rule", "it asks"), *((f"`{rule.name}`", rule.asks) for rule in rules)])


def error_tree() -> Iterator[str]:
    yield f"## Errors\n\n```text\n{(inspect.getdoc(errors) or '').strip()}\n```\n"


def metrics() -> Iterator[str]:
    yield "## Metrics\n"
    labels = ServiceLabels(deployment="d", release="r", model="m", mode="production", version="0")
    exporter = PrometheusExporter(
        labels, load=LoadSnapshot, ready=lambda: True, worker_restarts=lambda: 0
    )
    lines = exporter.render().decode().splitlines()
    kinds = dict(line.split(" ")[2:4] for line in lines if line.startswith("# TYPE"))
    helps = [line.split(" ", 3)[2:] for line in lines if line.startswith("# HELP")]
    rows = [(f"`{name}`", kinds[name], text) for name, text in helps if "_created" not in name]
    yield table([("metric", "type", "meaning"), *sorted(rows)])


def table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is its head."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        TARGET.write_text(reference())
    elif TARGET.read_text() != reference():
        sys.exit("docs/reference.md is out of date: run `make docs`")
