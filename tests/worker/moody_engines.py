"""Engines for worker processes under test; their module is put on the child's PYTHONPATH."""

import os
import sys
import threading
import time
from pathlib import Path

from salver.clock import MonotonicClock
from salver.engine import EngineCore, ModelRunnerOutput, SchedulerOutput
from salver.errors import IntegrityError
from salver.testing import FakeRunner, LetterDecoder
from salver.worker import ModelFacts, WorkerSpec

# Token ids in a prompt that give the step that computes them its mood.
BLOCK_SIZE = 4
WEDGE, FAIL, DIE = 90, 91, 92


class MoodyRunner(FakeRunner):
    """A FakeRunner whose steps take `step_seconds`, and that obeys the token ids above."""

    def __init__(self, step_seconds: float, block_size: int) -> None:
        super().__init__(num_blocks=256, block_size=block_size, vocab_size=80)
        self._step_seconds = step_seconds

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        time.sleep(self._step_seconds)
        if WEDGE in plan.token_ids:
            time.sleep(3600)
        if FAIL in plan.token_ids:
            raise ZeroDivisionError("the runner divided by zero")
        if DIE in plan.token_ids:
            os._exit(3)
        return super().execute(plan)


def quick(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    return _engine(spec, step_seconds=0.0)


def slow(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    return _engine(spec, step_seconds=0.005)


def opens_once(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    """The second process to open `store` finds it exists, and dies."""
    marker = Path(spec.store)
    if marker.exists():
        raise RuntimeError("the model cannot be opened twice")
    marker.touch()
    return quick(spec)


def falls_silent(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    print("opening forever")
    time.sleep(3600)
    return quick(spec)


def tampered(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    raise IntegrityError(
        "the bytes are not what was declared", rule="release.digest", value="sha256:0", fix="pull"
    )


def crashes(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    print("about to fall over", flush=True)
    os._exit(3)


def _engine(spec: WorkerSpec, step_seconds: float) -> tuple[EngineCore, ModelFacts]:
    core = EngineCore.build(
        MoodyRunner(step_seconds, BLOCK_SIZE),
        MonotonicClock(),
        spec.limits(),
        spec.admission(),
        frozenset(),
        LetterDecoder,
        shares=spec.shares,
    )
    return core, ModelFacts("moody", 0, 0, 0)


def deaf(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    """Soon after it is ready, no other thread gets a turn: as if native code kept the lock."""
    threading.Thread(target=_keep_the_interpreter_lock, daemon=True).start()
    return quick(spec)


def _keep_the_interpreter_lock() -> None:
    time.sleep(0.2)
    sys.setswitchinterval(3600)
    while True:
        pass
