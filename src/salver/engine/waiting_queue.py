"""Requests that wait for their first step, or for another one after a preemption."""

from collections import deque
from collections.abc import Iterable, Iterator

from salver.engine.request import Request


class WaitingQueue:
    """In the order in which they are started. `num_tokens` is the sum of theirs."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self.num_tokens = 0

    def append(self, requests: Iterable[Request]) -> None:
        """These come last."""
        for request in requests:
            self._requests.append(request)
            self.num_tokens += request.num_tokens

    def put_back(self, request: Request) -> None:
        """It comes first."""
        self._requests.appendleft(request)
        self.num_tokens += request.num_tokens

    def remove(self, request: Request) -> None:
        """It is started."""
        self._requests.remove(request)
        self.num_tokens -= request.num_tokens

    def drop_ended(self) -> None:
        """Let go of requests that have ended."""
        self._requests = deque(request for request in self._requests if not request.ended)
        self.num_tokens = sum(request.num_tokens for request in self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)
