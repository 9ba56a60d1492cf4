"""What operators and routers ask a server."""

from typing import Literal

from salver.gateway.wire.fields import WireModel


class Health(WireModel):
    """The process is alive. Whether it can answer is /ready."""

    status: Literal["alive"] = "alive"
    deployment: str
    release: str
    mode: Literal["production", "development"]
    owner: str


class Ready(WireModel):
    status: Literal["ready"] = "ready"
    deployment: str
    release: str


class Version(WireModel):
    version: str
    deployment: str
    release: str
    mode: Literal["production", "development"]


class ModelCard(WireModel):
    """`root` is the release that answers; `max_model_len` is prompt and answer together."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    max_model_len: int


class ModelList(WireModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
