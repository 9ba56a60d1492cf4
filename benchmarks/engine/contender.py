"""A contender: an adapter in a process of its own, and our side of the line protocol.

Only the contender being measured runs; the others are stopped by signal, with all their children, so
that a thread that spins while idle costs its neighbours nothing.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from quiet import CpuTime
from workload import Times

HERE = Path(__file__).resolve().parent


class ContenderFailed(Exception):
    """An adapter ended, was too slow, or said that it could not do what was asked."""


@dataclass(frozen=True)
class Contender:
    """How to start one. `weights` is the precision that it computes from, as the report groups it."""

    name: str
    weights: str
    python: Path
    adapter: str
    model: str
    ours: bool = False
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One call's answer; instants in seconds on the machine's monotonic clock.

    `foreign` is the share of all cores' time that anyone but the contender and idling took.
    """

    sent: float
    tokens: list[list[int]]
    times: Times
    foreign: float

    @property
    def seconds(self) -> float:
        return max(stream[-1] for stream in self.times) - self.sent


class Running:
    """A started contender.

    Args:
        contender: what to start.
        limits: the rest of the adapter's settings: threads, streams, context, batch tokens.
        logs: the directory for what it prints.
        patience: seconds for starting, or for one answer.

    Raises:
        ContenderFailed: it did not become ready.
    """

    def __init__(
        self, contender: Contender, limits: dict[str, int], logs: Path, patience: float
    ) -> None:
        self.contender = contender
        self._patience = patience
        self._log = logs / f"{contender.name}.log"
        settings = {"model": contender.model, "options": contender.options, **limits}
        command = [str(contender.python), str(HERE / contender.adapter), json.dumps(settings)]
        began = time.monotonic()
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=_environment(contender.python),
            )
        try:
            ready = self._read()
        except ContenderFailed:
            self.close()
            raise
        self.start_seconds = time.monotonic() - began
        self.facts: dict[str, str | int] = ready["ready"]
        self.probe: list[int] = ready["probe"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Run:
        """Send all prompts at once, and wait for all answers.

        Raises:
            ContenderFailed: what came back is not `max_tokens` tokens for every prompt.
        """
        assert self._process.stdin is not None
        before = CpuTime.of(self._process.pid)
        try:
            call = {"prompts": prompts, "max_tokens": max_tokens}
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ContenderFailed(f"{self.contender.name} is gone: {error}") from error
        answer = self._read()
        if "error" in answer:
            raise ContenderFailed(f"{self.contender.name}: {answer['error']}")
        foreign = CpuTime.of(self._process.pid).foreign_since(before)
        return Run(answer["sent"], answer["tokens"], answer["times"], foreign)

    def sleep(self) -> None:
        """Stop its processes where they are."""
        self._signal(signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run in here."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.sleep()

    def close(self) -> None:
        """End it and all that it started. May be called again."""
        self._signal(signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # what was still to be sent to it
                if pipe is not None:
                    pipe.close()
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it ended by itself; whoever speaks to it next is told
            os.killpg(self._process.pid, number)

    def _read(self) -> dict[str, Any]:
        """The next line, or ContenderFailed. A contender that takes too long is killed."""
        assert self._process.stdout is not None
        watch = threading.Timer(self._patience, self._signal, (signal.SIGKILL,))
        watch.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            said = lines[-1][:300] if lines else "nothing"
            raise ContenderFailed(
                f"{self.contender.name} ended, or took over {self._patience:.0f} s; it said: {said}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def _environment(python: Path) -> dict[str, str]:
    """Ours without what would lead an adapter back into our environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    kept.pop("VIRTUAL_ENV", None)
    return kept | {"PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
