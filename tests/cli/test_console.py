"""Colour only where a person looks and allows it; tables that line up."""

import io

import pytest

from salver.cli import console
from salver.contract import Fault


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.red("no", Terminal()) == "\x1b[31m\x1b[1mno\x1b[0m"
    assert console.red("no", io.StringIO()) == "no"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.red("no", Terminal()) == "no"


def test_tables_line_up() -> None:
    assert console.table([("a", "1"), ("long", "22")]) == "  a     1\n  long  22"
    assert console.table([]) == ""


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0.0 MiB"), (2**20, "1.0 MiB"), (2**31, "2.00 GiB")]
)
def test_sizes(size: int, shown: str) -> None:
    assert console.size(size) == shown


def test_a_fault_begins_as_editors_expect() -> None:
    fault = Fault("a.b", "1", "schema.type", "write a string", line=7)
    assert console.fault_text(fault, file="c.yaml").startswith("c.yaml:7: a.b\n")
    assert console.fault_text(Fault("", "", "yaml.size", "less")).startswith("(the file)\n")
