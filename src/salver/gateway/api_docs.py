"""/openapi.json and /docs: the API told by the models that validate it.

Swagger UI is served from an installed package, so that /docs works without internet.
"""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from salver.gateway.arrival import REQUEST_ID
from salver.gateway.wire.errors import ErrorBody

TITLE = "Salver"
ABOUT = """\
The API of OpenAI and the extras of vLLM, as far as they are implemented. A field or option that is
not implemented is an error that names it, never ignored.

Where the contract declares tenants, `Authorization: Bearer sk-salver-…` is needed for everything but
`/health`, `/ready` and these pages; `/metrics` and `/version` need a key with the scope `operations`,
all else one with `inference`. Without tenants there are no keys: the server listens on loopback only,
and an `Authorization` header, which clients always send, is not read. `x-session-id`, `traceparent` and the `user` field are
accepted and have no effect. `x-salver-class` lowers a request's class below
its tenant's, and never raises it.
"""

CALL_HEADERS: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": "Request-Timeout-Ms",
            "description": "Time left to the caller. When it has passed, the answer is a 504.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        },
        {
            "in": "header",
            "name": "x-request-id",
            "description": "Repeated in the answer and in logs; one is made up when absent.",
            "schema": {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"},
        },
    ]
}

_MEANINGS = {
    400: "Malformed, or a field or option that is not implemented.",
    401: "No valid API key, where the contract declares tenants.",
    403: "The key's scopes or its tenant do not allow this.",
    404: "No such model.",
    413: "The body, or the prompt, is over its bound.",
    422: "A field is well-formed but its value is not allowed.",
    429: "Refused: slow down. See Retry-After.",
    500: "A bug in Salver; the log has the cause under the request id.",
    503: "Nothing is ready to answer, the backend died, or the state store is away. See Retry-After.",
    504: "The deadline passed.",
}

Responses = dict[int | str, dict[str, Any]]  # FastAPI's own type for `responses=`


def errors(*statuses: int) -> Responses:
    """FastAPI's description of the error answers of an endpoint."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}


def streamed(event: type[BaseModel]) -> Responses:
    """The 200 answer of an endpoint that can also stream; `event` is one `data:` line.

    The schema of the events is referred to, and put among the components by `describe`.
    """
    reference = {"$ref": f"#/components/schemas/{event.__name__}"}
    text = (
        "With `stream: true`, server-sent events. Each `data:` line is one JSON object of this "
        "schema, the last one `[DONE]`. A stream that breaks ends with an ErrorBody instead."
    )
    media = {"schema": {**reference, "description": text}}
    return {200: {"description": "The answer.", "content": {"text/event-stream": media}}}


def describe(app: FastAPI, *events: type[BaseModel]) -> None:
    """Add the schemas of streamed events to the app's OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document["components"]["schemas"]
        for event in events:
            schema = event.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[event.__name__] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents it


def mount_docs(app: FastAPI) -> None:
    """Serve /docs and the files it needs."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=TITLE,
            swagger_js_url="/docs/ui/swagger-ui-bundle.js",
            swagger_css_url="/docs/ui/swagger-ui.css",
            swagger_favicon_url="/docs/ui/favicon.png",
        )

    app.include_router(router)
    app.mount("/docs/ui", StaticFiles(packages=[("fastapi_offline", "static")]))
