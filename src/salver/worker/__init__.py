"""The process around an engine: its socket, its step thread, its supervisor and its probes."""

from typing import TYPE_CHECKING

from salver.lazy import lazily

if TYPE_CHECKING:
    from salver.worker.backend import WorkerBackend
    from salver.worker.frames import ModelFacts, Ready
    from salver.worker.patience import Backoff, Patience
    from salver.worker.probe import ReadinessProbe
    from salver.worker.spec import WorkerSpec
    from salver.worker.statistics import State, WorkerStatistics
    from salver.worker.supervisor import Supervisor

_LATER = {
    "WorkerBackend": "backend",
    "ModelFacts": "frames",
    "Ready": "frames",
    "Backoff": "patience",
    "Patience": "patience",
    "ReadinessProbe": "probe",
    "WorkerSpec": "spec",
    "State": "statistics",
    "WorkerStatistics": "statistics",
    "Supervisor": "supervisor",
}
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _LATER)

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
