"""The one error body, in OpenAI's shape, with the evidence added."""

from pydantic import JsonValue

from salver.gateway.wire.fields import WireModel


class ErrorDetail(WireModel):
    """`rule` was broken by `value`, held against `limit`; `decision` is what `explain` takes.

    `param` is the field at fault. `value` is shortened where it is long, and described rather than
    repeated where it is a list or an object.
    """

    message: str
    type: str
    param: str | None = None
    code: str
    rule: str | None = None
    value: JsonValue = None
    limit: JsonValue = None
    decision: str | None = None


class ErrorBody(WireModel):
    error: ErrorDetail
