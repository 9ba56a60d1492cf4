"""Continuous batching: who computes which tokens next, over paged KV with a prefix cache."""

from salver.engine.block_pool import BlockPool
from salver.engine.core import EngineCore
from salver.engine.kv_cache import KVCacheManager
from salver.engine.memory import MemoryPlan, plan_memory
from salver.engine.output_text import DecoderFactory, OutputText, TokenDecoder
from salver.engine.plan import (
    ModelRunner,
    ModelRunnerOutput,
    SampleSpec,
    ScheduledSequence,
    SchedulerOutput,
)
from salver.engine.request import Request
from salver.engine.scheduler import Scheduler
from salver.engine.step import Limits

__all__ = [
    "BlockPool",
    "DecoderFactory",
    "EngineCore",
    "KVCacheManager",
    "Limits",
    "MemoryPlan",
    "ModelRunner",
    "ModelRunnerOutput",
    "OutputText",
    "Request",
    "SampleSpec",
    "ScheduledSequence",
    "Scheduler",
    "SchedulerOutput",
    "TokenDecoder",
    "plan_memory",
]
