"""FastAPI routes whose body is JSON under our rules, not Python's."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from salver.errors import RequestError, UnsupportedField
from salver.gateway.body import parse_json


class JsonRoute(APIRoute):
    """Parses the body strictly before FastAPI validates it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def strict(request: Request) -> Response:
            return await handle(_Parsed(request, await _json_of(request), await request.body()))

        return strict


class DirectRoute(APIRoute):
    """The same for an endpoint that takes (request, body) and returns its own Response.

    It is called with no more than that: FastAPI's way there solves dependencies that it does not have
    and looks at what it returns, which takes longer than to validate the body. The schema in /docs is
    that of any other route.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        field, endpoint = self.body_field, self.endpoint
        if field is None:
            raise TypeError(f"{self.path} takes no body")

        async def strict(request: Request) -> Response:
            value = await _json_of(request)
            body, findings = field.validate(value, {}, loc=("body",))
            if findings:
                raise RequestValidationError(findings, body=value)
            response: Response = await endpoint(request, body)
            return response

        return strict


class _Parsed(Request):
    """A request whose JSON is known already."""

    def __init__(self, request: Request, value: object, raw: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._value = value
        self._raw = raw

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> object:
        return self._value


async def _json_of(request: Request) -> object:
    """Raises RequestError unless the body is there, says it is JSON, and is.

    The content type matters beyond form: a browser sends `application/json` across origins only
    with permission, so a page cannot quietly use a server on its reader's machine.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedField(
            "the body must be sent as application/json",
            param="content-type",
            rule="header.content-type",
            value=media_type or None,
            limit="application/json",
        )
    body = await request.body()
    if not body:
        raise RequestError("the body is empty", rule="json.syntax", fix="send a JSON object")
    return parse_json(body)
