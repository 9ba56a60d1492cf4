"""The engine: a scheduler and a runner, one step at a time."""

from salver.clock import Clock
from salver.contract import GenerateRequest, LoadSnapshot, TokenChunk
from salver.engine.block_pool import BlockPool
from salver.engine.kv_cache import KVCacheManager
from salver.engine.output_text import DecoderFactory
from salver.engine.plan import ModelRunner
from salver.engine.scheduler import Limits, Scheduler
from salver.flow import QueueBound


class EngineCore:
    """Plain Python without I/O: whoever owns it hands in the clock and takes the chunks away.

    The scheduler is told the time twice a step: before it decides, and again when the runner is
    done, so that a first token is dated by when it existed.
    """

    def __init__(self, scheduler: Scheduler, runner: ModelRunner, clock: Clock) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self._clock = clock

    @classmethod
    def build(
        cls,
        runner: ModelRunner,
        clock: Clock,
        limits: Limits,
        queue: QueueBound,
        eos_token_ids: frozenset[int],
        new_decoder: DecoderFactory,
    ) -> "EngineCore":
        """Put a scheduler in front of a runner, over the runner's own KV pool."""
        kv = KVCacheManager(BlockPool(runner.num_blocks), runner.block_size)
        return cls(Scheduler(kv, limits, queue, eos_token_ids, new_decoder), runner, clock)

    def add(self, request: GenerateRequest) -> None:
        """Accept a request. Raises `Refused` or `TooLarge`, see `Scheduler.add`."""
        self.scheduler.add(request, self._clock.now())

    def cancel(self, request_id: str) -> None:
        """End a request at the next step boundary."""
        self.scheduler.cancel(request_id)

    def step(self) -> list[TokenChunk]:
        """One step: what it produced, ends included."""
        plan = self.scheduler.schedule(self._clock.now())
        output = self.runner.execute(plan)
        return self.scheduler.update(plan, output, self._clock.now())

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def load(self) -> LoadSnapshot:
        return self.scheduler.load()

    def __repr__(self) -> str:
        return f"<EngineCore {self.scheduler!r}>"
