"""The gateway put together: what is handed in, which path leads where, how errors leave."""

import random
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from salver import __version__
from salver.clock import Clock, MonotonicClock
from salver.contract import Backend
from salver.errors import SalverError
from salver.gateway.api_docs import (
    ABOUT,
    CALL_HEADERS,
    TITLE,
    Responses,
    describe,
    errors,
    mount_docs,
    streamed,
)
from salver.gateway.arrival import arrival_of
from salver.gateway.calls import Calls
from salver.gateway.chat import ChatEndpoint
from salver.gateway.completions import CompletionEndpoint
from salver.gateway.desk import Desk
from salver.gateway.edge import Edge
from salver.gateway.errors import Refusals, http_refusal
from salver.gateway.ids import Ids
from salver.gateway.json_route import DirectRoute, JsonRoute
from salver.gateway.logprobs import LogprobShapes
from salver.gateway.operations import OperationEndpoints
from salver.gateway.prompts import Prompts
from salver.gateway.service import Limits, Served
from salver.gateway.tenancy import Door, NoQuotas, OpenDoor, Tenancy
from salver.gateway.tokens import TokenEndpoints
from salver.gateway.validation import from_findings
from salver.gateway.wire.chat import ChatCompletion, ChatCompletionChunk
from salver.gateway.wire.completion import Completion, CompletionChunk
from salver.models import ChatTemplate, Tokenizer
from salver.state import DecisionLog
from salver.telemetry import Observers, ServiceLabels
from salver.telemetry.exporters.prometheus import PrometheusExporter


def create_app(
    served: Served,
    limits: Limits,
    *,
    backend: Backend,
    tokenizer: Tokenizer,
    chat_template: ChatTemplate | None,
    ready: Callable[[], bool],
    tenancy: Tenancy | None = None,
    decisions: DecisionLog | None = None,
    observers: Observers | None = None,
    clock: Clock | None = None,
    worker_restarts: Callable[[], int] = lambda: 0,
    entropy: random.Random | None = None,
    keeps_messages: bool = False,
) -> FastAPI:
    """The HTTP edge of one service, as an ASGI application.

    Args:
        served: names of the deployment, its release and its model.
        limits: what calls may take.
        backend: computes the tokens.
        tokenizer: of the served model.
        chat_template: of the served model; without one, chats are refused.
        ready: whether a real inference passed lately; asked at each /ready and each scrape.
        tenancy: the tenants, their keys and their quotas; without it everybody may come in.
        decisions: where every Decision is kept; nowhere without it.
        observers: told what happens, `decisions` among them; the metrics join. By default no others.
        clock: the clock that the backend's deadlines are on; the machine's by default.
        worker_restarts: how often a worker was restarted; asked at each scrape.
        entropy: where ids and seeds come from; the system's by default. Seed it to repeat a run.
        keeps_messages: whether a backend takes conversations instead of token ids.
    """
    clock, ids = clock or MonotonicClock(), Ids(entropy)
    exporter = PrometheusExporter(
        _labels(served),
        load=backend.load,
        ready=ready,
        worker_restarts=worker_restarts,
        decisions_lost=lambda: decisions.lost if decisions else 0,
    )
    observe = observers or Observers(*([decisions.observe] if decisions else []))
    observe.join(exporter.observe)
    quotas = tenancy.quotas(observe) if tenancy else NoQuotas()
    desk = Desk(
        served=served,
        limits=limits,
        backend=backend,
        tokenizer=tokenizer,
        prompts=Prompts(tokenizer, chat_template, limits),
        calls=Calls(backend, quotas, clock=clock, ids=ids, observe=observe),
        refusals=Refusals(observe, ids, clock),
        shapes=LogprobShapes(tokenizer),
        ids=ids,
        clock=clock,
        keeps_messages=keeps_messages,
    )
    app = _routed(desk, OperationEndpoints(desk, ready, exporter))
    _put_edge_before(app, desk, tenancy.door(clock) if tenancy else OpenDoor())
    return app


def _routed(desk: Desk, operations: OperationEndpoints) -> FastAPI:
    """Every path with its endpoint, every error with its answer, and /docs."""
    app = FastAPI(
        title=TITLE,
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        exception_handlers=_handlers(desk.refusals),
    )
    app.include_router(_inference(desk))
    app.include_router(_operations(operations))
    mount_docs(app)
    describe(app, ChatCompletionChunk, CompletionChunk)
    return app


def _put_edge_before(app: FastAPI, desk: Desk, door: Door) -> None:
    app.add_middleware(
        Edge,
        release=desk.served.release,
        door=door,
        limits=desk.limits,
        clock=desk.clock,
        ids=desk.ids,
        refusals=desk.refusals,
    )


def _inference(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=DirectRoute, tags=["inference"])
    chat, completion = ChatEndpoint(desk), CompletionEndpoint(desk)
    refused = errors(400, 401, 403, 404, 413, 422, 429, 500, 503, 504)
    post: dict[str, Any] = {"methods": ["POST"], "openapi_extra": CALL_HEADERS}
    router.add_api_route(
        "/v1/chat/completions",
        chat.create,
        response_model=ChatCompletion,
        responses=streamed(ChatCompletionChunk) | refused,
        **post,
    )
    router.add_api_route(
        "/v1/completions",
        completion.create,
        response_model=Completion,
        responses=streamed(CompletionChunk) | refused,
        **post,
    )
    reading = APIRouter(route_class=JsonRoute, tags=["inference"])
    tokens = TokenEndpoints(desk)
    reading.add_api_route("/tokenize", tokens.tokenize, responses=refused, **post)
    reading.add_api_route("/detokenize", tokens.detokenize, responses=refused, **post)
    router.include_router(reading)
    return router


def _operations(endpoints: OperationEndpoints) -> APIRouter:
    router = APIRouter(tags=["operations"])
    always = errors(400, 422, 500)
    keyed = always | errors(401, 403, 503)
    placed = keyed | errors(413, 429)
    metrics: Responses = {
        200: {
            "description": "Prometheus text format 0.0.4.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }
    router.add_api_route("/v1/models", endpoints.models, responses=placed)
    router.add_api_route("/v1/models/{model:path}", endpoints.model, responses=placed | errors(404))
    router.add_api_route("/health", endpoints.health, responses=always)
    router.add_api_route("/ready", endpoints.ready, responses=always | errors(503))
    router.add_api_route("/version", endpoints.version, responses=keyed)
    router.add_api_route(
        "/metrics", endpoints.metrics, response_class=Response, responses=metrics | keyed
    )
    return router


def _handlers(refusals: Refusals) -> dict[Any, Callable[..., Any]]:
    """How each kind of exception leaves, as FastAPI takes it. Bugs are the edge's to report."""

    async def deliberate(request: Request, error: SalverError) -> Response:
        arrival = arrival_of(request)
        return refusals.of(error, arrival.request_id, arrival.caller.tenant).response()

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await deliberate(request, from_findings(error.errors(), error.body))

    async def http(request: Request, error: HTTPException) -> Response:
        tenant = arrival_of(request).caller.tenant
        return refusals.counted(http_refusal(error), tenant).response()

    return {SalverError: deliberate, RequestValidationError: invalid, HTTPException: http}


def _labels(served: Served) -> ServiceLabels:
    return ServiceLabels(
        deployment=served.deployment,
        release=served.release,
        model=served.model,
        mode=served.mode,
        version=__version__,
    )
