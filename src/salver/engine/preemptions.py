"""What a request is told of its preemptions: one Decision, at its end.

When memory is short the same requests are preempted again and again, and a Decision for each time
would fill the bounded log with one cause. So a request counts its own.
"""

from salver.contract import Action, Cause, Decision
from salver.engine.kv_cache import KVCacheManager
from salver.engine.request import Request


def note_preemption(
    request: Request, heir: Request, kv: KVCacheManager, *, max_running: int | None
) -> None:
    """It makes room for the `heir`, which may be itself, and gives back what was computed for it.

    `max_running` where it was a place that lacked; otherwise it was blocks.
    """
    seen = request.preemptions
    seen.times += 1
    seen.tokens += request.num_computed_tokens
    seen.heir = _whose(request, heir)
    if max_running is None:
        seen.rule, limit = "release.envelope.memory", kv.capacity_tokens
        seen.value, seen.limit = limit + kv.block_size, limit
    else:
        seen.rule = "release.envelope.max_running"
        seen.value, seen.limit = max_running + 1, max_running


def preempted(request: Request) -> Decision | None:
    """Its preemptions as a whole; None where there were none."""
    seen = request.preemptions
    if not seen.times:
        return None
    wanted = (
        f"the KV pool has {seen.limit} tokens, and {seen.value} or more were wanted"
        if seen.rule == "release.envelope.memory"
        else f"{seen.value} requests would have run"
    )
    return Decision(
        id=f"dec-{request.request_id}",
        rule=seen.rule,
        value=seen.value,
        limit=seen.limit,
        action=Action.PREEMPT,
        cause=Cause.SERVER,
        reason=f"it gave its room back {seen.times} times, with {seen.tokens} computed tokens in "
        f"all; the last time {seen.heir}, when {wanted}",
    )


def _whose(request: Request, heir: Request) -> str:
    if heir is request:
        return "for want of room for itself"
    if heir.traffic_class is not request.traffic_class:
        return f"for a request of class {heir.traffic_class}"
    if heir.tenant != request.tenant:
        return f"for a request of tenant {heir.tenant!r}"
    return "for another of its tenant"
