"""Traffic mixes: which requests come when, from whom, of what size. Nothing here speaks HTTP."""

from salver.workload.arrival import Arrival, Message, Prompt
from salver.workload.loading import load_mix, open_workload
from salver.workload.mix import Mix
from salver.workload.rules import MIX_RULES
from salver.workload.schedule import Scaling, Workload

__all__ = [
    "MIX_RULES",
    "Arrival",
    "Message",
    "Mix",
    "Prompt",
    "Scaling",
    "Workload",
    "load_mix",
    "open_workload",
]
