"""A step while it is put together, and what one step may use."""

from dataclasses import dataclass, field

from salver.engine.request import Request
from salver.engine.step_budget import StepBudget


@dataclass(frozen=True, slots=True)
class Limits:
    """What one step, and one request, may use. From the contract's envelope and its SLO."""

    max_running: int
    max_batch_tokens: int
    max_context_tokens: int
    tpot_seconds: float | None = None  # what a running request may take per token
    ttft_seconds: float | None = None  # what a request may take to its first token


@dataclass(slots=True)
class Step:
    """What was chosen so far, and what is left. `first` has the first prompt of those in the step,
    and so the most urgent one; None while there is none."""

    budget: StepBudget
    chosen: dict[str, tuple[Request, int]] = field(default_factory=dict)  # by request key
    preempted: set[str] = field(default_factory=set)
    crowded: bool = False  # blocks lacked for a running request
    first: Request | None = None

    def put(self, request: Request, count: int, *, prompt: bool) -> None:
        """So many of its tokens are computed; `prompt` unless it only goes on by one."""
        self.chosen[request.key] = request, count
        if prompt and self.first is None:
            self.first = request

    def take_out(self, request: Request) -> None:
        """It was preempted, and none of its tokens are computed in this step."""
        self.preempted.add(request.key)
        _, count = self.chosen.pop(request.key, (request, 0))
        self.budget.give_back(count)
        if self.first is request:
            self.first = None
