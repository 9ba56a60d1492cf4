"""`salver bench` from its arguments to its files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from salver.cli.app import run

if TYPE_CHECKING:
    from tests.bench.conftest import Stub


@pytest.fixture
def mix(tmp_path: Path, mix_text: Callable[..., str]) -> str:
    path = tmp_path / "mix.yaml"
    path.write_text(mix_text(duration="1s", slo={"e2e": "20s"}))
    return str(path)


def test_one_run(
    stub: "Stub", mix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "keys.json").write_text('{"default": "sk-1"}')
    keys = ("--keys", str(tmp_path / "keys.json"))
    assert run(["bench", mix, "--url", stub.url, "--output", str(out), *keys]) == 0
    printed = capsys.readouterr().out
    assert "100.0% of all arrivals" in printed
    assert "stub" in printed
    assert {path.name for path in out.iterdir()} == {
        "report.txt",
        "report.json",
        "report.html",
        "requests.jsonl",
    }
    records = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    report = json.loads((out / "report.json").read_text())
    assert len(records) == report["total"]["arrivals"]
    assert report["total"]["goodput"]["share"] == 1.0
    assert {headers.get("authorization") for _, headers, _ in stub.requests} == {"Bearer sk-1"}
    assert "sk-1" not in (out / "report.json").read_text() + (out / "report.html").read_text()


def test_a_run_can_be_replayed_from_its_records(
    stub: "Stub", mix: str, mix_text: Callable[..., str], tmp_path: Path
) -> None:
    assert run(["bench", mix, "--url", stub.url, "--output", str(tmp_path / "out")]) == 0
    flow = {
        "trace": {"file": "out/requests.jsonl", "format": "salver"},
        "arrivals": {"trace": {}},
        "input": {"trace": 1},
        "output": {"trace": 1},
    }
    (tmp_path / "again.yaml").write_text(mix_text(flow=flow, duration="500ms"))
    again = ["bench", str(tmp_path / "again.yaml"), "--url", stub.url]
    assert run([*again, "--output", str(tmp_path / "more")]) == 0


def test_runs_are_not_given_out_as_another_server_s(
    stub: "Stub", mix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["bench", mix, "--output", str(tmp_path / "out"), "--resume", "--model"]
    assert run([*asked, "stub", "--url", stub.url]) == 0
    before = len(stub.requests)
    assert run([*asked, "stub", "--url", stub.url]) == 0
    assert len(stub.requests) == before
    for other in (["stub", "--url", "http://127.0.0.1:9"], ["other", "--url", stub.url]):
        assert run([*asked, *other]) == 2
        assert "cannot be gone on from" in capsys.readouterr().err


def test_the_data_is_part_of_what_was_measured(
    stub: "Stub", mix_text: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"turns": "Say a word."}\n')
    flow = {"prompts": {"jsonl": {"file": "prompts.jsonl"}}}
    text = json.loads(mix_text(flow=flow, duration="1s", slo={"e2e": "20s"}))
    del text["flows"][0]["input"]
    (tmp_path / "mix.yaml").write_text(json.dumps(text))
    asked = ["bench", str(tmp_path / "mix.yaml"), "--url", stub.url, "--resume", "--output"]
    assert run([*asked, str(tmp_path / "out")]) == 0
    (tmp_path / "prompts.jsonl").write_text('{"turns": "Say another."}\n')
    assert run([*asked, str(tmp_path / "out")]) == 2


def test_a_sweep_and_a_comparison(stub: "Stub", mix: str, tmp_path: Path) -> None:
    base = ["bench", mix, "--url", stub.url, "--output"]
    assert run([*base, str(tmp_path / "sweep"), "--rates", "10,30", "--seeds", "2"]) == 0
    swept = json.loads((tmp_path / "sweep" / "report.json").read_text())
    assert [point["rate"] for point in swept["points"]] == [10, 30]
    assert run([*base, str(tmp_path / "both"), "--compare", stub.url, "--seeds", "2"]) == 0
    both = json.loads((tmp_path / "both" / "report.json").read_text())
    assert both["ratios"]["goodput"]["value"] == 1.0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--url", "nonsense"], 2, "no address"),
        (["--url", "http://127.0.0.1:9"], 6, "does not say which models"),
        (["--rates", "1,x"], 2, "above zero"),
        (["--rates", "1,nan"], 2, "above zero"),
        (["--rates", ","], 2, "above zero"),
        (["--rate", "0"], 2, "above zero"),
        (["--rate", "-3"], 2, "above zero"),
        (["--rate", "inf"], 2, "above zero"),
        (["--compare", "http://x", "--find", "95%"], 2, "--compare and --find together"),
        (["--compare", "http://x", "--rates", "1"], 2, "--compare and --rates together"),
        (["--find", "95%", "--rates", "1"], 2, "--find and --rates together"),
        (["--rates", "1,2", "--rate", "3"], 2, "--rates and --rate together"),
        (["--resume"], 2, "--resume of no directory"),
        (["--seed", "-1"], 2, "greater than or equal to 0"),
        (["--find", "95"], 2, "percentage"),
        (["--keys", "/none"], 2, "holds no keys"),
    ],
)
def test_what_cannot_be_done_is_said(
    stub: "Stub",
    mix: str,
    options: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = [] if "--url" in options else ["--url", stub.url]
    assert run(["bench", mix, *options, *url]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--rate", "3"], ["--rates", "1,2"], ["--find", "95%"]], ids=" ".join
)
def test_a_closed_loop_has_no_rate_to_ask_for(
    mix_text: Callable[..., str],
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(mix_text(flow={"arrivals": {"closed_loop": {"users": 1}}}))
    assert run(["bench", str(path), *options]) == 2
    assert f"{options[0]} of a closed loop" in capsys.readouterr().err


def test_a_trace_is_played_as_it_is_unless_a_rate_is_asked_for(
    stub: "Stub", mix_text: Callable[..., str], tmp_path: Path
) -> None:
    """The least factor with as many requests, 0.3, would play it more slowly, without its end."""
    rows = [{"at": at, "input_tokens": 1, "output_tokens": 1} for at in (0, 0.1, 0.3, 9)]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flow = {
        "trace": {"file": "trace.jsonl", "format": "salver"},
        "arrivals": {"trace": {}},
        "output": {"fixed": 1},
    }
    (tmp_path / "mix.yaml").write_text(mix_text(flow=flow, duration="1s"))
    base = ["bench", str(tmp_path / "mix.yaml"), "--url", stub.url, "--output"]
    for name, options, factor in (("own", [], 1.0), ("asked", ["--rate", "3"], 0.3)):
        run([*base, str(tmp_path / name), *options])
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["rate_factor"] == pytest.approx(factor)
        assert report["total"]["arrivals"] == 3


def test_a_faulty_mix_is_told_like_a_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mix.yaml").write_text("kind: TrafficMix\n")
    assert run(["bench", str(tmp_path / "mix.yaml")]) == 2
    assert "schema.required" in capsys.readouterr().err
