"""Frozen specs and the values that cross a boundary; validation, no behaviour."""

from salver.contract.backend import Backend, LoadSnapshot
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

__all__ = [
    "Action",
    "Backend",
    "Cause",
    "Decision",
    "Fault",
    "Finish",
    "FinishReason",
    "GenerateRequest",
    "LoadSnapshot",
    "Outcome",
    "SamplingParams",
    "Timings",
    "TokenChunk",
    "TokenLogprobs",
]
