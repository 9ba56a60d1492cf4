"""A deadline is an instant, and a request past it is not started (law 6)."""

from salver.contract import Action, Cause, Decision


def passed(request_id: str, deadline: float | None, now: float) -> Decision | None:
    """Hold `now` against the deadline, both in seconds on the monotonic clock; None admits."""
    if deadline is None or now < deadline:
        return None
    late = now - deadline
    return Decision(
        id=f"dec-{request_id}",
        rule="request.deadline_s",
        value=late,
        limit=0.0,
        action=Action.EXPIRE,
        cause=Cause.DEADLINE,
        reason=f"the deadline passed {late:.3f} s before the request could start",
    )
