"""Clients that retry at once on every error: whether a server comes back by itself.

    python benchmarks/serving/retry_storm.py [CONTRACT.yaml] [--seconds 15]

First the machine: `salver serve CONTRACT` (the mixes' one by default). A closed loop finds its
capacity; then clients come at 3 times that, each with a prompt of its own, and whoever hears an error
asks again in the same instant, whatever Retry-After says, until it is answered or has lost patience
5 s after it came. Then the load ends: 0.5 times the capacity comes, without retries. Recovered is when
the last of these came that was not good, and when the queue was empty for the first time; 10 s are
allowed.

Then a server that fails, behind `salver serve` as an upstream: it answers every second call with 500,
then every one, to 16 clients that retry at once. Amplification is what reached it over what clients
sent; 1.1 is allowed. Client, gateway and failing server share the machine.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent)]

from gateway import COMPLETION, OTHER  # noqa: E402
from servers import salver_server  # noqa: E402

from salver.telemetry import Ending, Latencies  # noqa: E402
from salver.telemetry.goodput import Objectives, is_good  # noqa: E402

PROMPT, OUTPUT, VOCABULARY = 128, 32, 40_000
OBJECTIVES = Objectives(ttft=1.0, tpot=0.1)
STORM, AFTER = 3.0, 0.5  # times the capacity
PATIENCE = 5.0  # of a client of the storm
LIGHT_SECONDS, RECOVER_WITHIN = 20.0, 10.0
AMPLIFICATION = 1.1
BODY = (
    '{"model":"%s","stream":true,"max_tokens":%d,"ignore_eos":true,"temperature":0,"prompt":[%s]}'
)


@dataclass
class Asked:
    """One arrival, `at` an instant, and how it ended. Its latencies count from when it came."""

    at: float
    tries: int = 0
    ending: Ending = Ending.ABANDONED
    ttft: float | None = None
    e2e: float = 0.0

    @property
    def good(self) -> bool:
        tpot = None if self.ttft is None else (self.e2e - self.ttft) / (OUTPUT - 1)
        times = Latencies(self.ttft, tpot, self.e2e, ())
        return self.ending is Ending.COMPLETE and is_good(self.ending, times, OBJECTIVES)


@dataclass
class Client:
    """Asks one server; idle connections are used again."""

    port: int
    model: str
    entropy: random.Random = field(default_factory=lambda: random.Random(5))
    statuses: dict[int, int] = field(default_factory=dict)
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def arrive(self, asked: Asked, *, patience: float | None = None) -> Asked:
        """Ask once; with patience, again at once on every error."""
        prompt = ",".join(str(self.entropy.randrange(1000, VOCABULARY)) for _ in range(PROMPT))
        body = (BODY % (self.model, OUTPUT, prompt)).encode()
        while asked.ending is not Ending.COMPLETE:
            asked.tries += 1
            asked.ending = await self._once(body, asked)
            if patience is None or time.perf_counter() - asked.at > patience:
                break
        return asked

    async def _once(self, body: bytes, asked: Asked) -> Ending:
        try:
            pair = self._idle.pop() if self._idle else await self._connect()
            status = await self._exchange(pair, body, asked)
        except (OSError, asyncio.IncompleteReadError):
            return Ending.FAILED
        self.statuses[status] = self.statuses.get(status, 0) + 1
        return Ending.COMPLETE if status == 200 else Ending.REFUSED

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def _exchange(
        self,
        pair: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        body: bytes,
        asked: Asked,
    ) -> int:
        reader, writer = pair
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(answer.split(b" ", 2)[1])
        if b"\r\ncontent-length:" in answer:
            size = answer.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(size))
        else:
            await self._stream(reader, asked)
        self._idle.append(pair)
        return status

    async def _stream(self, reader: asyncio.StreamReader, asked: Asked) -> None:
        """A chunked body; its first event and its end are dated."""
        asked.ttft, whole = None, b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data = await reader.readexactly(size + 2)
            if asked.ttft is None:
                asked.ttft = time.perf_counter() - asked.at
            whole = (whole + data)[-64:]
        await reader.readexactly(2)
        asked.e2e = time.perf_counter() - asked.at
        if b"[DONE]" not in whole:
            raise asyncio.IncompleteReadError(whole, None)

    async def metric(self, name: str) -> float:
        """A sum over its labels, as the server tells it now."""
        reader, writer = await self._connect()
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        text = (await reader.read(-1)).decode()
        writer.close()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def capacity(client: Client, seconds: float) -> float:
    """Answers per second of 32 closed loops, after a second to get going."""
    ended: list[float] = []
    stop = time.perf_counter() + seconds + 1

    async def loop() -> None:
        while time.perf_counter() < stop:
            asked = await client.arrive(Asked(time.perf_counter()))
            if asked.ending is Ending.COMPLETE:
                ended.append(time.perf_counter())

    await asyncio.gather(*(loop() for _ in range(32)))
    return sum(stop - seconds <= each < stop for each in ended) / seconds


async def come(
    client: Client, rate: float, seconds: float, patience: float | None
) -> list["asyncio.Task[Asked]"]:
    """Arrivals at a steady pace for so long, each in a task of its own."""
    tasks = []
    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        at = start + number / rate
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        tasks.append(asyncio.create_task(client.arrive(Asked(at), patience=patience)))
    await asyncio.sleep(max(0.0, start + seconds - time.perf_counter()))
    return tasks


async def storm(port: int, model: str, seconds: float) -> bool:
    """The first part; whether it held."""
    client = Client(port, model)
    able = await capacity(client, 6.0)
    client.statuses.clear()
    stormy = await come(client, STORM * able, seconds, PATIENCE)
    ended = time.perf_counter()
    queue = asyncio.create_task(until_empty(client, ended))
    light = [await each for each in await come(client, AFTER * able, LIGHT_SECONDS, None)]
    asked = await asyncio.gather(*stormy)
    bad = [each.at - ended for each in light if not each.good]
    recovered = max(bad, default=0.0)
    emptied = await queue
    print(f"capacity {able:.1f}/s; {STORM * able:.1f}/s for {seconds:g} s, retried at once:")
    print(
        f"  {len(asked)} came and asked {sum(each.tries for each in asked)} times; "
        f"{sum(each.good for each in asked)} good answers, {dict(sorted(client.statuses.items()))}"
    )
    print(
        f"  then {AFTER * able:.1f}/s: {sum(each.good for each in light)} of {len(light)} good, the last "
        f"bad one came {recovered:.1f} s after the load ended; the queue was empty after {emptied:.1f} s"
    )
    return max(recovered, emptied) <= RECOVER_WITHIN


async def until_empty(client: Client, since: float) -> float:
    """Seconds until nothing waits, looked at four times a second."""
    while await client.metric("vllm:num_requests_waiting{"):
        await asyncio.sleep(0.25)
    return time.perf_counter() - since


class Failing:
    """A server that answers some calls with 500. `fails` is asked with each call's number."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails: Callable[[int], bool] = lambda _: False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if not head.startswith(b"post"):
                    writer.write(OTHER)
                    continue
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                self.calls += 1
                writer.write(BROKEN if self.fails(self.calls) else COMPLETION)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


BROKEN = b"HTTP/1.1 500 Broken\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def failing() -> AsyncIterator[tuple[Failing, int]]:
    """It, and its port."""
    behind = Failing()
    server = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    async with server:
        yield behind, server.sockets[0].getsockname()[1]


async def amplification(
    behind: Failing, port: int, model: str, fails: Callable[[int], bool], seconds: float
) -> float:
    """Calls that reached the server over calls that clients sent."""
    client = Client(port, model)
    behind.calls, behind.fails, sent = 0, fails, itertools.count()
    stop = time.perf_counter() + seconds

    async def loop() -> None:
        while time.perf_counter() < stop:
            next(sent)
            await client.arrive(Asked(time.perf_counter()))

    await asyncio.gather(*(loop() for _ in range(16)))
    calls = next(sent)
    print(
        f"  {calls} calls of clients, {behind.calls} reached the server: {behind.calls / calls:.3f}; "
        f"{dict(sorted(client.statuses.items()))}"
    )
    return behind.calls / calls


async def failures(logs: Path) -> bool:
    """The second part; whether it held."""
    async with failing() as (behind, port):
        example = (HERE.parents[1] / "examples/upstream-salver.yaml").read_text()
        contract = logs / "front.yaml"
        contract.write_text(example.replace(":8000/", f":{port}/"))
        with ExitStack() as stack:
            started = salver_server(contract).running(logs)
            front = await asyncio.to_thread(stack.enter_context, started)
            where, ratios = int(front.rpartition(":")[2]), []
            for name, fails in (
                ("every second call fails", lambda number: number % 2 == 0),
                ("every call fails", lambda _: True),
            ):
                print(f"{name}:")
                ratios.append(await amplification(behind, where, "front", fails, 5.0))
    return max(ratios) < AMPLIFICATION


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("contract", type=Path, nargs="?", default=HERE / "contract.yaml")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long the storm lasts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        logs = Path(scratch)
        with salver_server(given.contract).running(logs) as server:
            port = int(server.rpartition(":")[2])
            recovers = uvloop.run(storm(port, "smollm2", given.seconds))
        bounded = uvloop.run(failures(logs))
    print(f"recovers within {RECOVER_WITHIN:g} s: {'holds' if recovers else 'FALLS SHORT'}")
    print(f"amplification below {AMPLIFICATION:g}: {'holds' if bounded else 'FALLS SHORT'}")
    return 0 if recovers and bounded else 1


if __name__ == "__main__":
    raise SystemExit(main())
