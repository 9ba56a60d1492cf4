"""The live line, on a terminal that is one."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from salver.bench.progress import Line
from salver.bench.record import Record
from salver.bench.run import Progress
from salver.telemetry import Ending, Objectives

if TYPE_CHECKING:
    from tests.bench.conftest import Stub

DRAWN = re.compile(
    r"^ *\d+\.\d s +\d+\.\d\d sent/s +\d+ in flight  goodput +\d+%  lag +\d+ ms  http"
)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal of 100 columns: our side, and its."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    yield ours, its
    os.close(ours)


def test_a_run_shows_itself_on_a_terminal_and_leaves_nothing(
    stub: "Stub", mix_text: Callable[..., str], terminal: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "mix.yaml").write_text(mix_text(duration="1s", slo={"e2e": "20s"}))
    ours, its = terminal
    command = [sys.executable, "-m", "salver.cli", "bench", str(tmp_path / "mix.yaml"), "--json"]
    with subprocess.Popen(
        [*command, "--url", stub.url, "--output", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=its,
    ) as client:
        os.close(its)
        written = _all_of(ours)
    assert client.returncode == 0
    before, _, after = written.rpartition("\r\x1b[K")
    lines = before.split("\r\x1b[K")[1:]
    assert len(lines) >= 2
    assert [line for line in lines if not DRAWN.match(line)] == []
    assert "goodput 100%" in lines[-1]
    assert after.startswith(f"{tmp_path}")  # where the line was, the command goes on


def _all_of(terminal: int) -> str:
    """Until the other side is closed, which Linux tells as an error."""
    written = b""
    while True:
        try:
            written += os.read(terminal, 4096)
        except OSError:
            return written.decode()


def test_a_narrow_terminal_gets_a_line_that_does_not_wrap(terminal: tuple[int, int]) -> None:
    ours, its = terminal
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    with os.fdopen(its, "w") as stream:
        Line(stream, "http://a-long-name", Objectives(ttft=1.0))(Progress(now=1.0))
        drawn = os.read(ours, 4096).decode().removeprefix("\r\x1b[K")
    assert len(drawn) == 29
    assert drawn.startswith("  1.0 s")


def test_goodput_is_that_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Of what ended: one in time, one late, one refused; each is judged once."""
    line = Line(_none(), "http://x", Objectives(ttft=1.0))
    records = [_ended(0, 0.5), _ended(1, 1.5), _ended(2, None)]
    progress = Progress(now=1.0, sent=4, records=records[:1])
    assert "goodput 100%" in line.text(progress)
    progress.records.extend(records[1:])
    assert "goodput  33%" in line.text(progress)
    assert "1 in flight" in line.text(progress)
    assert "goodput  33%" in line.text(progress)


def _none() -> IO[str]:
    return sys.stderr


def _ended(number: int, ttft: float | None) -> Record:
    ending = Ending.REFUSED if ttft is None else Ending.COMPLETE
    events = [] if ttft is None else [ttft]
    return Record(
        number, 0.0, "f", "t", "standard", "", 0, 1, 1, 0.0, events, 2.0, 1, ending=ending
    )  # fmt: skip
