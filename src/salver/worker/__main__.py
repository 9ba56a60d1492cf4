"""`python -m salver.worker SOCKET_FD PARENT_PID`, with the WorkerSpec as JSON on stdin.

Started by `salver.worker.Supervisor`, which hands down one end of a socket pair. An unnamed pair
has no path that another user could open, no file to leave behind, and closes when either side dies.

Exit status: 0 the socket closed or SIGTERM came; 1 the engine failed, or what arrived was malformed.
"""

import os
import signal
import socket
import sys
from importlib import import_module
from types import FrameType

import msgspec

from salver.clock import MonotonicClock
from salver.engine.core import EngineCore
from salver.errors import SalverError
from salver.worker.confinement import (
    die_with,
    limit_threads,
    share_one_arena,
    volunteer_for_the_oom_killer,
)
from salver.worker.frames import ModelFacts
from salver.worker.serve import hang_up, serve
from salver.worker.spec import OpenEngine, WorkerSpec


def main(socket_fd: int, parent_pid: int) -> int:
    die_with(parent_pid)
    volunteer_for_the_oom_killer()
    share_one_arena()
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec)
    connection = socket.socket(fileno=socket_fd)

    def finish(_signal: int, _frame: FrameType | None) -> None:
        hang_up(connection)

    signal.signal(signal.SIGTERM, finish)
    try:
        ended_well = serve(connection, lambda: open_engine(spec), MonotonicClock())
    except SalverError as error:
        print(f"salver.worker: {error}", file=sys.stderr)  # noqa: T201 - the supervisor keeps it
        return 1
    return 0 if ended_well else 1


def open_engine(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    """Import what the spec names as its engine, and open it within the spec's threads."""
    module, _, function = spec.engine.partition(":")
    factory: OpenEngine = getattr(import_module(module), function)
    limit_threads(spec.threads)
    return factory(spec)


if __name__ == "__main__":
    exit_status = main(*map(int, sys.argv[1:]))
    sys.stderr.flush()
    os._exit(exit_status)  # at once: a step that never ends would hold up a tidy exit
