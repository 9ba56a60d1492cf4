"""What operators, routers and clients ask about the service itself."""

from collections.abc import Callable

from fastapi.responses import Response

from salver import __version__
from salver.errors import BackendUnavailable
from salver.gateway.desk import Desk
from salver.gateway.wire.operations import Health, ModelCard, ModelList, Ready, Version
from salver.telemetry.exporters.prometheus import PrometheusExporter


class OperationEndpoints:
    """Answers for one service. `ready` says whether a real inference passed lately."""

    def __init__(self, desk: Desk, ready: Callable[[], bool], exporter: PrometheusExporter) -> None:
        self._desk = desk
        self._served = desk.served
        self._ready = ready
        self._exporter = exporter
        self._card = ModelCard(
            id=desk.served.model,
            created=desk.created(),
            owned_by=desk.served.owner,
            root=desk.served.release,
            max_model_len=desk.limits.max_context_tokens,
        )

    async def models(self) -> ModelList:
        """The one model served here."""
        return ModelList(data=[self._card])

    async def model(self, model: str) -> ModelCard:
        """The served model, by its name."""
        self._desk.check_model(model)
        return self._card

    async def health(self) -> Health:
        """The process is alive, and what it is."""
        served = self._served
        return Health(
            deployment=served.deployment,
            release=served.release,
            mode=served.mode,
            owner=served.owner,
        )

    async def ready(self) -> Ready:
        """A request sent now would be answered."""
        if not self._ready():
            raise BackendUnavailable(
                "not ready: no recent inference has passed", rule="deployment.ready"
            )
        return Ready(deployment=self._served.deployment, release=self._served.release)

    async def version(self) -> Version:
        """The build, and the release it serves."""
        served = self._served
        return Version(
            version=__version__,
            deployment=served.deployment,
            release=served.release,
            mode=served.mode,
        )

    async def metrics(self) -> Response:
        """Prometheus text format 0.0.4."""
        headers = {"content-type": self._exporter.content_type}
        return Response(self._exporter.render(), headers=headers)
