"""Whether a request may wait: its deadline, the bound of the queue, and who gives way for it.

What is shed has waited and was never started, so that nothing computed is lost and its caller can
still be refused. A request makes room as a whole; if all that would give way is not enough, nobody
does.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from salver.contract import Action, Decision, GenerateRequest
from salver.engine.order import Order
from salver.engine.punctuality import Estimate, too_late
from salver.engine.request import CallState, Request
from salver.errors import TooLarge
from salver.flow import (
    Excess,
    FirstTokenBound,
    Gate,
    QueueBound,
    own_seconds,
    passed,
    refused,
    retry_after,
    shed,
    why_it_gave_way,
)


def no_chance() -> float:
    """A stream of draws without chance."""
    return 0.0


def is_alone(call: CallState, in_flight: Iterable[Request]) -> bool:
    """Whether a call is in nobody's way, and nobody in its: however late, it is served."""
    return all(request.call is call for request in in_flight)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a request may not wait, or the Decisions on those that give way for it."""

    refusal: Decision | None = None
    shed: tuple[Decision, ...] = ()
    victims: tuple[Request, ...] = ()


class Admission:
    """Holds arrivals against the queue's bound.

    Args:
        bound: of what may wait.
        first_token: the objective for which requests are refused or shed; None serves them late.
        sheds: whether others may give way; otherwise the newcomer is refused.
        draw: uniform in [0, 1), from the owner's random stream: spreads those who come back.
    """

    def __init__(
        self,
        bound: QueueBound,
        first_token: FirstTokenBound | None = None,
        *,
        sheds: bool = False,
        draw: Callable[[], float] = no_chance,
    ) -> None:
        self.bound = bound
        self._first_token = first_token
        self._sheds = sheds
        self._draw = draw
        self._gate = Gate(bound)

    def judge(
        self,
        source: GenerateRequest,
        order: Order,
        running: Sequence[Request],
        estimate: Estimate,
        cached: Callable[[], int],
        *,
        joins: bool = False,
    ) -> Verdict:
        """Whether `source` may wait behind what does. `cached` is the prefix hit it would have; it
        `joins` where another of its call is in flight, and is then as late as that one is.

        Raises:
            TooLarge: it would be over the bound even in an empty queue.
        """
        late = passed(source.id, source.deadline, estimate.now)
        if late:
            return Verdict(late)
        waiting = (len(order), order.num_tokens)
        adding = self._size(source)
        excess = self._gate.excess(waiting, adding)
        victims: tuple[Request, ...] = ()
        if excess and self._sheds:
            groups = order.give_way(source, running)
            victims = self.bound.make_room(waiting, adding, groups, lambda each: each.num_tokens)
        drain = order.seconds_ahead(source, running, estimate) if excess else 0.0
        if excess and not victims:
            return Verdict(refused(source.id, excess, retry_after(drain, self._draw)))

        def queue() -> float:
            return 0.0 if victims else order.seconds_ahead(source, running, estimate)

        hopeless = too_late(
            source, queue=queue, cached=cached, model=estimate.model, now=estimate.now
        )
        if not joins and (len(order) or running):
            hopeless = hopeless or self._would_be_late(source, queue, cached, estimate)
        if hopeless or not excess:
            return Verdict(hopeless)
        return Verdict(None, tuple(self._shed(victims, source, excess, drain)), victims)

    def _size(self, source: GenerateRequest) -> tuple[int, int]:
        """Its sequences, and the tokens of their prompts."""
        size = source.n, source.n * len(source.prompt_token_ids)
        if over := self.bound.excess((0, 0), size):
            raise TooLarge(
                f"its choices come to {over.value} {over.unit}, and no more than {over.limit} wait",
                rule=over.rule,
                value=over.value,
                limit=over.limit,
                fix="ask for fewer choices or shorten the prompt",
            )
        return size

    def overdue(self, order: Order, running: Sequence[Request], now: float) -> Verdict:
        """Those that have waited for the whole objective and were never begun."""
        if self._first_token is None:
            return Verdict()
        late = [
            request
            for request in order
            if now - request.arrived > self._first_token.seconds and not request.was_begun
        ]
        if late and is_alone(late[0].call, chain(running, order)):
            return Verdict()
        whole = {request.request_id: request for request in late}
        decisions = (self._late(request, now, own=0.0) for request in whole.values())
        return Verdict(None, tuple(filter(None, decisions)), tuple(late))

    def begins_late(
        self, request: Request, in_flight: Iterable[Request], now: float, own: Callable[[], float]
    ) -> Decision | None:
        """Why a request is not begun now, whose first token would take `own` seconds from here."""
        if self._first_token is None or request.was_begun:
            return None
        late = self._late(request, now, own())
        return None if late and is_alone(request.call, in_flight) else late

    def _late(self, request: Request, now: float, own: float) -> Decision | None:
        if self._first_token is None:
            return None
        return self._first_token.broken(
            request.request_id,
            wait=now - request.arrived,
            own=own,
            action=Action.SHED,
            retry_after=retry_after(0.0, self._draw),
        )

    def _would_be_late(
        self,
        source: GenerateRequest,
        queue: Callable[[], float],
        cached: Callable[[], int],
        estimate: Estimate,
    ) -> Decision | None:
        if (bound := self._first_token) is None:
            return None
        waited = 0.0 if source.arrived is None else estimate.now - source.arrived
        if (wait := waited + queue()) <= bound.patience(inf):
            return None
        prompt = len(source.prompt_token_ids)
        return bound.broken(
            source.id,
            wait=wait,
            own=own_seconds(estimate.model, prompt=prompt, cached=cached(), choices=source.n),
            action=Action.REFUSE,
            retry_after=retry_after(0.0, self._draw),
        )

    def _shed(
        self, victims: Iterable[Request], source: GenerateRequest, excess: Excess, drain: float
    ) -> Iterable[Decision]:
        for request in {request.request_id: request for request in victims}.values():
            why = why_it_gave_way(request.tenant, request.traffic_class, source.traffic_class)
            yield shed(request.request_id, excess, why, retry_after(drain, self._draw))
