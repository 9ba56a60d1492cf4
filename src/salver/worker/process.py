"""One worker process as its parent holds it: started, listened to, ended, and always reaped."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

import msgspec

from salver.errors import BackendUnavailable
from salver.worker.connection import Connection
from salver.worker.output import OutputTail
from salver.worker.spec import WorkerSpec

SEND_BUFFER_BYTES = 16384  # the kernel doubles it; about 25 small step frames


class WorkerProcess:
    """A child process, the connection to it, and the end of what it printed.

    Use `start`; whoever called it must `end` it.
    """

    def __init__(
        self, spec: WorkerSpec, child: asyncio.subprocess.Process, connection: Connection
    ) -> None:
        self.connection = connection
        self.output = OutputTail(spec.name)
        self._spec = spec
        self._child = child
        self.reading = asyncio.create_task(connection.read())
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, spec: WorkerSpec) -> "WorkerProcess":
        """Start a worker and hand it its spec. It is not ready yet.

        Raises:
            BackendUnavailable: the system does not give us another process.
        """
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            child = await _spawn(theirs)
        except BaseException as error:
            writer.close()
            if isinstance(error, OSError):
                raise BackendUnavailable(f"a worker could not be started: {error}") from error
            raise
        finally:
            theirs.close()
        assert child.stdin is not None  # noqa: S101 - narrows a type: it was opened as a pipe
        child.stdin.write(msgspec.json.encode(spec))
        child.stdin.close()
        return cls(spec, child, Connection(reader, writer))

    @property
    def pid(self) -> int:
        return self._child.pid

    async def end(self, grace: float) -> str:
        """Hang up, which asks the process to end; kill it after `grace` seconds; reap it.

        Returns:
            How it ended, in one sentence.
        """
        self.connection.hang_up()
        ended = asyncio.ensure_future(self._ended())
        await asyncio.wait({ended}, timeout=grace)
        if not ended.done():
            with suppress(ProcessLookupError):
                self._child.kill()
        await ended
        return self.obituary()

    async def _ended(self) -> None:
        await self._child.wait()
        await asyncio.wait({self.reading, self._listening})

    def obituary(self) -> str:
        """How the process ended, in one sentence."""
        who = f"worker {self._spec.name!r} (pid {self.pid})"
        told = self.connection.fatal or self.connection.malformed
        if told:
            return f"{who} {self._ending()}: {told.problem}"
        return f"{who} {self._ending()}"

    def _ending(self) -> str:
        status = self._child.returncode
        if status is None:
            return "is still running"
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"

    async def _listen(self) -> None:
        assert self._child.stdout is not None  # noqa: S101 - narrows a type
        while data := await self._child.stdout.read(4096):
            self.output.feed(data)

    def __repr__(self) -> str:
        return f"<WorkerProcess {self._spec.name} pid {self.pid} {self.connection!r}>"


async def _spawn(theirs: socket.socket) -> asyncio.subprocess.Process:
    """Its own session, so that Ctrl-C reaches the gateway alone, which then drains and stops it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # the current directory does not shadow modules
        "-m",
        "salver.worker",
        str(theirs.fileno()),
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
