"""Results go to stdout, diagnostics to stderr, colour only where a person looks and allows it."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import typer

from salver.errors import ContractError, SalverError

if TYPE_CHECKING:
    from salver.contract.faults import Fault

_MIB = 2**20


def say(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def write(text: str) -> None:
    """Print a piece of a result at once, without ending the line."""
    typer.echo(text, nl=False)


def note(text: str) -> None:
    """Print a diagnostic."""
    typer.echo(text, err=True)


def say_json(value: Any) -> None:
    """Print a result for a program."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def bold(text: str, stream: IO[str] | None = None) -> str:
    return _styled(text, stream, bold=True)


def red(text: str, stream: IO[str] | None = None) -> str:
    return _styled(text, stream, fg="red", bold=True)


def yellow(text: str, stream: IO[str] | None = None) -> str:
    return _styled(text, stream, fg="yellow")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned columns, indented by two."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)


def size(count: int) -> str:
    """Bytes for a person's eye, in MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / _MIB:.1f} MiB"


def fault_text(fault: "Fault", *, file: str = "", stream: IO[str] | None = None) -> str:
    """One fault on a few lines, beginning with `FILE:LINE: path` as editors expect it."""
    place = ":".join(part for part in (file, str(fault.line or "")) if part)
    head = f"{place}: {fault.path or '(the file)'}" if place else fault.path or "(the file)"
    rows = [("value", fault.value), ("rule", fault.rule), ("fix", fault.fix)]
    return f"{bold(head, stream)}\n{table([row for row in rows if row[1]])}"


def record(error: SalverError) -> dict[str, Any]:
    """An error for a program."""
    fields = {name: getattr(error, name) for name in ("problem", "rule", "value", "limit", "fix")}
    if isinstance(error, ContractError):
        fields["faults"] = [asdict(fault) for fault in error.faults]
    return {"error": type(error).__name__, **fields}


def _styled(text: str, stream: IO[str] | None, **style: Any) -> str:
    coloured = (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, **style) if coloured else text
