"""Prompts of files, as conversations and as texts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salver.errors import MixError
from salver.workload import Arrival, Workload
from salver.workload.arrival import Message

MakeWorkload = Callable[..., Workload]

PROMPTS = """{"turns": ["One?", "And then?"], "category": "x"}
{"turns": ["Two?"]}
{"turns": ["Three?", "Why?", "Really?"]}
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text(PROMPTS)
    return path


def drawn(make: MakeWorkload, path: Path, flow: dict[str, Any], **jsonl: Any) -> list[Arrival]:
    workload = make(prompts={"jsonl": {"file": str(path), **jsonl}}, input=None, **flow)
    return list(workload.schedule())


def test_without_sessions_every_request_is_a_first_turn(
    make_workload: MakeWorkload, prompts: Path
) -> None:
    arrivals = drawn(make_workload, prompts, {}, send="text")
    assert {one.prompt for one in arrivals[:3]} == {"One?", "Two?", "Three?"}
    assert [one.prompt for one in arrivals[:3]] == [one.prompt for one in arrivals[3:6]]
    assert {one.input_tokens for one in arrivals} == {None}


def test_numbered_conversations_share_no_beginning(
    make_workload: MakeWorkload, prompts: Path
) -> None:
    sessions = {"sessions": {"turns": {"fixed": 2}, "think": "1s"}}
    arrivals = drawn(make_workload, prompts, sessions, send="text", numbered=True)
    openings = {str(one.prompt)[:13] for one in arrivals}
    assert len(openings) == len({one.session for one in arrivals}) > 100
    for one in arrivals:
        assert re.match(r"\[[0-9]{10}\] [OT]", str(one.prompt))
        assert str(one.prompt).count("[") == 1  # later turns have none of their own


def test_sessions_follow_the_file_and_grow(make_workload: MakeWorkload, prompts: Path) -> None:
    sessions = {"sessions": {"turns": {"fixed": 2}, "think": "1s"}}
    arrivals = drawn(make_workload, prompts, sessions, system="Be brief.")
    second = next(one for one in arrivals if one.turn == 1)
    roles = [message.role for message in second.prompt if isinstance(message, Message)]
    assert roles == ["system", "user", "assistant", "user"]
    first = next(one for one in arrivals if one.session == second.session and one.turn == 0)
    assert second.prompt[:2] == first.prompt
    turns = {one.turn for one in arrivals}
    assert turns == {0, 1}


@pytest.mark.parametrize(
    "line", ["{}", "[]", '{"turns": []}', '{"turns": 3}', '{"turns": ["a", 1]}', '{"turns": ""}']
)
def test_a_faulty_line_is_told(make_workload: MakeWorkload, prompts: Path, line: str) -> None:
    prompts.write_text(PROMPTS + line + "\n")
    with pytest.raises(MixError) as caught:
        drawn(make_workload, prompts, {})
    assert [(fault.line, fault.rule) for fault in caught.value.faults] == [(4, "prompts.form")]


def test_a_file_that_is_nowhere_is_told(make_workload: MakeWorkload, tmp_path: Path) -> None:
    with pytest.raises(MixError) as caught:
        drawn(make_workload, tmp_path / "none", {})
    assert caught.value.faults[0].rule == "mix.file"
