"""No queue without a bound, in requests and in tokens (law 10)."""

from dataclasses import dataclass

from salver.contract import Action, Cause, Decision

RETRY_AFTER_S = 1.0  # a floor; nothing here knows how fast the queue drains


@dataclass(frozen=True, slots=True)
class QueueBound:
    """The most that may wait: `max_requests` sequences and `max_tokens` prompt tokens."""

    max_requests: int
    max_tokens: int

    def refusal(
        self, request_id: str, *, waiting: tuple[int, int], adding: tuple[int, int]
    ) -> Decision | None:
        """Hold (requests, tokens) waiting plus adding against the bound; None admits."""
        requests, tokens = (have + more for have, more in zip(waiting, adding, strict=True))
        if requests > self.max_requests:
            return _refuse(request_id, "max_queued_requests", requests, self.max_requests)
        if tokens > self.max_tokens:
            return _refuse(request_id, "max_queued_tokens", tokens, self.max_tokens)
        return None


def _refuse(request_id: str, rule: str, value: int, limit: int) -> Decision:
    return Decision(
        id=f"dec-{request_id}",
        rule=f"admission.{rule}",
        value=value,
        limit=limit,
        action=Action.REFUSE,
        cause=Cause.CALLER,
        reason=f"the queue is full: with this request {rule.removeprefix('max_queued_')} waiting "
        f"would be {value}, the bound is {limit}",
        retry_after=RETRY_AFTER_S,
    )
