"""The adapter's side of the line protocol: one JSON object per line on stdin and on stdout.

    argv[1]   {"model": PATH, "threads": 2, "max_running": 32, ...}      the adapter's Settings
    -> stdout {"ready": {...facts}, "probe": [token, ...]}                after one real inference
    <- stdin  {"prompts": [[token, ...], ...], "max_tokens": 64}
    -> stdout {"sent": T, "tokens": [[...], ...], "times": [[T, ...], ...]}
    -> stdout {"error": "..."}                                            instead of an answer

Instants T are seconds on the machine's monotonic clock. They are taken here, beside the engine, so
that neither JSON nor pipes are measured. End of file on stdin ends the adapter.

Every adapter runs in the environment of its engine: this module needs nothing but Python.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

OnToken = Callable[[int, int], None]
"""Called with (index of the prompt, token id) as soon as the engine hands out a token."""

PROBE_PROMPT = (504, 3575, 282, 4649, 314)
PROBE_TOKENS = 8


@dataclass(frozen=True)
class Settings:
    """What an adapter is told. `options` are the contender's own, as plain strings."""

    model: str
    threads: int
    max_running: int
    max_context_tokens: int
    max_batch_tokens: int
    options: dict[str, str]


class Engine(Protocol):
    """One engine with its model loaded."""

    @property
    def facts(self) -> dict[str, str | int]:
        """What the report says about it: at least `version` and `settings`."""

    def generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        """Send all prompts at once; greedy, end of sequence ignored. Returns when all ended."""


def serve(open_engine: Callable[[Settings], Engine]) -> None:
    """Run an adapter until stdin ends.

    What the engine prints goes to stderr: stdout belongs to the protocol.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = open_engine(Settings(**json.loads(sys.argv[1])))
    probe = _answer(engine, {"prompts": [list(PROBE_PROMPT)], "max_tokens": PROBE_TOKENS})
    if "error" in probe:
        sys.exit(probe["error"])
    print(json.dumps({"ready": engine.facts, "probe": probe["tokens"][0]}), file=answers)
    for line in sys.stdin:
        print(json.dumps(_answer(engine, json.loads(line))), file=answers)
    answers.flush()
    _end()


def _end() -> NoReturn:
    """At once, and with every process that the engine started: its own tear-down may hang."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _answer(engine: Engine, call: dict[str, Any]) -> dict[str, Any]:
    prompts, max_tokens = call["prompts"], call["max_tokens"]
    tokens: list[list[int]] = [[] for _ in prompts]
    times: list[list[float]] = [[] for _ in prompts]

    def on_token(index: int, token: int) -> None:
        times[index].append(time.monotonic())
        tokens[index].append(token)

    sent = time.monotonic()
    engine.generate(prompts, max_tokens, on_token)
    wrong = [len(each) for each in tokens if len(each) != max_tokens]
    if wrong:
        return {
            "error": f"{len(wrong)} of {len(prompts)} answers do not have {max_tokens} tokens, "
            f"one has {wrong[0]}"
        }
    return {"sent": sent, "tokens": tokens, "times": times}
