"""The engine: a scheduler and a runner, one step at a time."""

from collections.abc import Mapping
from dataclasses import replace

from salver.clock import Clock
from salver.contract import Decision, GenerateRequest, LatencyModel, LoadSnapshot, TokenChunk
from salver.contract.latency import UNMEASURED
from salver.engine.admission import Admission
from salver.engine.block_pool import BlockPool
from salver.engine.fair_order import FairOrder
from salver.engine.kv_cache import KVCacheManager
from salver.engine.latency_model import shape_of
from salver.engine.order import FirstComeFirstServed, Order
from salver.engine.output_text import DecoderFactory
from salver.engine.overtime import Overtime
from salver.engine.plan import ModelRunner
from salver.engine.scheduler import Scheduler
from salver.engine.step import Limits
from salver.flow import QueueBound, Share, Tariff


class EngineCore:
    """Plain Python without I/O: whoever owns it hands in the clock and takes the chunks away.

    The scheduler is told the time twice a step: before it decides, and again when the runner is
    done, so that a first token is dated by when it existed. The time between is what the step took,
    and refines the scheduler's latency model.
    """

    def __init__(self, scheduler: Scheduler, runner: ModelRunner, clock: Clock) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.overtime = Overtime()
        self._clock = clock

    @classmethod
    def build(
        cls,
        runner: ModelRunner,
        clock: Clock,
        limits: Limits,
        queue: QueueBound | Admission,
        eos_token_ids: frozenset[int],
        new_decoder: DecoderFactory,
        latency: LatencyModel = UNMEASURED,
        shares: Mapping[str, Share] | None = None,
    ) -> "EngineCore":
        """Put a scheduler in front of a runner, over the runner's own KV pool.

        With `shares`, turns are fair between the tenants that it has and any others; without, first
        come, first served.
        """
        kv = KVCacheManager(BlockPool(runner.num_blocks), runner.block_size)
        order: Order = FirstComeFirstServed()
        if shares is not None:
            order = FairOrder(
                kv,
                shares,
                max_running=limits.max_running,
                max_batch_tokens=limits.max_batch_tokens,
                max_context_tokens=limits.max_context_tokens,
                tariff=Tariff.of_machine(latency),
            )
        scheduler = Scheduler(kv, limits, queue, eos_token_ids, new_decoder, latency, order)
        return cls(scheduler, runner, clock)

    def add(self, request: GenerateRequest) -> None:
        """Accept a request. Raises `Refused` or `TooLarge`, see `Scheduler.add`."""
        self.scheduler.add(request, self._clock.now())

    def take_shed(self) -> list[tuple[str, Decision]]:
        """The requests that were shed since the last call; see `Scheduler.take_shed`."""
        return self.scheduler.take_shed()

    def cancel(self, request_id: str) -> None:
        """End a request at the next step boundary."""
        self.scheduler.cancel(request_id)

    def step(self) -> list[TokenChunk]:
        """One step: what it produced, ends included."""
        started = self._clock.now()
        plan = self.scheduler.schedule(started)
        output = self.runner.execute(plan)
        ended = self._clock.now()
        if plan.sequences:
            self.scheduler.telemetry.observe(shape_of(plan), ended - started)
            self.overtime.count(plan, started, ended)
        return self.scheduler.update(plan, output, ended)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def load(self) -> LoadSnapshot:
        return replace(
            self.scheduler.load(self._clock.now()),
            late_tokens=self.overtime.late_tokens,
            overdue_tokens=self.overtime.overdue_tokens,
        )

    def __repr__(self) -> str:
        return f"<EngineCore {self.scheduler!r}>"
