"""Frozen specs and the values that cross a boundary; validation, no behaviour."""

from salver.contract.backend import Backend, LoadSnapshot
from salver.contract.decision import Action, Cause, Decision
from salver.contract.deployment import Deployment
from salver.contract.enforcement import DeclaredOnly, declared_only, unavailable
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
from salver.contract.loading import load_deployment
from salver.contract.policy import (
    Admission,
    FallbackStep,
    Gate,
    OnInconclusive,
    Overload,
    Probes,
    Rollout,
    Shadow,
    Slo,
    StateAway,
    Telemetry,
    Tenant,
    TrafficClass,
    UpstreamBackend,
    WithoutState,
)
from salver.contract.release import Engine, Envelope, KvCache, Quantization, Release, Runtime
from salver.contract.scope import Scope

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
    "Quantization",
    "Release",
    "Rollout",
    "Runtime",
    "SamplingParams",
    "Scope",
    "Shadow",
    "Slo",
    "StateAway",
    "StepShape",
    "Telemetry",
    "Tenant",
    "Timings",
    "TokenChunk",
    "TokenLogprobs",
    "TrafficClass",
    "UpstreamBackend",
    "WithoutState",
    "declared_only",
    "load_deployment",
    "unavailable",
]
