"""`salver keys`."""

import json
from pathlib import Path

import pytest

from salver.cli.app import run


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(("keys", *arguments)) == 0
    return capsys.readouterr().out


def test_a_key_is_printed_once_and_alone(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    key = printed(capsys, "create", "search", "--note", "index").strip()
    assert key.startswith("sk-salver-")
    listed = printed(capsys, "list")
    assert key not in listed
    assert key.split("-")[2] in listed
    assert "search" in listed
    assert "index" in listed
    assert key[-43:].encode() not in (home / "state.db").read_bytes()


def test_a_key_is_revoked_by_its_id_or_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(printed(capsys, "create", "a", "--json"))
    second = json.loads(printed(capsys, "create", "a", "--scope", "operations", "--json"))
    printed(capsys, "revoke", first["id"])
    assert json.loads(printed(capsys, "revoke", second["key"], "--json"))["state"] == "revoked"
    listed = json.loads(printed(capsys, "list", "--json"))
    assert [(key["scopes"], key["state"]) for key in listed] == [
        (["inference"], "revoked"),
        (["operations"], "revoked"),
    ]


def test_scopes_and_expiry(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--scope", "inference", "--scope", "operations", "--days", "0", "--json")
    made = json.loads(printed(capsys, "create", "a", *options))
    assert made["scopes"] == ["inference", "operations"]
    assert made["state"] == "expired"
    assert printed(capsys, "list", "--tenant", "b") == ""


def test_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "not a name"]) == 2
    assert run(["keys", "revoke", "nobody"]) == 2
    assert run(["keys", "create", "a", "--scope", "all"]) == 2
    assert run(["keys"]) == 2
    capsys.readouterr()


def test_a_store_that_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_STATE", "postgresql://salver:hunter2@127.0.0.1:1/none")
    assert run(["keys", "list"]) == 6
    told = capsys.readouterr().err
    assert "state.available" in told
    assert "hunter2" not in told
