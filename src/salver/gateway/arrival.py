"""What a call's headers say, checked and made a value.

x-request-id         named in answers and logs; ours when absent
Request-Timeout-Ms   the time left to the caller; the contract's default when absent
x-salver-class       a lower class than the caller's own; a higher one changes nothing
authorization        the caller's key, where the contract declares tenants (see `tenancy.door`)
x-session-id, traceparent
                     accepted and without effect: one backend and no tracing yet
"""

import re
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request

from salver.contract import TrafficClass
from salver.errors import InvalidValue
from salver.gateway.tenancy import Caller

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_CLASSES = [each.value for each in TrafficClass]  # the most important first
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call at the door. Instants are on the gateway's clock.

    `told` are headers of the answer; whoever learns one puts it there before the answer begins.
    """

    request_id: str
    arrived: float
    deadline: float
    caller: Caller
    traffic_class: TrafficClass = TrafficClass.STANDARD
    told: dict[str, str] = field(default_factory=dict)


def arrival_of(request: Request) -> Arrival:
    """The Arrival that the edge noted for this request."""
    arrival: Arrival = request.state.arrival
    return arrival


def is_request_id(text: str) -> bool:
    """Whether a caller's own id may be repeated in headers and logs."""
    return REQUEST_ID.fullmatch(text) is not None


def check_headers(headers: Headers) -> None:
    """Refuse a header that cannot be honoured.

    Raises:
        InvalidValue: x-request-id with characters outside `A-Za-z0-9._:/+=@-` or over 128 of them.
    """
    request_id = headers.get("x-request-id")
    if request_id is not None and not is_request_id(request_id):
        raise InvalidValue(
            "x-request-id: not usable as an id",
            param="x-request-id",
            rule="header.x-request-id",
            value=request_id,
            limit=REQUEST_ID.pattern,
        )


def class_of(headers: Headers, highest: TrafficClass) -> TrafficClass:
    """The class of a call: what x-salver-class says, but never above the caller's own.

    Raises:
        InvalidValue: not the name of a class.
    """
    text = headers.get("x-salver-class")
    if text is None:
        return highest
    if text not in _CLASSES:
        raise InvalidValue(
            "x-salver-class: not a traffic class",
            param="x-salver-class",
            rule="header.x-salver-class",
            value=text,
            limit=", ".join(_CLASSES),
        )
    return max(highest, TrafficClass(text), key=_CLASSES.index)


def timeout_of(headers: Headers, default_seconds: float) -> float:
    """Seconds the caller allows, from Request-Timeout-Ms.

    Raises:
        InvalidValue: not a whole number of milliseconds in [1, 999999999].
    """
    text = headers.get("request-timeout-ms")
    if text is None:
        return default_seconds
    if not _MILLISECONDS.fullmatch(text):
        raise InvalidValue(
            "Request-Timeout-Ms: not a positive whole number of milliseconds",
            param="request-timeout-ms",
            rule="header.request-timeout-ms",
            value=text,
            limit=999_999_999,
        )
    return int(text) / 1000
