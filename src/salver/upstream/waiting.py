"""Requests that wait for room at an upstream: the seam where another order than ours fits in."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from salver.contract import GenerateRequest
from salver.upstream.replica import Replica


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A request, the most tokens it may use, what is known of its prefix, and its turn to come."""

    request: GenerateRequest
    tokens: int
    prefixes: tuple[int, ...]
    turn: "asyncio.Future[Replica]"
    avoided: frozenset[str] = frozenset()  # replicas that failed it


class Queue(Protocol):
    """Who waits, and who is next. It knows nothing of replicas, and never blocks."""

    def push(self, waiter: Waiter) -> None:
        """Let one wait."""
        ...

    def first(self) -> Waiter | None:
        """Whose turn it is; stays until it is removed."""
        ...

    def remove(self, waiter: Waiter) -> None:
        """It has its turn, or gave up; nothing happens if it is not there."""
        ...

    def waiting(self) -> tuple[int, int]:
        """Requests, and the prompt tokens of them."""
        ...


class FirstComeQueue:
    """First come, first served."""

    def __init__(self) -> None:
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._tokens = 0

    def push(self, waiter: Waiter) -> None:
        self._waiters[waiter] = None
        self._tokens += len(waiter.request.prompt_token_ids)

    def first(self) -> Waiter | None:
        return next(iter(self._waiters), None)

    def remove(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            del self._waiters[waiter]
            self._tokens -= len(waiter.request.prompt_token_ids)

    def waiting(self) -> tuple[int, int]:
        return len(self._waiters), self._tokens
