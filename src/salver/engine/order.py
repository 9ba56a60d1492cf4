"""Whose turn it is: what the scheduler asks of a policy, and the simplest policy, first come, first
served.

An order owns the requests that wait. In each step it names the turns of all in flight, running and
waiting alike; the scheduler gives each what budget and blocks allow, and tells what came of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from salver.contract import GenerateRequest, TenantQueue
from salver.engine.leaving import Leaving
from salver.engine.punctuality import Estimate, QueueClock
from salver.engine.request import Request
from salver.engine.waiting_queue import WaitingQueue

Chosen = Iterable[tuple[Request, int]]  # with the number of its tokens in the step


class Order(Protocol):
    """A scheduling policy. `running` is always in the order in which the requests were started."""

    @property
    def num_tokens(self) -> int:
        """Of all waiting requests."""
        ...

    def __len__(self) -> int:
        """Waiting requests."""
        ...

    def __iter__(self) -> Iterator[Request]:
        """Waiting requests."""
        ...

    def append(self, requests: Sequence[Request]) -> None:
        """The sequences of one request have come."""
        ...

    def put_back(self, request: Request) -> None:
        """A running request was preempted."""
        ...

    def drop_ended(self) -> None:
        """Some waiting requests may have ended."""
        ...

    def give_way(
        self, source: GenerateRequest, running: Sequence[Request]
    ) -> Iterator[Sequence[Request]]:
        """Whole requests that wait and were never started, in the order in which they are shed so
        that `source` can wait."""
        ...

    def protected(self, running: Sequence[Request]) -> Iterable[Request]:
        """Running requests whose next token is due whatever else could be computed."""
        ...

    def turns(self, running: Sequence[Request]) -> Iterator[Request]:
        """All in flight in the order of this step. It may leave some out.

        After each waiting request one of `start`, `block` and `defer` is called with it.
        """
        ...

    def start(self, request: Request) -> None:
        """It runs now."""
        ...

    def block(self, request: Request) -> None:
        """There is no room for it, and so for none that would start after it."""
        ...

    def defer(self, request: Request) -> None:
        """It waits for its leader; others may start before it."""
        ...

    def victim(
        self, request: Request, running: Sequence[Request], leaving: Leaving | None = None
    ) -> Request | None:
        """The running request that should make room for this one, which may be running itself.

        Where others would leave first, `running` is without those that are `leaving`.
        """
        ...

    def yields(self, request: Request, first: Request | None) -> bool:
        """Whether its prompt may add but little to a step in which `first` has the first prompt, if
        any has: that is more urgent."""
        ...

    def charge(self, chosen: Chosen) -> None:
        """What the step computes for whom."""
        ...

    def forget_times(self) -> None:
        """What is in flight has changed in other ways than by one that came last."""
        ...

    def seconds_ahead(
        self, source: GenerateRequest, running: Sequence[Request], estimate: Estimate
    ) -> float:
        """At least, until a request that comes now has its turn."""
        ...

    def queues(self, running: Sequence[Request], estimate: Estimate) -> tuple[TenantQueue, ...]:
        """The same for requests that are not here yet."""
        ...


class FirstComeFirstServed:
    """Running requests, then those that wait. The last started makes room for those before it."""

    def __init__(self) -> None:
        self._waiting = WaitingQueue()
        self._clock = QueueClock()
        self._blocked = False

    @property
    def num_tokens(self) -> int:
        return self._waiting.num_tokens

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._waiting)

    def append(self, requests: Sequence[Request]) -> None:
        self._waiting.append(requests)
        self._clock.extend(requests)

    def put_back(self, request: Request) -> None:
        self._waiting.put_back(request)

    def drop_ended(self) -> None:
        self._waiting.drop_ended()

    def give_way(
        self, source: GenerateRequest, running: Sequence[Request]
    ) -> Iterator[Sequence[Request]]:
        """Nobody: who came first is served first."""
        return iter(())

    def protected(self, running: Sequence[Request]) -> Iterable[Request]:
        return running

    def turns(self, running: Sequence[Request]) -> Iterator[Request]:
        self._blocked = False
        yield from (request for request in list(running) if request.running)
        for request in list(self._waiting):
            yield request
            if self._blocked:
                return

    def start(self, request: Request) -> None:
        self._waiting.remove(request)

    def block(self, request: Request) -> None:
        self._blocked = True

    def defer(self, request: Request) -> None:
        """Nothing changes for others."""

    def victim(
        self, request: Request, running: Sequence[Request], leaving: Leaving | None = None
    ) -> Request | None:
        return running[-1] if request.running else None

    def yields(self, request: Request, first: Request | None) -> bool:
        return False

    def charge(self, chosen: Chosen) -> None:
        """Nobody owes anything."""

    def forget_times(self) -> None:
        self._clock.forget()

    def seconds_ahead(
        self, source: GenerateRequest, running: Sequence[Request], estimate: Estimate
    ) -> float:
        return self._clock.seconds(lambda: (*running, *self._waiting), estimate)

    def queues(self, running: Sequence[Request], estimate: Estimate) -> tuple[TenantQueue, ...]:
        seconds = self._clock.seconds(lambda: (*running, *self._waiting), estimate)
        return (TenantQueue(seconds=seconds),) if seconds else ()

    def __repr__(self) -> str:
        return f"<FirstComeFirstServed {len(self)} waiting>"
