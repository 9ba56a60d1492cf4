"""A step's chosen requests as what the runner is told."""

from collections.abc import Iterable

from salver.engine.kv_cache import KVCacheManager
from salver.engine.plan import SampleSpec, ScheduledSequence, SchedulerOutput
from salver.engine.request import Request


def lay_out(
    chosen: Iterable[tuple[Request, int]], kv: KVCacheManager, eos_token_ids: frozenset[int]
) -> SchedulerOutput:
    """Every request with the number of its tokens to compute, laid end to end in this order."""
    token_ids: list[int] = []
    sequences = []
    for request, count in chosen:
        start = len(token_ids)
        first = request.num_computed_tokens
        end = first + count
        token_ids += request.tokens(first, end)
        wants = request.wants_prompt_logprobs
        sequences.append(
            ScheduledSequence(
                key=request.key,
                start=start,
                end=start + count,
                first_position=first,
                block_table=kv.table(request),
                sample=_sample_spec(request, eos_token_ids) if end == request.num_tokens else None,
                prompt_logprobs=request.params.prompt_logprobs if wants else None,
                next_prompt_tokens=request.prompt[first + 1 : end + 1] if wants else (),
                deadline=request.deadline,
            )
        )
    return SchedulerOutput(token_ids, sequences)


def _sample_spec(request: Request, eos_token_ids: frozenset[int]) -> SampleSpec:
    params = request.params
    banned: tuple[int, ...] = ()
    if len(request.output) < params.min_tokens:
        banned = (*sorted(eos_token_ids), *params.stop_token_ids)
    return SampleSpec(params, request.seed, request.prompt, request.output, banned)
