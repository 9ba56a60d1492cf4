"""The room before the servers: requests wait here until one has room for them, or give up.

`flow.waiting` says whose turn it is, `place` where. Room at a server is reserved in the instant in
which a turn is given, so that nobody overtakes and nothing is promised twice. Whoever waits is told
within bounds: the queue is full, its deadline passes, or its first token would be too late.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from salver.clock import Clock
from salver.contract import Action, Decision, GenerateRequest
from salver.errors import Refused
from salver.flow import (
    Excess,
    FirstTokenBound,
    Gate,
    QueueBound,
    refused,
    retry_after,
    shed,
    unreachable,
    why_it_gave_way,
)
from salver.flow.server_pace import Drain
from salver.flow.waiting import Queue
from salver.upstream.refusing import expired
from salver.upstream.replica import Turn


@dataclass(slots=True, eq=False)
class Waiter:
    """A request, the most tokens it may use, what is known of its prefix, and its turn to come."""

    request: GenerateRequest
    tokens: int
    prefixes: tuple[int, ...]
    since: float  # when it came to the gateway, on the clock
    turn: "asyncio.Future[Turn]"
    able: frozenset[str]  # replicas that can be asked for it
    avoided: frozenset[str] = frozenset()  # replicas that failed it
    waits: bool = False  # its turn did not come at once

    @property
    def was_sent(self) -> bool:
        """Such a one is neither shed nor let go."""
        return bool(self.avoided)


@dataclass(frozen=True, slots=True)
class WaitingRule:
    """What may wait, whether others give way for it, and the objective for which it is let go."""

    bound: QueueBound
    sheds: bool = False
    first_token: FirstTokenBound | None = None


class WaitingRoom:
    """Gives turns in the queue's order.

    A waiter's `turn` is given or refused by this room alone, which takes the waiter out of the queue
    in the same instant. Its deadline, its patience or its caller cancel it from outside: at once, while
    the waiter stays in the queue until its task runs. So a turn that is done in the queue is a
    cancelled one; such a waiter gets nothing any more, and whoever meets it there may take it out.

    Args:
        place: reserves room for a request; None where there is none, Refused where it is let go.
        draw: uniform in [0, 1): spreads those who come back.
    """

    def __init__(
        self,
        queue: Queue[Waiter],
        rule: WaitingRule,
        *,
        clock: Clock,
        draw: Callable[[], float],
        place: Callable[[Waiter], Turn | None],
    ) -> None:
        self.queue = queue
        self._rule = rule
        self._gate = Gate(rule.bound)
        self._clock = clock
        self._draw = draw
        self._place = place
        self._drain = Drain()

    async def turn(self, waiter: Waiter) -> Turn:
        """Where it goes, with its room reserved; `leave` it.

        Raises:
            Refused: it may not wait, or gave way, or waited for too long.
        """
        try:
            self.queue.push(waiter)
            self.hand_out()
            if not waiter.turn.done():
                waiter.waits = True
                self._admit(waiter)
            return await self._wait(waiter)
        except BaseException:
            self.queue.remove(waiter)
            self._return(waiter)
            raise

    def leave(self, turn: Turn) -> None:
        """Give the room back, to whoever is next; nothing happens if it was given back before."""
        if turn.replica.give_back(turn):
            self._drain.freed(turn.tokens, self._clock.now())
            self.hand_out()

    def hand_out(self) -> None:
        """Give turns to as many as have room."""
        while (waiter := self.queue.first()) is not None:
            if waiter.turn.done():
                self.queue.remove(waiter)
                continue
            try:
                turn = self._place(waiter)
            except Refused as refusal:
                self._refuse(waiter, refusal)
                continue
            if turn is None:
                break
            self.queue.remove(waiter)
            self.queue.charge(waiter.request, turn.charge_for_prompt())
            waiter.turn.set_result(turn)
        self._drain.look(self._clock.now(), waiting=self.queue.first() is not None)

    async def _wait(self, waiter: Waiter) -> Turn:
        late = waiter.since + self._patience(waiter)
        deadline = inf if waiter.request.deadline is None else waiter.request.deadline
        until = min(late, deadline)
        try:
            async with asyncio.timeout(None if until == inf else until - self._clock.now()):
                return await waiter.turn
        except TimeoutError:
            if deadline <= late or self._rule.first_token is None:
                raise expired(waiter.request, self._clock.now()) from None
            come_back = retry_after(0.0, self._draw)
            given_up = self._rule.first_token.given_up(waiter.request.id, come_back)
            raise Refused(given_up) from None

    def _patience(self, waiter: Waiter) -> float:
        bound = self._rule.first_token
        return inf if bound is None or waiter.was_sent else bound.seconds

    def _admit(self, waiter: Waiter) -> None:
        """Raises Refused for one that has to wait and may not; sheds those that give way for it."""
        requests, tokens = self.queue.waiting()
        mine = len(waiter.request.prompt_token_ids)
        waiting, adding = (requests - 1, tokens - mine), (1, mine)
        excess = self._gate.excess(waiting, adding)
        victims = self._victims(waiter, waiting, adding) if excess else ()
        queue = self._drain.seconds(self.queue.ahead(waiter))
        if excess and not victims:
            raise Refused(refused(waiter.request.id, excess, retry_after(queue, self._draw)))
        hopeless = self._hopeless(waiter, 0.0 if victims else queue)
        if hopeless is not None:
            raise Refused(hopeless)
        if excess:
            self._shed(victims, waiter, excess, queue)

    def _victims(
        self, waiter: Waiter, waiting: tuple[int, int], adding: tuple[int, int]
    ) -> tuple[Waiter, ...]:
        if not self._rule.sheds:
            return ()
        return self._rule.bound.make_room(
            waiting,
            adding,
            self.queue.give_way(waiter),
            lambda each: len(each.request.prompt_token_ids),
        )

    def _hopeless(self, waiter: Waiter, queue: float) -> Decision | None:
        """Why it need not wait, with at least so many seconds of queue ahead of it."""
        request, now = waiter.request, self._clock.now()
        late = unreachable(request.id, queue=queue, own=0.0, deadline=request.deadline, now=now)
        if late or self._rule.first_token is None or waiter.was_sent:
            return late
        return self._rule.first_token.broken(
            request.id,
            wait=now - waiter.since + queue,
            own=0.0,
            action=Action.REFUSE,
            retry_after=retry_after(0.0, self._draw),
        )

    def _shed(
        self, victims: Iterable[Waiter], newcomer: Waiter, excess: Excess, queue: float
    ) -> None:
        for victim in victims:
            old, new = victim.request, newcomer.request
            why = why_it_gave_way(old.tenant, old.traffic_class, new.traffic_class)
            decision = shed(old.id, excess, why, retry_after(queue, self._draw))
            self._refuse(victim, Refused(decision))

    def _refuse(self, waiter: Waiter, refusal: Refused) -> None:
        """Tell one that is in the queue, unless it has just left by itself: that makes room too."""
        self.queue.remove(waiter)
        if not waiter.turn.done():
            waiter.turn.set_exception(refusal)

    def _return(self, waiter: Waiter) -> None:
        """It may have had a turn that it cannot take."""
        if not waiter.turn.done():
            waiter.turn.cancel()
        elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
            self.leave(waiter.turn.result())

    def __repr__(self) -> str:
        return f"<WaitingRoom {self.queue}>"
