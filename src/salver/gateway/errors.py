"""Every error as an HTTP answer: the refusal table of docs, in code.

    400  RequestError, UnsupportedField     malformed, or an option that is not implemented
    401  Unauthenticated                    403  Forbidden
    404  UnknownModel; no such path         405  the path does not take this method
    413  TooLarge                           422  InvalidValue
    429  Refused: CALLER                    503  Refused: SERVER, BackendUnavailable, BackendLost,
                                                 StateUnavailable
    504  Refused: DEADLINE                  500  BackendError: one answer failed; or a bug, logged

An answer never holds more of the request than a shortened value, and nothing of the server's
insides: an unexpected exception is told by its request id alone.
"""

import logging
from dataclasses import dataclass, replace
from http import HTTPStatus

import msgspec
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.responses import Response

from salver.clock import Clock
from salver.contract import Action, Cause, Decision
from salver.errors import (
    BackendError,
    BackendLost,
    BackendUnavailable,
    Forbidden,
    InvalidValue,
    Refused,
    RequestError,
    SalverError,
    StateUnavailable,
    TooLarge,
    Unauthenticated,
    UnknownModel,
    UnsupportedField,
)
from salver.gateway.ids import Ids
from salver.gateway.trickle import Trickle
from salver.gateway.wire.errors import ErrorBody, ErrorDetail
from salver.telemetry import Decided, Observer, RequestRefused

logger = logging.getLogger("salver.gateway")

MAX_VALUE_CHARS = 64
DECISION_HEADER = "x-salver-decision"
KEYLESS_DECISIONS_PER_SECOND, KEYLESS_DECISIONS_AT_ONCE = 10.0, 100
RETRY_AFTER_LOST_SECONDS = 1.0  # a lost worker is restarted with backoff; the first try is soonest

_BY_ERROR: tuple[tuple[type[SalverError], int, str], ...] = (
    (UnsupportedField, 400, "unsupported_field"),
    (InvalidValue, 422, "invalid_value"),
    (TooLarge, 413, "too_large"),
    (UnknownModel, 404, "model_not_found"),
    (Unauthenticated, 401, "invalid_api_key"),
    (Forbidden, 403, "not_allowed"),
    (StateUnavailable, 503, "state_unavailable"),
    (RequestError, 400, "malformed_request"),
    (BackendUnavailable, 503, "backend_unavailable"),
    (BackendLost, 503, "backend_lost"),
    (BackendError, 500, "backend_failed"),
)
_BY_CAUSE = {
    Cause.CALLER: (429, "rate_limited"),
    Cause.DEADLINE: (504, "deadline_exceeded"),
    Cause.SERVER: (503, "not_ready"),
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_NO_REFUSALS = {"internal_error", "backend_failed", "backend_lost", "deadline_exceeded"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status code, what the body says, and the headers that go with it."""

    status: int
    detail: ErrorDetail
    headers: tuple[tuple[str, str], ...] = ()

    def decided(self, decision_id: str) -> "Refusal":
        """The same, with the id of its Decision."""
        detail = self.detail.model_copy(update={"decision": decision_id})
        return replace(self, detail=detail, headers=(*self.headers, (DECISION_HEADER, decision_id)))

    def body(self) -> bytes:
        return msgspec.json.encode(ErrorBody(error=self.detail).model_dump())

    def response(self) -> Response:
        return Response(self.body(), self.status, dict(self.headers), media_type="application/json")


class Refusals:
    """Turns errors into answers, counts them, and hands on the Decision of each that has one.

    Of those whose tenant is unknown no more than a few a second are kept, and only these name their
    Decision: whoever has no key must not be able to fill the bounded log of decisions.
    """

    def __init__(self, observe: Observer, ids: Ids, clock: Clock) -> None:
        self._observe = observe
        self._ids = ids
        self._keyless = Trickle(KEYLESS_DECISIONS_PER_SECOND, KEYLESS_DECISIONS_AT_ONCE, clock)

    def of(self, error: SalverError, request_id: str, tenant: str) -> Refusal:
        """How a deliberate error is told to the caller; `tenant` is empty while unknown."""
        refusal, decision = refusal_of(error, request_id), self._decision(error)
        if decision is not None and self._keeps(error, tenant):
            self._observe(Decided(decision, tenant, request_id))
            refusal = refusal.decided(decision.id)
        return self.counted(refusal, tenant)

    def _keeps(self, error: SalverError, tenant: str) -> bool:
        return bool(tenant) or isinstance(error, Forbidden) or self._keyless.takes_one()

    def _decision(self, error: SalverError) -> Decision | None:
        match error:
            case Refused():
                return error.decision
            case Forbidden() | Unauthenticated():
                return self._none_of_one(error, Cause.CALLER)
            case BackendUnavailable(rule="deployment.ready"):
                return None  # the answer to a probe, which asks all day
            case BackendUnavailable() | StateUnavailable():
                return self._none_of_one(error, Cause.SERVER, RETRY_AFTER_LOST_SECONDS)
            case _:
                return None

    def _none_of_one(
        self, error: SalverError, cause: Cause, retry_after: float | None = None
    ) -> Decision:
        """There was no key that would do, or nothing that is ready: 0 of 1."""
        return Decision(
            id=self._ids.call("dec"),
            rule=error.rule or "backend.available",
            value=0,
            limit=1,
            action=Action.REFUSE,
            cause=cause,
            reason=error.problem,
            retry_after=retry_after,
        )

    def counted(self, refusal: Refusal, tenant: str) -> Refusal:
        """The refusal, counted; a failed or expired answer is an Outcome and not counted here."""
        if refusal.detail.code not in _NO_REFUSALS:
            rule = refusal.detail.rule or refusal.detail.code
            self._observe(RequestRefused(rule, refusal.status, tenant))
        return refusal


def refusal_of(error: SalverError, request_id: str) -> Refusal:
    """How a deliberate error is told to the caller.

    One that is not the caller's business, such as a chat template that misbehaves, is logged.
    """
    if isinstance(error, Refused):
        return _of_decision(error.decision)
    for kind, status, code in _BY_ERROR:
        if isinstance(error, kind):
            return _of_error(error, status, code)
    logger.error("request %s: %s", request_id, error, exc_info=error)
    return internal_error(request_id)


def internal_error(request_id: str) -> Refusal:
    """A bug in Salver, told by nothing but the id to look for in the log."""
    detail = ErrorDetail(
        message=f"Salver failed in a way it should not have; see its log at request {request_id}.",
        type="server_error",
        code="internal_error",
    )
    return Refusal(500, detail)


def http_refusal(error: HTTPException) -> Refusal:
    """No such path, or a method that the path does not take."""
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    detail = ErrorDetail(
        message=f"{status.phrase}: see /docs for what is served here.",
        type=_type(status),
        code=code,
        rule=f"http.{code}",
    )
    return Refusal(status, detail, tuple((error.headers or {}).items()))


def shorten(value: object) -> JsonValue:
    """A value as an error may repeat it: scalars as they are, texts cut, containers described."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if abs(value) < 2**63 else shorten(str(value))
        case str():
            return value if len(value) <= MAX_VALUE_CHARS else value[:MAX_VALUE_CHARS] + "…"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)}"
        case _:
            return shorten(str(value))


def _of_decision(decision: Decision) -> Refusal:
    status, code = _BY_CAUSE[decision.cause]
    if decision.cause is Cause.DEADLINE and decision.action is Action.REFUSE:
        code = "deadline_unreachable"
    detail = ErrorDetail(
        message=decision.reason,
        type=_type(status),
        code=code,
        rule=decision.rule,
        value=decision.value,
        limit=decision.limit,
    )
    headers: tuple[tuple[str, str], ...] = ()
    if decision.retry_after is not None and decision.action in (Action.REFUSE, Action.SHED):
        headers = (("retry-after", _whole_seconds(decision.retry_after)),)
    return Refusal(status, detail, headers)


def _of_error(error: SalverError, status: int, code: str) -> Refusal:
    detail = ErrorDetail(
        message="; ".join(part for part in (error.problem, error.fix) if part),
        type=_type(status),
        param=error.param if isinstance(error, RequestError) else None,
        code=code,
        rule=error.rule or None,
        value=shorten(error.value),
        limit=shorten(error.limit),
    )
    return Refusal(status, detail, _HEADERS.get(status, ()))


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error")


def _whole_seconds(seconds: float) -> str:
    """Retry-After takes whole seconds; rounded up so that a retry is never too early."""
    return str(max(1, -int(-seconds // 1)))


_HEADERS = {
    401: (("www-authenticate", 'Bearer realm="salver"'),),
    503: (("retry-after", _whole_seconds(RETRY_AFTER_LOST_SECONDS)),),
}
