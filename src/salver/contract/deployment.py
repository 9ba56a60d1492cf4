"""The deployment: what is served, from which bytes, on what, to whom, how fast, and who answers.

These types hold what one section can say alone. Rules that hold sections against each other are in
`soundness`; reading a file is in `loading`.
"""

from typing import Annotated, Literal

from pydantic import Field

from salver.contract.policy import (
    Admission,
    Name,
    Probes,
    Rollout,
    Slo,
    Telemetry,
    Tenant,
    Text,
)
from salver.contract.release import Release
from salver.contract.section import Section
from salver.contract.upstreams import FallbackStep, UpstreamBackend, Upstreams


class Deployment(Section):
    """One contract: one file, one deployment."""

    api_version: Literal["salver/v1"] = Field(
        alias="apiVersion", description="The version of this format.", examples=["salver/v1"]
    )
    kind: Literal["Deployment"] = Field(
        description="What the file describes.", examples=["Deployment"]
    )
    name: Name = Field(
        description="The deployment's name, and the model name that callers use.",
        examples=["assistant"],
    )
    owner: Text = Field(
        description="Who answers when it breaks.", examples=["ml-platform@example.com"]
    )
    release: Release = Field(description="Everything that decides which tokens come out.")
    slo: Slo | None = Field(default=None, description="What callers are promised.")
    admission: Admission = Field(
        default=Admission(), description="How much may wait, and for how long."
    )
    tenants: Annotated[tuple[Tenant, ...], Field(max_length=1024)] = Field(
        default=(), description="Who shares it."
    )
    probes: Probes = Field(
        default=Probes(), description="How Salver finds out whether it still works."
    )
    rollout: Rollout | None = Field(default=None, description="How a new release takes over.")
    fallback: Annotated[tuple[FallbackStep, ...], Field(max_length=16)] = Field(
        default=(), description="What to try, in order, when the release cannot answer."
    )
    backends: Annotated[tuple[UpstreamBackend, ...], Field(max_length=64)] = Field(
        default=(), description="Other servers this deployment may use."
    )
    served_by: Annotated[tuple[Name, ...], Field(max_length=64)] = Field(
        default=(),
        description="With `engine: upstream`, the backends that are replicas of the release.",
        examples=[["vllm-a", "vllm-b"]],
    )
    upstreams: Upstreams = Field(
        default=Upstreams(), description="How other servers are treated when they fail."
    )
    telemetry: Telemetry = Field(
        default=Telemetry(), description="What is recorded beyond metrics."
    )
