"""`salver explain` and `salver schema`."""

import json

import pytest

from salver.cli.app import run
from salver.contract import Deployment
from salver.contract.rules import RULES
from salver.contract.schema import json_schema
from salver.contract.section import walk
from salver.workload import MIX_RULES


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_without_a_topic_it_lists_all_rules(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [line.split()[0] for line in printed(capsys, "explain").splitlines()]
    assert listed == [*RULES, *MIX_RULES]
    assert [rule["name"] for rule in json.loads(printed(capsys, "explain", "--json"))] == listed


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_explained(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "explain", rule)
    assert RULES[rule].asks in out
    assert RULES[rule].why in out


def test_every_part_of_a_contract_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for path, info in walk(Deployment):
        assert str(info.description) in printed(capsys, "explain", path)


def test_a_part_says_whether_it_is_enforced(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "explain", "release.envelope.max_running")
    assert "enforced  bounds the sequences in a batch" in out
    (record,) = json.loads(printed(capsys, "explain", "tenants.0.weight", "--json"))
    assert (record["path"], record["enforced"]) == ("tenants.weight", False)


def test_a_choice_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "one of    numpy, native" in printed(capsys, "explain", "release.runtime.engine")
    assert "one of    off, on" in printed(capsys, "explain", "telemetry.prompt_logging")


def test_a_section_shows_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    records = json.loads(printed(capsys, "explain", "probes", "--json"))
    assert [record["path"] for record in records] == [
        "probes",
        "probes.golden",
        "probes.interval",
        "probes.wedge_after",
    ]


def test_the_schema_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "schema")) == json_schema()
    assert json.loads(printed(capsys, "schema", "--json")) == json_schema()
