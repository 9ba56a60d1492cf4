"""Frozen specs and the values that cross a boundary; validation, no behaviour."""

from typing import TYPE_CHECKING

from salver.contract.backend import Backend, LoadSnapshot, TenantQueue
from salver.contract.decision import Action, Cause, Decision
from salver.contract.faults import Fault
from salver.contract.generate import (
    Finish,
    FinishReason,
    GenerateRequest,
    Outcome,
    SamplingParams,
    Timings,
    TokenChunk,
    TokenLogprobs,
)
from salver.contract.latency import LatencyModel, StepShape
from salver.contract.scope import Scope
from salver.contract.traffic_class import TrafficClass
from salver.lazy import lazily

if TYPE_CHECKING:
    from salver.contract.deployment import Deployment
    from salver.contract.enforcement import DeclaredOnly, declared_only, unavailable
    from salver.contract.loading import load_deployment
    from salver.contract.policy import (
        Admission,
        Gate,
        OnInconclusive,
        Overload,
        Probes,
        Rollout,
        Scheduling,
        Shadow,
        Slo,
        StateAway,
        Telemetry,
        Tenant,
        TooLate,
        WithoutState,
    )
    from salver.contract.release import Engine, Envelope, KvCache, Quantization, Release, Runtime
    from salver.contract.upstreams import FallbackStep, PromptForm, UpstreamBackend, Upstreams

_LATER = {
    "Deployment": "deployment",
    "DeclaredOnly": "enforcement",
    "declared_only": "enforcement",
    "unavailable": "enforcement",
    "load_deployment": "loading",
    "Admission": "policy",
    "Gate": "policy",
    "OnInconclusive": "policy",
    "TooLate": "policy",
    "Overload": "policy",
    "Probes": "policy",
    "Rollout": "policy",
    "Scheduling": "policy",
    "Shadow": "policy",
    "Slo": "policy",
    "StateAway": "policy",
    "Telemetry": "policy",
    "Tenant": "policy",
    "WithoutState": "policy",
    "Engine": "release",
    "Envelope": "release",
    "KvCache": "release",
    "Quantization": "release",
    "Release": "release",
    "Runtime": "release",
    "FallbackStep": "upstreams",
    "PromptForm": "upstreams",
    "UpstreamBackend": "upstreams",
    "Upstreams": "upstreams",
}
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _LATER)

__all__ = [
    "Action",
    "Admission",
    "Backend",
    "Cause",
    "Decision",
    "DeclaredOnly",
    "Deployment",
    "Engine",
    "Envelope",
    "FallbackStep",
    "Fault",
    "Finish",
    "FinishReason",
    "Gate",
    "GenerateRequest",
    "KvCache",
    "LatencyModel",
    "LoadSnapshot",
    "OnInconclusive",
    "Outcome",
    "Overload",
    "Probes",
    "PromptForm",
    "Quantization",
    "Release",
    "Rollout",
    "Runtime",
    "SamplingParams",
    "Scheduling",
    "Scope",
    "Shadow",
    "Slo",
    "StateAway",
    "StepShape",
    "Telemetry",
    "Tenant",
    "TenantQueue",
    "Timings",
    "TokenChunk",
    "TokenLogprobs",
    "TooLate",
    "TrafficClass",
    "UpstreamBackend",
    "Upstreams",
    "WithoutState",
    "declared_only",
    "load_deployment",
    "unavailable",
]
