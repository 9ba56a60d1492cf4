"""What an upstream's refusals and failures mean here.

400, 413, 422    the request is at fault: told to the caller as our own error of that kind
429              it is busy: back-pressure, 429 with its Retry-After; it is there all the same
504, 408         it gave the request up for its deadline
else             it is at fault: BackendUnavailable, which may be retried and counts as a failure
"""

import msgspec

from salver.contract import Action, Cause, Decision, GenerateRequest
from salver.errors import (
    BackendLost,
    BackendUnavailable,
    InvalidValue,
    RequestError,
    SalverError,
    TooLarge,
)
from salver.upstream.address import Address
from salver.upstream.ending import Busy, OutOfTime

MAX_TOLD = 300
RETRY_AFTER_S = 1.0
_CALLERS = {400: RequestError, 413: TooLarge, 422: InvalidValue}


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _Error | None = None
    message: str = ""


def refusal_of(
    address: Address, status: int, retry_after: str | None, told: bytes, request_id: str
) -> SalverError:
    """The error that stands for an answer which is not the one asked for."""
    said = f"the upstream {address.name!r} answered {status}: {_message(told)}"
    if status in _CALLERS:
        return _CALLERS[status](said, rule=f"upstream.status_{status}")
    if status == 429:
        return Busy(_busy(request_id, said, _seconds(retry_after)))
    if status in {408, 504}:
        return OutOfTime(_deadline(request_id, said, late=0.0))
    return BackendUnavailable(said, rule="upstream.status", value=status)


def expired(request: GenerateRequest, now: float, *, silent: bool = False) -> OutOfTime:
    """The deadline passed; `silent` where an upstream had the request and sent no byte."""
    late = 0.0 if request.deadline is None else now - request.deadline
    reason = "the deadline passed before the upstream's answer was complete"
    return OutOfTime(_deadline(request.id, reason, late=late), silent=silent)


def hangs(name: str, *, begun: bool) -> BackendLost | BackendUnavailable:
    """The upstream has sent nothing on any connection for too long."""
    kind = BackendLost if begun else BackendUnavailable
    return kind(f"the upstream {name!r} hangs: it sends nothing", rule="upstreams.silent_after")


def unavailable(request_id: str, reason: str, retry_after: float) -> Decision:
    """No server has answered, or may be asked."""
    return Decision(
        id=f"dec-{request_id}",
        rule="upstreams.available",
        value=0,
        limit=1,
        action=Action.REFUSE,
        cause=Cause.SERVER,
        reason=reason,
        retry_after=retry_after,
    )


def _message(told: bytes) -> str:
    """What the server says of it, shortened."""
    try:
        body = msgspec.json.decode(told, type=_ErrorBody)
        text = body.error.message if body.error else body.message
    except (msgspec.DecodeError, RecursionError):
        text = ""
    text = text or told.decode("utf-8", "replace")
    return text if len(text) <= MAX_TOLD else text[:MAX_TOLD] + "…"


def _seconds(retry_after: str | None) -> float:
    """Seconds from a Retry-After header; a date, or nonsense, counts as none."""
    digits = retry_after is not None and retry_after.isascii() and retry_after.isdigit()
    return min(float(retry_after or 0), 3600.0) if digits else RETRY_AFTER_S


def _busy(request_id: str, reason: str, retry_after: float) -> Decision:
    return Decision(
        id=f"dec-{request_id}",
        rule="upstream.busy",
        value=429,
        limit=200,
        action=Action.REFUSE,
        cause=Cause.CALLER,
        reason=reason,
        retry_after=retry_after,
    )


def _deadline(request_id: str, reason: str, *, late: float) -> Decision:
    return Decision(
        id=f"dec-{request_id}",
        rule="request.deadline_s",
        value=late,
        limit=0.0,
        action=Action.EXPIRE,
        cause=Cause.DEADLINE,
        reason=reason,
    )
