"""`salver explain` and `salver schema`."""

import json
from pathlib import Path

import pytest

from salver.cli.app import run
from salver.contract import Action, Cause, Decision, Deployment
from salver.contract.rules import RULES
from salver.contract.schema import json_schema
from salver.contract.section import walk
from salver.state import DecisionLog
from salver.telemetry import Decided
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
    (record,) = json.loads(printed(capsys, "explain", "slo.e2e_p99", "--json"))
    assert (record["path"], record["enforced"]) == ("slo.e2e_p99", False)


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


def test_a_decision_is_explained_by_its_id(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    refused = Decision(
        "dec-cmpl-1",
        "tenants.max_in_flight",
        3,
        2,
        Action.REFUSE,
        Cause.CALLER,
        "the tenant has used 2 of its 2 in flight",
        1.0,
    )
    log = DecisionLog(home / "decisions.db", deployment="assistant", release="r1", wall=lambda: 0.0)
    log.observe(Decided(refused, "search", "req-1"))
    log.close()
    out = printed(capsys, "explain", "dec-cmpl-1")
    for part in ("tenants.max_in_flight", "3, held against a limit of 2", "refuse", "search"):
        assert part in out
    assert "1970-01-01T00:00:00.000+00:00" in out
    assert "Its requests in flight at once" in out, "what the contract says of the rule"
    (record,) = json.loads(printed(capsys, "explain", "dec-cmpl-1", "--json"))
    assert (record["verdict"], record["request_id"]) == ("broken", "req-1")


def test_what_another_backend_answered_broke_no_rule(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    told = Decision(
        "dec-r1", "fallback.order", 1, 2, Action.FALL_BACK, Cause.SERVER, "'b' is asked"
    )
    log = DecisionLog(home / "decisions.db", deployment="assistant", release="r1", wall=lambda: 0.0)
    log.observe(Decided(told, "search", "req-1"))
    log.close()
    (record,) = json.loads(printed(capsys, "explain", "dec-r1", "--json"))
    assert record["verdict"] == "kept"


def test_an_unknown_decision(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "dec-none"]) == 2
    assert "no decision with this id" in capsys.readouterr().err
