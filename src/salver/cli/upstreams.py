"""The other servers of a contract, wired up: the pool that serves its release, and its fallbacks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from salver.cli.home import bearer_in
from salver.cli.sharing import first_token_within, shares_of
from salver.clock import Clock
from salver.contract import Backend, Deployment, Overload, PromptForm, UpstreamBackend
from salver.flow import FirstTokenBound, QueueBound
from salver.flow.circuit_breaker import BreakerRule
from salver.flow.waiting import FairQueue, FirstComeQueue
from salver.telemetry import Observer
from salver.upstream import (
    Address,
    FallbackChain,
    PoolRule,
    StaticAnswer,
    UpstreamPool,
    UpstreamServer,
    WaitingRule,
)


def takes_messages(deployment: Deployment) -> bool:
    """Whether any server that may be asked is sent conversations."""
    asked = {*deployment.served_by, *(step.backend for step in deployment.fallback)}
    return any(
        each.name in asked and each.prompts is PromptForm.MESSAGES for each in deployment.backends
    )


@asynccontextmanager
async def serving_pool(
    deployment: Deployment, clock: Clock, observe: Observer
) -> AsyncIterator[UpstreamPool]:
    """The servers that are replicas of the release.

    Raises:
        ContractError: a key's variable is not set.
    """
    async with _pool(deployment, deployment.name, deployment.served_by, clock, observe) as pool:
        yield pool


@asynccontextmanager
async def with_fallbacks(
    first: Backend, deployment: Deployment, clock: Clock, observe: Observer
) -> AsyncIterator[Backend]:
    """`first`, and behind it what the contract lists; `first` itself where it lists nothing.

    Raises:
        ContractError: a key's variable is not set.
    """
    if not deployment.fallback:
        yield first
        return
    async with AsyncExitStack() as stack:
        steps = [first]
        for step in deployment.fallback:
            if step.static is not None:
                steps.append(StaticAnswer(step.static, clock))
            elif step.backend is not None:
                opened = _pool(deployment, step.backend, (step.backend,), clock, observe)
                steps.append(await stack.enter_async_context(opened))
        yield FallbackChain(steps, observe)


@asynccontextmanager
async def _pool(
    deployment: Deployment, name: str, servers: Sequence[str], clock: Clock, observe: Observer
) -> AsyncIterator[UpstreamPool]:
    declared = {each.name: each for each in deployment.backends}
    within = deployment.upstreams.connect_within
    opened = [
        UpstreamServer(_address(declared[each]), clock, connect_within=within) for each in servers
    ]
    shares = shares_of(deployment)
    pool = UpstreamPool(
        name,
        opened,
        _rule(deployment),
        clock=clock,
        observe=observe,
        queue=FirstComeQueue() if shares is None else FairQueue(shares),
    )
    try:
        await pool.start()
        yield pool
    finally:
        await pool.close()


def _address(declared: UpstreamBackend) -> Address:
    variable = declared.bearer_variable
    return Address(
        name=declared.name,
        url=declared.openai,
        model=declared.model,
        form=declared.prompts,
        bearer="" if variable is None else bearer_in(variable),
        max_tokens_in_flight=declared.max_tokens_in_flight,
    )


def _rule(deployment: Deployment) -> PoolRule:
    admission, upstreams = deployment.admission, deployment.upstreams
    within = first_token_within(deployment)
    return PoolRule(
        waiting=WaitingRule(
            QueueBound(admission.max_queued_requests, admission.max_queued_tokens),
            sheds=admission.overload is Overload.SHED_LOWEST_CLASS,
            first_token=None if within is None else FirstTokenBound(within),
        ),
        breaker=BreakerRule(upstreams.breaker_failures, upstreams.breaker_wait),
        retries=upstreams.retries,
        silent_after=upstreams.silent_after,
        token_gap=deployment.slo.tpot_p95 if deployment.slo else None,
    )
