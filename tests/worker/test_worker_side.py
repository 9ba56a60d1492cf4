"""The worker process alone, spoken to over a bare socket."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import psutil
import pytest

from salver.contract import Action, GenerateRequest, SamplingParams, TrafficClass
from salver.worker import WorkerSpec
from salver.worker.frames import (
    MAX_COMMAND_BYTES,
    Cancel,
    Command,
    FrameReader,
    Generate,
    Ready,
    Refusal,
    Report,
    StepFrame,
    encode,
    report_reader,
)
from salver.worker.process import SEND_BUFFER_BYTES

MakeSpec = Callable[[str], WorkerSpec]


class BareWorker:
    """A worker process and the other end of its socket."""

    def __init__(self, spec: object) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "salver.worker", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(spec))
        self.process.stdin.close()
        self._reader: FrameReader[Report] = report_reader()
        self._reports: list[Report] = []

    def send(self, *commands: Command) -> None:
        self.socket.sendall(b"".join(encode(command, MAX_COMMAND_BYTES) for command in commands))

    def receive(self) -> Report:
        while not self._reports:
            data = self.socket.recv(65536)
            assert data, "the worker hung up"
            self._reports += self._reader.feed(data)
        return self._reports.pop(0)

    def end(self) -> tuple[int, str]:
        """Exit status and what was printed."""
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            printed = stderr.read().decode()
        return self.process.wait(timeout=20), printed

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def worker(make_spec: MakeSpec) -> Iterator[BareWorker]:
    bare = BareWorker(make_spec("quick"))
    assert isinstance(bare.receive(), Ready)
    yield bare
    bare.close()


def generate(
    name: str = "r",
    max_tokens: int = 8,
    n: int = 1,
    traffic_class: TrafficClass = TrafficClass.STANDARD,
) -> Generate:
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return Generate(GenerateRequest(name, (1, 2, 3), sampling, n=n, traffic_class=traffic_class))


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_each_step_is_one_frame_with_every_sequence_in_it(worker: BareWorker) -> None:
    worker.send(generate(n=4))
    frames: list[StepFrame] = []
    while not frames or frames[-1].load.requests_running or frames[-1].load.requests_waiting:
        frame = worker.receive()
        assert isinstance(frame, StepFrame)
        frames.append(frame)
    assert [frame.load.steps for frame in frames] == list(range(1, len(frames) + 1))
    assert max(len(frame.chunks) for frame in frames) == 4


def test_what_is_shed_is_told_as_a_refusal(make_spec: MakeSpec) -> None:
    spec = msgspec.structs.replace(
        make_spec("slow"), max_running=1, max_queued_requests=2, sheds=True, shares={}
    )
    worker = BareWorker(spec)
    try:
        assert isinstance(worker.receive(), Ready)
        worker.send(generate("running", 900, traffic_class=TrafficClass.CRITICAL))
        assert isinstance(worker.receive(), StepFrame)
        worker.send(generate("first"), generate("second"))
        worker.send(generate("urgent", traffic_class=TrafficClass.CRITICAL))
        while isinstance(report := worker.receive(), StepFrame):
            pass
    finally:
        worker.close()
    assert isinstance(report, Refusal)
    assert (report.request_id, report.decision.action) == ("second", Action.SHED)


def test_who_waits_too_long_for_its_first_token_hears_so(make_spec: MakeSpec) -> None:
    worker = BareWorker(msgspec.structs.replace(make_spec("slow"), max_running=1, ttft_seconds=0.1))
    try:
        assert isinstance(worker.receive(), Ready)
        worker.send(generate("running", 900), generate("waiting"))
        while isinstance(report := worker.receive(), StepFrame):
            pass
    finally:
        worker.close()
    assert isinstance(report, Refusal)
    assert (report.request_id, report.decision.rule) == ("waiting", "slo.ttft_p95")


def test_a_gateway_that_does_not_read_stops_the_engine(worker: BareWorker) -> None:
    worker.send(generate(max_tokens=900))
    time.sleep(0.3)
    before = cpu_seconds(worker.process.pid)
    time.sleep(0.3)
    assert cpu_seconds(worker.process.pid) - before <= 0.05  # asleep, not spinning

    waiting = _drain(worker)
    steps = [frame.load.steps for frame in waiting if isinstance(frame, StepFrame)]
    assert 1 <= steps[-1] < 100  # of the 900 that it could have made meanwhile
    while not (isinstance(frame := worker.receive(), StepFrame) and _finished(frame)):
        pass
    assert frame.load.steps == 900


def _drain(worker: BareWorker) -> list[Report]:
    """What lies in the socket now. The engine goes on as soon as there is room, so read once."""
    data = worker.socket.recv(1 << 20, socket.MSG_PEEK)
    return report_reader().feed(data)


def _finished(frame: StepFrame) -> bool:
    return any(chunk.finish for chunk in frame.chunks)


def test_cancelling_reaches_an_engine_whose_frames_nobody_reads(worker: BareWorker) -> None:
    worker.send(generate(max_tokens=900))
    time.sleep(0.2)
    worker.send(Cancel("r"))
    time.sleep(0.1)
    last = worker.receive()
    while not (isinstance(last, StepFrame) and _finished(last)):
        last = worker.receive()
    assert last.load.steps < 100
    assert last.load.kv_blocks_owned == 0


def test_an_idle_worker_sleeps(worker: BareWorker) -> None:
    before = cpu_seconds(worker.process.pid)
    time.sleep(0.3)
    assert cpu_seconds(worker.process.pid) - before <= 0.02
    assert not select.select([worker.socket], [], [], 0)[0]


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["oversized", "foreign", "http"],
)
def test_a_malformed_command_ends_the_conversation(worker: BareWorker, garbage: bytes) -> None:
    worker.socket.sendall(garbage)
    assert worker.socket.recv(1) == b""
    status, printed = worker.end()
    assert status == 1
    assert "worker.frame" in printed or "worker.max_frame_bytes" in printed


def test_a_closed_socket_ends_the_worker(worker: BareWorker) -> None:
    worker.send(generate(max_tokens=900))
    worker.socket.close()
    assert worker.end() == (0, "")


def test_sigterm_ends_a_busy_worker_that_nobody_reads_from(worker: BareWorker) -> None:
    worker.send(generate(max_tokens=900))
    time.sleep(0.1)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == (0, "")


def test_a_spec_with_an_unknown_field_is_refused(make_spec: MakeSpec) -> None:
    spec = msgspec.to_builtins(make_spec("quick")) | {"speculation": True}
    bare = BareWorker(spec)
    status, printed = bare.end()
    bare.close()
    assert status == 1
    assert "speculation" in printed


PARENT = """
import asyncio, os, sys, msgspec
from salver.worker import Supervisor, WorkerSpec

async def main():
    ready = await Supervisor(msgspec.json.decode(sys.argv[1], type=WorkerSpec)).start()
    print(ready.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("engine", ["quick", "deaf"])
def test_a_worker_dies_with_its_parent(make_spec: MakeSpec, engine: str) -> None:
    spec = msgspec.json.encode(make_spec(engine)).decode()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, spec], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.5)  # until the deaf one is deaf
    assert psutil.Process(pid).is_running()
    parent.kill()
    parent.communicate()
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        os.kill(pid, signal.SIGKILL)
        raise
