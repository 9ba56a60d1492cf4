"""The process around an engine: its socket, its step thread, its supervisor and its probes."""

from salver.worker.backend import WorkerBackend
from salver.worker.frames import ModelFacts, Ready
from salver.worker.patience import Backoff, Patience
from salver.worker.probe import ReadinessProbe
from salver.worker.spec import WorkerSpec
from salver.worker.statistics import State, WorkerStatistics
from salver.worker.supervisor import Supervisor

__all__ = [
    "Backoff",
    "ModelFacts",
    "Patience",
    "ReadinessProbe",
    "Ready",
    "State",
    "Supervisor",
    "WorkerBackend",
    "WorkerSpec",
    "WorkerStatistics",
]
