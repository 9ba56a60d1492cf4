"""Measure a runner before it serves, so that its LatencyModel is known from the first request.

Steps of known shapes are run on the empty KV pool, cheap ones first, for as long as a budget lasts.
What they leave in the pool is never read: no block table covers a position before it was written.
"""

from collections.abc import Iterator

from salver.clock import Clock
from salver.contract import LatencyModel, SamplingParams
from salver.engine.latency_model import Measured, fit, shape_of
from salver.engine.plan import ModelRunner, SampleSpec, ScheduledSequence, SchedulerOutput

FAR = 8192  # a context in which most of a step is attention
# (sequences, tokens each, context before them): decodes alone and together, prompts, long contexts.
# The first four tell the four costs apart: without the far one, attention is a small part of each
# step, and what is measured says nothing of it.
_SHAPES = (
    (1, 1, 0),
    (1, 64, 0),
    (8, 1, 128),
    (1, 32, FAR),
    (1, 1, 512),
    (32, 1, 128),
    (1, 128, 0),
    (1, 256, 256),
    (32, 1, 512),
    (1, 512, 0),
)
MIN_SHAPES = 4
_GREEDY = SampleSpec(SamplingParams(max_tokens=1, temperature=0.0), seed=0, prompt=(), output=())


def calibrate(
    runner: ModelRunner,
    clock: Clock,
    *,
    max_batch_tokens: int,
    max_context_tokens: int,
    budget_seconds: float,
) -> LatencyModel:
    """Fit a LatencyModel to steps measured now.

    A shape is measured twice and the faster step counts: what disturbs one only ever makes it
    slower. However small the budget, there are as many shapes as the model has costs.
    """
    samples: list[Measured] = []
    started = clock.now()
    for plan in _plans(runner, max_batch_tokens, max_context_tokens):
        samples.append((shape_of(plan), min(_timed(runner, clock, plan) for _ in range(2))))
        if len(samples) >= MIN_SHAPES and clock.now() - started >= budget_seconds:
            break
    return fit(samples)


def _timed(runner: ModelRunner, clock: Clock, plan: SchedulerOutput) -> float:
    started = clock.now()
    runner.execute(plan)
    return max(clock.now() - started, 1e-9)  # a clock may stand still for one instant step


def _plans(
    runner: ModelRunner, max_batch_tokens: int, max_context_tokens: int
) -> Iterator[SchedulerOutput]:
    longest = min(max_context_tokens, runner.num_blocks * runner.block_size)
    for sequences, tokens, far in _SHAPES:
        context = min(far, longest - tokens) if far == FAR else far
        blocks = -(-(context + tokens) // runner.block_size)
        fits = context + tokens <= max_context_tokens and sequences * blocks <= runner.num_blocks
        if fits and sequences * tokens <= max_batch_tokens:
            yield _plan(sequences, tokens, context, blocks)


def _plan(sequences: int, tokens: int, context: int, blocks: int) -> SchedulerOutput:
    """Each sequence has blocks of its own, as it would in service."""
    scheduled = [
        ScheduledSequence(
            key=f"calibration#{index}",
            start=index * tokens,
            end=(index + 1) * tokens,
            first_position=context,
            block_table=range(index * blocks, (index + 1) * blocks),
            sample=_GREEDY,
        )
        for index in range(sequences)
    ]
    return SchedulerOutput([0] * (sequences * tokens), scheduled)
