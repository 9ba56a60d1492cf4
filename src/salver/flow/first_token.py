"""Whether a first token can still be within its objective, or the request is let go.

Past capacity whoever is served in the order of arrival is served late, and soon all are: both cores
run at 100% and nobody is content. So a request that has waited too long for `slo.ttft_p95` is not
begun, and one that would have to is refused; those that are begun are in time. What was begun is
never let go.

How long it may wait is what the objective leaves beside its own prompt. A prompt that takes most of
the objective, or more than all of it, is nobody else's fault: it may wait for `LEAST_WAIT` of the
objective, so that a machine with nothing else to do serves it.
"""

from dataclasses import dataclass

from salver.contract import Action, Cause, Decision

LEAST_WAIT = 0.1  # of the objective


@dataclass(frozen=True, slots=True)
class FirstTokenBound:
    """An objective of `seconds` from arrival to first token."""

    seconds: float

    def patience(self, own: float) -> float:
        """Seconds that a request may wait whose prompt takes `own` seconds."""
        return max(self.seconds - own, LEAST_WAIT * self.seconds)

    def broken(
        self, request_id: str, *, wait: float, own: float, action: Action, retry_after: float
    ) -> Decision | None:
        """Hold a wait against the patience; None keeps the request."""
        if wait <= self.patience(own):
            return None
        return self._decision(request_id, wait, own, action, retry_after)

    def given_up(self, request_id: str, retry_after: float) -> Decision:
        """It has waited for the whole objective."""
        return self._decision(request_id, self.seconds, 0.0, Action.SHED, retry_after)

    def _decision(
        self, request_id: str, wait: float, own: float, action: Action, retry_after: float
    ) -> Decision:
        verb = "has waited" if action is Action.SHED else "would wait"
        return Decision(
            id=f"dec-{request_id}",
            rule="slo.ttft_p95",
            value=wait + own,
            limit=self.seconds,
            action=action,
            cause=Cause.CALLER,
            reason=f"it {verb} {wait:.3f} s and its prompt takes {own:.3f} s, which is too late for a "
            f"first token within {self.seconds:g} s",
            retry_after=retry_after,
        )
