"""How a release is served: objectives, admission, tenants, probes, rollout, telemetry.

None of it changes which tokens come out, so none of it is part of the release: model and policy
change separately, and a regression has one suspect.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from salver.contract.quantities import Duration, Fraction
from salver.contract.release import Count
from salver.contract.section import Section
from salver.contract.traffic_class import TrafficClass

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"\S")]


class Slo(Section):
    """What callers are promised, measured as conventions define the words."""

    ttft_p95: Duration | None = Field(
        default=None,
        description="Request start to first token, 95th percentile.",
        examples=["500ms"],
    )
    tpot_p95: Duration | None = Field(
        default=None,
        description="Mean gap between a request's tokens, 95th percentile.",
        examples=["50ms"],
    )
    e2e_p99: Duration | None = Field(
        default=None, description="Request start to last token, 99th percentile.", examples=["20s"]
    )
    availability: Fraction | None = Field(
        default=None, description="Share of requests that get a correct answer.", examples=["99.9%"]
    )


class Overload(StrEnum):
    """What gives way when the queue is full."""

    REJECT_NEW = "reject_new"
    SHED_LOWEST_CLASS = "shed_lowest_class"


class TooLate(StrEnum):
    """What becomes of a request that has waited too long for the objective of its first token."""

    REFUSE = "refuse"
    SERVE = "serve"


class Scheduling(StrEnum):
    """Whose turn it is in a step."""

    FAIR = "fair"
    FCFS = "fcfs"


class WithoutState(StrEnum):
    """What a limiter does while the state store that it needs is away."""

    FAIL_OPEN = "fail_open"
    FAIL_CLOSED = "fail_closed"


Unchecked = Annotated[
    WithoutState,
    Field(description="fail_open admits without counting.", examples=["fail_closed"]),
]


class StateAway(Section):
    """What each limiter does while the state store is away: admit unchecked, or refuse with 503."""

    authentication: WithoutState = Field(
        default=WithoutState.FAIL_CLOSED,
        description="fail_open goes on taking the keys that were valid when the store was last seen.",
        examples=["fail_closed"],
    )
    requests_per_minute: Unchecked = WithoutState.FAIL_CLOSED
    tokens_per_minute: Unchecked = WithoutState.FAIL_CLOSED
    max_in_flight: Unchecked = WithoutState.FAIL_CLOSED
    max_tokens_in_flight: Unchecked = WithoutState.FAIL_CLOSED


class Admission(Section):
    """How much may wait, and for how long."""

    max_queued_requests: Count = Field(
        default=1024,
        description="Requests that may wait; the next one is refused.",
        examples=[1024],
    )
    max_queued_tokens: Count = Field(
        default=65536,
        description="Prompt tokens that may wait, over all requests.",
        examples=[65536],
    )
    default_timeout: Duration = Field(
        default=30.0,
        description="A request's deadline when the caller sets none.",
        examples=["30s"],
        json_schema_extra={"default": "30s"},
    )
    scheduling: Scheduling = Field(
        default=Scheduling.FAIR,
        description="fair: by class, then by the service that each tenant had for its weight, then "
        "by deadline. fcfs: first come, first served, whoever came.",
        examples=["fair"],
    )
    overload: Overload = Field(
        default=Overload.REJECT_NEW,
        description="What gives way when the queue is full.",
        examples=["reject_new"],
    )
    too_late: TooLate = Field(
        default=TooLate.REFUSE,
        description="refuse: a request that waits, or would wait, too long for slo.ttft_p95 is not "
        "begun, so that the others are in time. serve: late is better than not at all.",
        examples=["refuse"],
    )
    state_away: StateAway = Field(
        default=StateAway(),
        description="What each limiter does while the state store is away.",
    )


class Tenant(Section):
    """One party that shares the deployment. Its keys live in the state store, hashed."""

    name: Name = Field(description="The tenant's name.", examples=["search"])
    weight: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        default=1.0, description="Its share of the machine relative to the others.", examples=[3]
    )
    traffic_class: TrafficClass = Field(
        default=TrafficClass.STANDARD,
        alias="class",
        description="The highest class its requests may have.",
        examples=["standard"],
    )
    kv_share: Annotated[Fraction, Field(gt=0)] | None = Field(
        default=None,
        description="Of the KV pool, what its requests may hold while another tenant waits for "
        "room; its weight's share if absent.",
        examples=["25%"],
    )
    requests_per_minute: Count | None = Field(
        default=None,
        description="The most requests admitted within any 60 s; no bound if absent.",
        examples=[600],
    )
    tokens_per_minute: Count | None = Field(
        default=None,
        description="The most that those admitted within any 60 s may use, prompts and outputs "
        "together; no bound if absent.",
        examples=[50000],
    )
    max_in_flight: Count | None = Field(
        default=None,
        description="Its requests in flight at once; no bound if absent.",
        examples=[32],
    )
    max_tokens_in_flight: Count | None = Field(
        default=None,
        description="The most tokens that its requests in flight may use together; no bound if "
        "absent.",
        examples=[16384],
    )


class Probes(Section):
    """How Salver finds out whether the release still works."""

    golden: Text | None = Field(
        default=None,
        description="File of prompts with their expected answers, relative to this file.",
        examples=["golden/assistant.jsonl"],
    )
    interval: Duration = Field(
        default=15.0,
        description="Between two probe inferences.",
        examples=["15s"],
        json_schema_extra={"default": "15s"},
    )
    wedge_after: Duration = Field(
        default=30.0,
        description="A step that takes longer means the worker is wedged and is replaced.",
        examples=["30s"],
        json_schema_extra={"default": "30s"},
    )


class Shadow(Section):
    """Traffic copied to the new release before any caller sees its answers."""

    fraction: Fraction = Field(description="Share of requests copied.", examples=["10%"])
    min_samples: Count = Field(description="Copies before the first step.", examples=[50])


class Gate(Section):
    """What each rollout step must show before the next."""

    min_samples: Count = Field(description="Requests seen on the new release.", examples=[200])
    max_error_rate: Fraction = Field(description="Share that may fail.", examples=["1%"])
    max_ttft_regression: Fraction = Field(
        description="How much slower the first token may come.", examples=["10%"]
    )
    max_tpot_regression: Fraction = Field(
        description="How much slower the next ones may come.", examples=["10%"]
    )
    golden: Literal["all"] = Field(
        default="all", description="How many golden prompts must still pass.", examples=["all"]
    )


class OnInconclusive(StrEnum):
    """What a rollout does while the evidence proves neither pass nor fail."""

    HOLD = "hold"
    ROLLBACK = "rollback"


class Rollout(Section):
    """How a new release takes over from the one before."""

    shadow: Shadow | None = Field(
        default=None, description="Copied traffic before the first step; none if absent."
    )
    steps: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100)] = Field(
        description="Shares of traffic, rising to 100%.", examples=[["5%", "25%", "100%"]]
    )
    gate: Gate = Field(description="What each step must show.")
    on_inconclusive: OnInconclusive = Field(
        default=OnInconclusive.HOLD,
        description="What happens while the evidence proves neither.",
        examples=["hold"],
    )


class Telemetry(Section):
    """What is recorded beyond metrics."""

    prompt_logging: Literal["off", "on"] = Field(
        default="off",
        description="Whether prompts and answers are written to the log.",
        examples=["off"],
    )
    trace_sample: Fraction = Field(
        default=0.0,
        description="Share of requests that are traced.",
        examples=["5%"],
        json_schema_extra={"default": "0%"},
    )
