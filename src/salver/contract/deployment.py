"""The deployment: what is served, from which bytes, on what, to whom, how fast, and who answers.

These types hold what one section can say alone. Rules that hold sections against each other are in
`soundness`; reading a file is in `loading`.
"""

from typing import Annotated, Literal

from pydantic import Field

from salver.contract.policy import (
    Admission,
    FallbackStep,
    Name,
    Probes,
    Rollout,
    Slo,
    Telemetry,
    Tenant,
    Text,
    UpstreamBackend,
)
from salver.contract.release import Release
from salver.contract.section import Section


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
    release: Release = Field(
        description="Everything that decides which tokens come out.",
        examples=["{artifact: ..., digest: ..., runtime: ..., envelope: ...}"],
    )
    slo: Slo | None = Field(
        None, description="What callers are promised.", examples=["{ttft_p95: 500ms}"]
    )
    admission: Admission = Field(
        Admission(),
        description="How much may wait, and for how long.",
        examples=["{max_queued_tokens: 65536, default_timeout: 30s}"],
    )
    tenants: Annotated[tuple[Tenant, ...], Field(max_length=1024)] = Field(
        (), description="Who shares it.", examples=["[{name: search, weight: 3}]"]
    )
    probes: Probes = Field(
        Probes(),
        description="How Salver finds out whether it still works.",
        examples=["{interval: 15s, wedge_after: 10s}"],
    )
    rollout: Rollout | None = Field(
        None, description="How a new release takes over.", examples=["{steps: [5%, 100%]}"]
    )
    fallback: Annotated[tuple[FallbackStep, ...], Field(max_length=16)] = Field(
        (),
        description="What to try, in order, when the release cannot answer.",
        examples=['[{static: "Busy, please retry."}]'],
    )
    backends: Annotated[tuple[UpstreamBackend, ...], Field(max_length=64)] = Field(
        (),
        description="Other servers this deployment may use.",
        examples=['[{name: upstream-small, openai: "http://127.0.0.1:8001/v1", model: small}]'],
    )
    telemetry: Telemetry = Field(
        Telemetry(),
        description="What is recorded beyond metrics.",
        examples=["{prompt_logging: off}"],
    )
